// What follows the sum of a forward pass, and the gradients of it.
#include "contraction.h"
#include <algorithm>
#include <cmath>

using namespace Halide;

namespace convsmith {
namespace {

using Kind = Activation::Kind;

// e^t of |t| <= 87. Halide's own takes t - k ln 2 in two steps, which its fast arithmetic makes one of where no multiplication is
// fused with the addition: 67 units in the last place at -72. So there it gets what two exact steps have left, |t| < 0.35.
Expr exponential(const Workload &w, const Expr &t) {
  if (w.target.arch != Target::X86 || w.target.has_feature(Target::FMA) || w.target.has_gpu_feature()) return exp(t);
  const Expr k = round(t * float(1 / std::log(2.0)));
  const float upper = 0x1.62e4p-1f, lower = 0x1.7f7d1cp-20f;  // their sum is ln 2; k times the upper, of 15 bits, is exact
  return exp(strict_float(t - k * upper - k * lower)) * reinterpret<float>((cast<int>(k) + 127) << 23);
}

// e^-v and its kin stay finite: generated code takes no account of infinities.
Expr logistic(const Workload &w, const Expr &v) { return 1.f / (1.f + exponential(w, -clamp(v, -87.f, 87.f))); }

// The share of v that is left of it: none so far below 0, where e^-87 of -1e38 would be more than nothing. v itself is not held, so
// that a NaN stays one: what diverged must not look as if it had not.
Expr share_above(const Expr &v, float least, const Expr &share) { return select(v < least, 0.f, share); }

// Near 0 an odd polynomial, elsewhere 1 - 2/(e^2v + 1): within 4 units in the last place.
// Source: S. Moshier, Cephes Mathematical Library, tanhf.
Expr hyperbolic_tangent(const Expr &v) {
  const Expr a = abs(v), z = v * v;
  const Expr near = ((((-5.70498872745e-3f * z + 2.06390887954e-2f) * z - 5.37397155531e-2f) * z + 1.33314422036e-1f) * z -
                     3.33332819422e-1f) * z * v + v;
  const Expr far = 1.f - 2.f / (exp(2.f * min(a, 20.f)) + 1.f);
  return select(a < 0.625f, near, select(v < 0, -far, far));
}

// The distribution function of the normal distribution, and its density. Past 8 it is 0 or 1 in f32, and the polynomials of erf would overflow.
Expr normal_below(const Expr &v) { return 0.5f * (1.f + erf(clamp(v, -8.f, 8.f) * float(std::sqrt(0.5)))); }
Expr normal_density(const Expr &v) {
  const Expr near = clamp(v, -13.f, 13.f);  // further out it is below 1e-37
  return select(v == near, float(1 / std::sqrt(2 * 3.14159265358979323846)) * exp(-0.5f * near * near), 0.f);
}

// db(oc) = sum over n,o of dy(n,oc,o)
std::vector<BufferSpec> bias_buffers(const Workload &w) {
  return {tensor_spec(w, "dy", true), channel_spec(w, "dbias", bias_type(w.problem))};
}

Stages bias_build(const Workload &w, const std::vector<Func> &in) {
  const auto e = tensor_extents(w, true);
  const std::vector<Extent> domain(e.begin() + 2, e.end());
  RDom r(from_zero(domain), "r");
  Var c("c"), g("g");
  Stages s;
  // The exterior, because a rounded-up tile reads past the last channel.
  s.vec = Func("dy_in");
  s.vec(in[0].args()) = cast<float>(
      BoundaryConditions::constant_exterior(in[0], cast(in[0].type(), 0.f), from_zero(e))(in[0].args()));
  Index at = {c, g};
  Sum sum{Func("acc"), r, {}};
  for (size_t d = 0; d < domain.size(); d++) {
    at.push_back(r[int(d)]);
    sum.extent.push_back(domain[d].plan), sum.known &= domain[d].known;
  }
  sum.acc(c, g) = 0.f;
  sum.acc(c, g) += s.vec(at);
  s.out = Func("db_out");
  s.out(c, g) = sum.acc(c, g);
  s.sums = {sum}, s.over_positions = true, s.free = {{c, e[0].plan, 1, true}, {g, e[1].plan}};
  return s;
}

// dpre = dy * activation'(pre), from what forward stored.
std::vector<BufferSpec> activation_buffers(const Workload &w) {
  return {tensor_spec(w, "dy", true), tensor_spec(w, w.problem.save == Save::pre ? "pre" : "y", true),
          tensor_spec(w, "dpre", true)};
}

Stages activation_build(const Workload &w, const std::vector<Func> &in) {
  const Problem &p = w.problem;
  const std::vector<Var> v = in[0].args();
  const auto e = tensor_extents(w, true);
  const Expr stored = cast<float>(in[1](v));
  Stages s;
  s.out = Func("dpre_out");
  s.out(v) = cast(tensor_type(p), cast<float>(in[0](v)) *
                                      (p.save == Save::pre ? slope_from_pre(w, stored) : slope_from_output(p, stored)));
  for (size_t d = 0; d < v.size(); d++) s.free.push_back({v[d], e[d].plan, 1, false, e[d].known, e[d].value});
  if (p.layout == Layout::channels_first) std::rotate(s.free.begin(), s.free.begin() + 2, s.free.begin() + 3);
  return s;
}

}  // namespace

Expr activated(const Workload &w, Expr v) {
  const Activation &a = w.problem.activation;
  switch (a.kind) {
    case Kind::none: return v;
    case Kind::relu: return max(v, 0.f);
    case Kind::relu6: return clamp(v, 0.f, 6.f);
    case Kind::leaky_relu: return select(v > 0, v, v * a.a);
    case Kind::sigmoid: return logistic(w, v);
    case Kind::tanh: return hyperbolic_tangent(v);
    case Kind::silu: return v * share_above(v, -87.f, logistic(w, v));
    case Kind::gelu: return v * share_above(v, -8.f, normal_below(v));
    case Kind::clamp: return clamp(v, a.a, a.b);
  }
  return v;
}

Expr slope_from_pre(const Workload &w, Expr v) {
  const Activation &a = w.problem.activation;
  switch (a.kind) {
    case Kind::silu: return share_above(v, -87.f, logistic(w, v)) * (1.f + v * (1.f - logistic(w, v)));
    case Kind::gelu: return normal_below(v) + v * normal_density(v);
    case Kind::leaky_relu: return select(v > 0, 1.f, a.a);
    case Kind::clamp: return select(v > a.a && v < a.b, 1.f, 0.f);
    default: return slope_from_output(w.problem, activated(w, v));
  }
}

Expr slope_from_output(const Problem &p, Expr y) {
  const Activation &a = p.activation;
  const auto stored = [&](float bound) { return cast<float>(cast(tensor_type(p), Expr(bound))); };  // as in y
  switch (a.kind) {
    case Kind::relu: return select(y > 0, 1.f, 0.f);
    case Kind::relu6: return select(y > 0 && y < 6, 1.f, 0.f);
    case Kind::leaky_relu: return select(y > 0, 1.f, a.a);
    case Kind::sigmoid: return y * (1.f - y);
    case Kind::tanh: return 1.f - y * y;
    case Kind::clamp: return select(y > stored(a.a) && y < stored(a.b), 1.f, 0.f);
    default: return 1.f;
  }
}

Expr pre_activation(const Workload &w, Expr sum, const Index &at, const std::vector<Func> &extra) {
  size_t next = 0;
  if (w.problem.bias) sum += extra[next++](channel_index(w, at));
  if (w.problem.residual) sum += cast<float>(extra[next](at));
  return sum;
}

Finish epilogue(const Workload &w, const std::vector<Func> &extra) {
  return [=](Expr sum, const Index &at) {
    const Problem &p = w.problem;
    const Expr pre = pre_activation(w, sum, at, extra);
    std::vector<Expr> results = {cast(tensor_type(p), activated(w, pre))};
    if (p.save == Save::pre) results.push_back(cast(tensor_type(p), pre));
    return results;
  };
}

const Operator bias_gradient{"bias_gradient", bias_buffers, bias_build};
const Operator activation_gradient{"activation_gradient", activation_buffers, activation_build};

}  // namespace convsmith
