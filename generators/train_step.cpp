// One step of gradient descent on the squared error, for small problems:
//
//   e = (y - target) * activation'(pre)     loss = sum (y - target)^2
//   weight_out = weight - rate * 2 * d_weight(e)     bias_out = bias - rate * 2 * sum e
//
// The loss is that of the weights before the step. `rate` is one number; weight_out must not overlap weight. Weights are
// master weights, in f32: forward sees them rounded to the type of the problem, and y is not rounded.
#include "contraction.h"

using namespace Halide;

namespace convsmith {
namespace {

std::vector<BufferSpec> buffers(const Workload &w) {
  const Problem &p = w.problem;
  const auto master = [&](const char *name) {
    BufferSpec b = plain_weight_spec(w, name, side_of(p, true));
    b.type = master_type(p);
    return b;
  };
  std::vector<BufferSpec> b = {operand_spec(w, "x", false), master("weight")};
  if (p.bias) b.push_back(channel_spec(w, "bias", bias_type(p)));
  if (p.residual) b.push_back(operand_spec(w, "residual", true));
  b.push_back(operand_spec(w, "target", true));
  b.push_back(scalar_spec("rate"));
  b.push_back(master("weight_out"));
  if (p.bias) b.push_back(channel_spec(w, "bias_out", bias_type(p)));
  b.push_back(scalar_spec("loss"));
  return b;
}

// The type of sums over the whole batch, whose terms may have one sign: in f32 they would stop at 2^24 of them. Not every OpenCL or
// Vulkan device has f64; there a row's sum is one term.
Halide::Type total_type(const Workload &w) {
  return w.target.has_feature(Target::OpenCL) || w.target.has_feature(Target::Vulkan) ? Float(32) : Float(64);
}

// sums(c, g, [h, [d,]] n) = sum over w of f(c, g, w, ..., n): rows are summed beside each other.
Func row_sums(const Workload &w, const std::string &name, const Func &f, const Extent &row) {
  std::vector<Var> of;
  for (int d = 0; d + 1 < f.dimensions(); d++) of.push_back(numbered("r", d));
  const RDom r(from_zero(std::vector<Extent>{row}), name + "_r");
  Index at(of.begin(), of.end());
  at.insert(at.begin() + 2, r);
  Func sums(name);
  sums(of) = cast(total_type(w), 0);
  sums(of) += cast(total_type(w), f(at));
  return sums;
}

// sum over n and the positions of e, by output channel.
void bias_update(const Workload &w, const Geometry &geo, const Func &bias, const Func &e, const Expr &twice_rate, Stages &s) {
  const Problem &p = w.problem;
  const auto of_y = extents(geo, side_of(p, true));
  const Func rows = row_sums(w, "bias_rows", e, of_y[2]);
  std::vector<Extent> domain(of_y.begin() + 3, of_y.end());
  const int positions = of_y[0].plan / int(p.oc);  // of a dense problem, whose elements are all channels
  if (p.op == Op::dense) domain.insert(domain.begin(), Extent(positions));
  RDom r(from_zero(domain), "of_channel");
  Var c("c"), g("g");
  Index at = {c, g};
  if (p.op == Op::dense) at[0] = p.layout == Layout::channels_last ? c + r[0] * int(p.oc) : c * positions + r[0];
  for (int d = p.op == Op::dense; d < r.dimensions(); d++) at.push_back(r[d]);
  Func sum("bias_sum"), out("bias_out");
  sum(c, g) = cast(total_type(w), 0);
  sum(c, g) += rows(at);
  out(c, g) = bias(c, g) - twice_rate * cast<float>(sum(c, g));
  s.row_sums.push_back(rows), s.before.push_back(sum);
  s.results.push_back(out);
}

// sum over everything of (y - target)^2
void loss_sum(const Workload &w, const Geometry &geo, const Func &difference, Stages &s) {
  const std::vector<Extent> of_y = extents(geo, side_of(w.problem, true));
  std::vector<Extent> domain = of_y;
  domain.erase(domain.begin() + 2);
  Func square("loss_terms"), sum("loss_sum"), out("loss_out");
  square(difference.args()) = difference(difference.args()) * difference(difference.args());
  const Func rows = row_sums(w, "loss_rows", square, of_y[2]);
  const RDom all(from_zero(domain), "all");
  Index at;
  for (int d = 0; d < all.dimensions(); d++) at.push_back(all[d]);
  Var i("i");
  sum(i) = cast(total_type(w), 0);
  sum(i) += rows(at);
  out(i) = cast<float>(sum(i));
  s.row_sums.push_back(rows), s.before.push_back(sum);
  s.results.push_back(out);
}

// Weights as `pack_weight` lays them out: (channel of panel, other channel, k..., panel, g).
Func panels_of(const Workload &w, const Geometry &geo, const Func &weight, Side of) {
  const size_t rank = geo.axes.size();
  std::vector<Var> v;
  for (size_t d = 0; d < rank + 4; d++) v.push_back(numbered("p", int(d)));
  Index at = {min(v[0] + v[2 + rank] * w.panel, geo.channels(of) - 1), v[1], v[3 + rank]};
  if (of == Side::in) std::swap(at[0], at[1]);
  for (size_t d = 0; d < rank; d++) at.push_back(v[2 + d]);
  Func panels("weight_panels");
  panels(v) = weight(at);
  return panels;
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const Problem &p = w.problem;
  // The knobs are those of the weights' sum; forward is computed as a Func of its own, from what lies in memory.
  Workload gradient = w;
  gradient.panel = gradient.quad = 0;
  Workload plain = gradient;
  plain.fill = w.fill_first, plain.trim = w.trim_first, plain.fill_both = false, plain.position_lanes = 0, plain.panel = w.panel_first, plain.few = w.few_first;
  gradient.pass = PassKind::weight_gradient;
  const Geometry geo = geometry(plain);
  const size_t extra = size_t(p.bias) + size_t(p.residual);
  const Func x = in[0], weight = in[1], target = in[2 + extra], rate = in.back();
  const std::vector<Func> added(in.begin() + 2, in.begin() + 2 + extra);
  Func seen("weight_seen");
  seen(weight.args()) = cast(weight_type(p), weight(weight.args()));
  const Side y_side = side_of(p, true);
  // y itself is not stored: the forward pass ends in the errors. But not where these take exponentials, which each vector of its unrolled tiles
  // would spell out: 1x1 with four residues, open extents and silu took 34 s to compile.
  using Kind = Activation::Kind;
  const Kind kind = p.activation.kind;
  const bool plain_errors = kind == Kind::none, apart = kind == Kind::sigmoid || kind == Kind::tanh || kind == Kind::silu || kind == Kind::gelu;
  const auto of_pre = [&](const Expr &pre, const Index &at) {
    const Expr difference = activated(w, pre) - cast<float>(target(at));
    return plain_errors ? std::vector<Expr>{difference} : std::vector<Expr>{difference, difference * slope_from_pre(w, pre)};
  };
  const Func panels = plain.panel ? panels_of(plain, geo, seen, y_side) : seen;
  Stages f = gather(plain, geo, y_side, x, panels, [&](Expr sum, const Index &at) {
    const Expr pre = pre_activation(w, sum, at, added);
    return apart ? std::vector<Expr>{pre} : of_pre(pre, at);
  });
  if (plain.panel) f.before.push_back(panels);
  Func errors = f.result();
  if (apart) {
    const std::vector<Var> v = target.args();
    errors = Func("errors");
    errors(v) = Tuple(of_pre(f.result()(v), {v.begin(), v.end()}));
  }
  const auto error = [&](const char *name, int which) {
    if (plain_errors) return errors;
    Func of_tuple(name);
    of_tuple(errors.args()) = errors(errors.args())[which];
    return of_tuple;
  };
  const Func difference = error("difference", 0), e = error("e", 1);

  const Expr twice_rate = rate(0) * 2.f;
  const bool x_is_in = y_side == Side::out;
  Stages s = weight_gradient(gradient, geo, x_is_in ? x : e, x_is_in ? e : x, [&](Expr sum, const Index &at) {
    return std::vector<Expr>{weight(at) - twice_rate * sum};
  });
  s.first = std::make_shared<Stages>(f);
  if (apart) s.elements = {errors};
  if (p.bias) bias_update(w, geo, in[2], e, twice_rate, s);

  loss_sum(w, geo, difference, s);
  return s;
}

}  // namespace

const Operator train_step{"train_step", buffers, build};

}  // namespace convsmith
