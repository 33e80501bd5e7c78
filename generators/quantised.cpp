// Forward of 8-bit operands: u8 data and s8 weights, each with a scale and a zero point, summed in 32-bit integers.
//
//   sum(oc)  = bias(oc) + sum over ic,k of (x - x_zero) * (w - w_zero)          a border of zeros being x = x_zero
//   i32      y = activation(sum + residual)
//   f32      y = activation(sum * x_scale * w_scale + residual)
//   u8, s8   y = saturate(round(activation(sum * x_scale * w_scale + (residual - y_zero) * y_scale) / y_scale) + y_zero)
//
// round goes to the nearest, ties to even. The residual is of y's type. Zero points beyond their type are its ends.
#include "contraction.h"

using namespace Halide;

namespace convsmith {
namespace {

// What a pass reads beside x, the weights, the bias and the residual.
struct Quantisation {
  Expr x_zero, x_scale, y_scale, y_zero;
  Func w_zero, w_scale;
};

Expr of_channel(const Workload &w, const Func &f, const Index &at) {
  return w.problem.scale == Scale::tensor ? f(0) : f(channel_index(w, at));
}

Expr w_zero_of(const Workload &w, const Quantisation &q, const Index &at) {
  return clamp(of_channel(w, q.w_zero, at), -128, 127);
}

// From the sum with its zero points taken off.
Expr result_of(const Workload &w, const Quantisation &q, Expr sum, const Index &at, const std::vector<Func> &extra) {
  const Problem &p = w.problem;
  if (p.bias) sum += extra[0](channel_index(w, at));
  const Expr residual = p.residual ? extra.back()(at) : Expr();
  if (p.out_type == OutType::i32) {
    if (p.residual) sum += residual;
    return p.activation.kind == Activation::Kind::relu ? max(sum, 0) : sum;
  }
  Expr real = cast<float>(sum) * (q.x_scale * of_channel(w, q.w_scale, at));
  if (p.out_type == OutType::f32) return activated(w, p.residual ? real + residual : real);
  if (p.residual) real += cast<float>(cast<int>(residual) - q.y_zero) * q.y_scale;
  const Expr stepped = round(activated(w, real) / q.y_scale) + cast<float>(q.y_zero);
  if (p.out_type == OutType::u8) return cast<uint8_t>(clamp(stepped, 0.f, 255.f));
  return cast<int8_t>(clamp(stepped, -128.f, 127.f));
}

// Both operands as differences, in 16 bits: any operator.
Stages of_differences(const Workload &w, const Geometry &geo, const Func &x, const Func &weight, const Quantisation &q,
                      const std::vector<Func> &extra) {
  const Side result = side_of(w.problem, true);
  Func difference("x_difference"), weights("weight_difference");
  difference(x.args()) = cast<int16_t>(cast<int>(x(x.args())) - q.x_zero);
  const std::vector<Var> v = weight.args();
  const Index channel = {v[result == Side::out || geo.depthwise ? 0 : 1], v[2]};
  weights(v) = cast<int16_t>(cast<int>(weight(v)) - w_zero_of(w, q, channel));
  return gather(w, geo, result, difference, weights, [&](Expr sum, const Index &at) {
    return std::vector<Expr>{result_of(w, q, sum, at, extra)};
  });
}

// Both operands as they are, in fours, and the zero points taken off the sum:
//   sum (x - xz)(w - wz) = sum x w - xz sum w - wz sum (x - xz)
Stages of_fours(const Workload &w, const Geometry &geo, const Func &x, const Func &weight, const Quantisation &q,
                const std::vector<Func> &extra) {
  const size_t rank = geo.axes.size();
  std::vector<int> domain = {geo.ci};
  for (auto &a : geo.axes) domain.push_back(a.kernel);

  Func weight_sums("weight_sums");
  Var c("c"), g("g"), n("n");
  RDom taps(from_zero(domain), "taps");
  Index tap = {c, taps[0], g};
  for (size_t d = 0; d < rank; d++) tap.push_back(taps[int(d) + 1]);
  weight_sums(c, g) = 0;
  weight_sums(c, g) += cast<int>(filter_of(w, geo, weight, Side::out)(tap));

  // For weights with a zero point only.
  Func any_w_zero("any_w_zero"), x_sums("x_sums");
  any_w_zero() = 0;
  RDom zeros(0, w.problem.scale == Scale::tensor ? 1 : geo.co, 0, geo.g, "zeros");
  any_w_zero() = any_w_zero() | w_zero_of(w, q, {zeros.x, zeros.y});
  RDom window(from_zero(domain), "window");
  window.where(any_w_zero() != 0);
  Workload as_bytes = w;
  as_bytes.offset = false;
  const Func bordered = with_border(as_bytes, geo, "x_summed", x, Side::in, false, q.x_zero).f;
  std::vector<Var> position;
  Index read;
  for (size_t d = 0; d < rank; d++) {
    position.push_back(numbered("s", int(d)));
    read.push_back(position[d] * geo.axes[d].stride + window[int(d) + 1] * geo.axes[d].dilation - geo.axes[d].lo);
  }
  position.push_back(n), position.push_back(g);
  x_sums(position) = 0;
  x_sums(position) += cast<int>(bordered(tensor_index(window[0], g, read, n))) - q.x_zero;

  Stages s = gather(w, geo, Side::out, x, weight, [&](Expr sum, const Index &at) {
    Index where(at.begin() + 2, at.end());
    where.push_back(at[1]);
    sum -= (q.x_zero - (w.offset ? 128 : 0)) * weight_sums(at[0], at[1]);
    sum -= w_zero_of(w, q, at) * x_sums(where);
    return std::vector<Expr>{result_of(w, q, sum, at, extra)};
  }, q.x_zero);
  s.before = {weight_sums, any_w_zero, x_sums};
  return s;
}

}  // namespace

std::vector<BufferSpec> quantised_inputs(const Workload &w) {
  const Problem &p = w.problem;
  const auto weights_own = [&](const char *name, Halide::Type type) {
    return p.scale == Scale::tensor ? scalar_spec(name, type) : channel_spec(w, name, type);
  };
  std::vector<BufferSpec> b = {scalar_spec("x_zero", Int(32)), weights_own("w_zero", Int(32))};
  if (p.out_type != OutType::i32) b.push_back(scalar_spec("x_scale")), b.push_back(weights_own("w_scale", Float(32)));
  if (p.out_type == OutType::u8 || p.out_type == OutType::s8)
    b.push_back(scalar_spec("y_scale")), b.push_back(scalar_spec("y_zero", Int(32)));
  return b;
}

Stages quantised_forward(const Workload &w, const Geometry &geo, const std::vector<Func> &in) {
  const OutType type = w.problem.out_type;
  Quantisation q;
  size_t next = 2;
  q.x_zero = clamp(in[next++](0), 0, 255), q.w_zero = in[next++];
  if (type != OutType::i32) q.x_scale = in[next++](0), q.w_scale = in[next++];
  if (type == OutType::u8 || type == OutType::s8) {
    const int low = type == OutType::u8 ? 0 : -128;
    q.y_scale = in[next++](0), q.y_zero = clamp(in[next++](0), low, low + 255);
  }
  const std::vector<Func> extra(in.begin() + next, in.end());
  Stages s = (w.quad ? of_fours : of_differences)(w, geo, in[0], in[1], q, extra);
  s.by_fours = side_of(w.problem, true) == Side::out && !geo.unshared && !geo.depthwise && !along_space(geo.co);
  return s;
}

}  // namespace convsmith
