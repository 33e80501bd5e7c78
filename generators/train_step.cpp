// One step of gradient descent on the squared error, for small problems:
//
//   e = (y - target) * slope(y)     loss = sum (y - target)^2
//   weight_out = weight - rate * 2 * d_weight(e)     bias_out = bias - rate * 2 * sum e
//
// The loss is that of the weights before the step. `rate` is one number; weight_out must not overlap weight.
#include "contraction.h"

using namespace Halide;

namespace convsmith {
namespace {

std::vector<BufferSpec> buffers(const Workload &w) {
  const Problem &p = w.problem;
  std::vector<BufferSpec> b = {tensor_spec(p, "x", false), plain_weight_spec(p, "weight", false)};
  if (p.bias) b.push_back(channel_spec(p, "bias"));
  b.push_back(tensor_spec(p, "target", true));
  b.push_back(scalar_spec("rate"));
  b.push_back(plain_weight_spec(p, "weight_out", false));
  if (p.bias) b.push_back(channel_spec(p, "bias_out"));
  b.push_back(scalar_spec("loss"));
  return b;
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const Problem &p = w.problem;
  Workload plain_weights = w;
  plain_weights.panel = 0;
  const Func x = in[0], weight = in[1], target = in[p.bias ? 3 : 2], rate = in.back();
  const Stages f = gather(plain_weights, false, x, weight, epilogue(p, {in.begin() + 2, in.begin() + 2 + p.bias}));

  const std::vector<Var> v = target.args();
  Func difference("difference"), e("e");
  difference(v) = f.out(v) - target(v);
  e(v) = difference(v) * activation_slope(p, f.out(v));

  Stages s = weight_gradient(plain_weights, x, e, [&](Expr sum, const Index &at) {
    return weight(at) - rate(0) * 2.f * sum;
  });
  s.before = {f.sums[0].acc, f.out, difference, e};

  const auto extents = tensor_extents(p, true);
  RDom all(from_zero(extents), "all");
  Index every;
  for (int d = 0; d < all.dimensions(); d++) every.push_back(all[d]);
  if (p.bias) {
    RDom r(from_zero({extents.begin() + 2, extents.end()}), "of_channel");
    Var c("c"), g("g");
    Index at = {c, g};
    for (int d = 0; d < r.dimensions(); d++) at.push_back(r[d]);
    Func sum("bias_sum"), out("bias_out");
    sum(c, g) = 0.f;
    sum(c, g) += e(at);
    out(c, g) = in[2](c, g) - rate(0) * 2.f * sum(c, g);
    s.before.push_back(sum);
    s.results.push_back(out);
  }
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
