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

// sum over n and the positions of e, by output channel.
void bias_update(const Workload &w, const Geometry &geo, const Func &bias, const Func &e, const Expr &twice_rate, Stages &s) {
  const Problem &p = w.problem;
  const auto of_y = extents(geo, side_of(p, true));
  std::vector<Extent> domain(of_y.begin() + 2, of_y.end());
  const int positions = of_y[0].plan / int(p.oc);  // of a dense problem, whose elements are all channels
  if (p.op == Op::dense) domain.insert(domain.begin(), Extent(positions));
  RDom r(from_zero(domain), "of_channel");
  Var c("c"), g("g");
  Index at = {c, g};
  if (p.op == Op::dense) at[0] = p.layout == Layout::channels_last ? c + r[0] * int(p.oc) : c * positions + r[0];
  for (int d = p.op == Op::dense; d < r.dimensions(); d++) at.push_back(r[d]);
  Func sum("bias_sum"), out("bias_out");
  sum(c, g) = 0.f;
  sum(c, g) += e(at);
  out(c, g) = bias(c, g) - twice_rate * sum(c, g);
  s.before.push_back(sum);
  s.results.push_back(out);
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const Problem &p = w.problem;
  Workload plain = w;
  plain.panel = plain.quad = 0;
  const Geometry geo = geometry(plain);
  const size_t extra = size_t(p.bias) + size_t(p.residual);
  const Func x = in[0], weight = in[1], target = in[2 + extra], rate = in.back();
  const std::vector<Func> added(in.begin() + 2, in.begin() + 2 + extra);
  Func seen("weight_seen");
  seen(weight.args()) = cast(weight_type(p), weight(weight.args()));
  const Side y_side = side_of(p, true);
  const Stages f = gather(plain, geo, y_side, x, seen, [&](Expr sum, const Index &at) {
    return std::vector<Expr>{pre_activation(w, sum, at, added)};
  });

  const std::vector<Var> v = target.args();
  Func difference("difference"), e("e");
  difference(v) = activated(w, f.out(v)) - cast<float>(target(v));
  e(v) = difference(v) * slope_from_pre(w, f.out(v));

  const Expr twice_rate = rate(0) * 2.f;
  const bool x_is_in = y_side == Side::out;
  Stages s = weight_gradient(plain, geo, x_is_in ? x : e, x_is_in ? e : x, [&](Expr sum, const Index &at) {
    return std::vector<Expr>{weight(at) - twice_rate * sum};
  });
  for (auto &sum : f.sums) s.before.push_back(sum.acc);
  s.before.insert(s.before.end(), {f.out, difference, e});
  if (p.bias) bias_update(w, geo, in[2], e, twice_rate, s);

  RDom all(from_zero(extents(geo, y_side)), "all");
  Index every;
  for (int d = 0; d < all.dimensions(); d++) every.push_back(all[d]);
  Func loss("loss_sum"), out("loss_out");
  Var i("i");
  loss(i) = 0.f;
  loss(i) += difference(every) * difference(every);
  out(i) = loss(i);
  s.before.push_back(loss);
  s.results.push_back(out);
  return s;
}

}  // namespace

const Operator train_step{"train_step", buffers, build};

}  // namespace convsmith
