// What follows the sum of a forward pass, and the gradients of it.
#include "contraction.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

Expr activated(const Problem &p, Expr v) { return p.activation.kind == Activation::Kind::relu ? max(v, 0.f) : v; }

// db(oc) = sum over n,o of dy(n,oc,o)
std::vector<BufferSpec> bias_buffers(const Workload &w) {
  return {tensor_spec(w.problem, "dy", true), channel_spec(w.problem, "dbias")};
}

Stages bias_build(const Workload &w, const std::vector<Func> &in) {
  const auto e = tensor_extents(w.problem, true);
  const std::vector<int> domain(e.begin() + 2, e.end());
  RDom r(from_zero(domain), "r");
  Var c("c"), g("g");
  Stages s;
  // The exterior, because a rounded-up tile reads past the last channel.
  s.vec = Func("dy_in");
  s.vec(in[0].args()) = BoundaryConditions::constant_exterior(in[0], 0.f, from_zero(e))(in[0].args());
  Index at = {c, g};
  for (size_t d = 0; d < domain.size(); d++) at.push_back(r[d]);
  Func acc("acc");
  acc(c, g) = 0.f;
  acc(c, g) += s.vec(at);
  s.out = Func("db_out");
  s.out(c, g) = acc(c, g);
  s.sums = {{acc, r, domain}}, s.over_positions = true, s.free = {{c, e[0], 1, true}, {g, e[1]}};
  return s;
}

// dpre = dy * [y > 0]: relu's own output tells on which side of the kink it was.
std::vector<BufferSpec> activation_buffers(const Workload &w) {
  return {tensor_spec(w.problem, "dy", true), tensor_spec(w.problem, "y", true), tensor_spec(w.problem, "dpre", true)};
}

Stages activation_build(const Workload &w, const std::vector<Func> &in) {
  const std::vector<Var> v = in[0].args();
  const auto e = tensor_extents(w.problem, true);
  Stages s;
  s.out = Func("dpre_out");
  s.out(v) = in[0](v) * activation_slope(w.problem, in[1](v));
  for (size_t d = 0; d < v.size(); d++) s.free.push_back({v[d], e[d]});
  if (w.problem.layout == Layout::channels_first) std::rotate(s.free.begin(), s.free.begin() + 2, s.free.begin() + 3);
  return s;
}

}  // namespace

Finish epilogue(const Problem &p, const std::vector<Func> &extra) {
  return [=](Expr sum, const Index &at) {
    if (p.bias) sum += extra[0](at[0], at[1]);
    return activated(p, sum);
  };
}

Expr activation_slope(const Problem &p, Expr value) {
  return p.activation.kind == Activation::Kind::relu ? select(value > 0, 1.f, 0.f) : Expr(1.f);
}

const Operator bias_gradient{"bias_gradient", bias_buffers, bias_build};
const Operator activation_gradient{"activation_gradient", activation_buffers, activation_build};

}  // namespace convsmith
