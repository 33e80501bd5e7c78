#include "cost.h"
#include "convsmith/tensor.h"
#include "tools/support/internal_error.h"

namespace convsmith {
namespace {

convsmith_type tensor_type(const Problem &p) {
  switch (p.type) {
    case Type::f16: return CONVSMITH_F16;
    case Type::bf16: return CONVSMITH_BF16;
    case Type::u8s8: return CONVSMITH_U8;
    default: return CONVSMITH_F32;
  }
}

convsmith_type output_type(const Problem &p) {
  if (p.type != Type::u8s8) return tensor_type(p);
  switch (p.out_type) {
    case OutType::u8: return CONVSMITH_U8;
    case OutType::s8: return CONVSMITH_S8;
    case OutType::i32: return CONVSMITH_I32;
    default: return CONVSMITH_F32;
  }
}

}  // namespace

Count times(Count a, Count b) {
  Count product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw InternalError("a count passes 2^128");
  return product;
}

Count elements(const Shape &shape) { return Count(element_count(shape)); }
Count positions(const Shape &tensor) { return elements({tensor.begin() + 2, tensor.end()}); }

Cost cost(const Problem &p, PassKind pass) {
  const Shape x_shape = p.input_shape(), y_shape = p.output_shape();
  const Count weights = elements(p.weight_shape()), y_elements = elements(y_shape);
  const bool shared = p.op != Op::local && p.op != Op::dense;
  const Count sharing = shared ? positions(p.op == Op::transposed ? x_shape : y_shape) : 1;
  const Count products = times(times(weights, sharing), elements({p.n}));

  const auto bytes = [](Count count, convsmith_type type) { return times(count, Count(size_of(type))); };
  const bool quantised = p.type == Type::u8s8;
  const Count x = bytes(elements(x_shape), tensor_type(p)), y = bytes(y_elements, output_type(p));
  const Count weight = bytes(weights, quantised ? CONVSMITH_S8 : tensor_type(p)), master = bytes(weights, quantised ? CONVSMITH_S8 : CONVSMITH_F32);
  const Count channels = bytes(Count(p.oc), CONVSMITH_F32), bias = p.bias ? channels : 0;
  const Count residual = p.residual ? y : 0, scalar = 4;

  switch (pass) {
    case PassKind::forward: {
      Count quantisation = 0;  // x_zero and w_zero, with their scales but for i32, and y's for 8 bits
      if (quantised) {
        const Count pair = scalar + (p.scale == Scale::tensor ? scalar : channels);
        quantisation = p.out_type == OutType::i32 ? pair : 2 * pair;
        if (p.out_type == OutType::u8 || p.out_type == OutType::s8) quantisation += 2 * scalar;
      }
      return {products, 2 * products, x + weight + bias + residual + quantisation, p.save == Save::pre ? 2 * y : y};
    }
    case PassKind::input_gradient:
      return {products, 2 * products, y + weight, x};
    case PassKind::weight_gradient:
      return {products, 2 * products, x + y, master};
    case PassKind::bias_gradient:
      return {0, y_elements, y, channels};
    case PassKind::activation_gradient:
      return {0, y_elements, 2 * y, y};
    case PassKind::pack_weight:
    case PassKind::pack_weight_for_input_gradient:
      return {0, 0, master, weight};
    case PassKind::train_step:
      return {2 * products, 4 * products, x + master + bias + residual + y + scalar, master + bias + scalar};
  }
  return {};
}

}  // namespace convsmith
