// Extents, shapes and the canonical text of a problem.
#include "convsmith/problem.h"
#include <charconv>
#include <utility>
#include "convsmith/error.h"
#include "problem_words.h"

namespace convsmith {
namespace {

using namespace problem_words;

/// A 64-bit number that remembers whether the arithmetic behind it fitted.
struct Checked {
  std::int64_t value;
  bool fits = true;
};

Checked operator+(Checked a, Checked b) {
  Checked sum{0, a.fits && b.fits};
  sum.fits &= !__builtin_add_overflow(a.value, b.value, &sum.value);
  return sum;
}

Checked operator-(Checked a, Checked b) {
  Checked difference{0, a.fits && b.fits};
  difference.fits &= !__builtin_sub_overflow(a.value, b.value, &difference.value);
  return difference;
}

Checked operator*(Checked a, Checked b) {
  Checked product{0, a.fits && b.fits};
  product.fits &= !__builtin_mul_overflow(a.value, b.value, &product.value);
  return product;
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

/// The product of a shape's extents. Zeros are left out until the end, so that an empty batch cannot hide a product
/// that its strides would still need.
Checked product(const Shape &shape) {
  Checked count{1};
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent == 0) empty = true;
    else if (extent != run_time) count = count * Checked{extent};
  }
  return {empty ? 0 : count.value, count.fits};
}

void append(Shape &shape, const Problem::Extents &extents, int rank) {
  shape.insert(shape.end(), extents.begin(), extents.begin() + rank);
}

std::string number_text(std::int64_t value) { return value == run_time ? "?" : std::to_string(value); }

std::string number_text(float value) {
  char digits[32];
  // Adding 0 turns -0 into 0: they compare equal, so they must print alike.
  return {digits, std::to_chars(digits, digits + sizeof digits, value + 0.0f).ptr};
}

std::string activation_text(const Activation &activation) {
  std::string text = name(activations, activation.kind);
  const std::size_t parameters = parameter_count(activation.kind);
  if (parameters > 0) text += ":" + number_text(activation.a);
  if (parameters > 1) text += ":" + number_text(activation.b);
  return text;
}

class Writer {
 public:
  std::string text;

  void write(Key key, const std::string &value) {
    if (!text.empty()) text += ' ';
    text += name(key) + "=" + value;
  }
  void write_unless(const std::string &usual, Key key, const std::string &value) {
    if (value != usual) write(key, value);
  }
};

/// One value where every axis has the same, else one an axis.
template<class AxisText>
std::string axes_text(int rank, AxisText axis_text) {
  std::string all;
  bool equal = true;
  for (int axis = 0; axis < rank; ++axis) {
    all += (axis > 0 ? "x" : "") + axis_text(axis);
    equal &= axis_text(axis) == axis_text(0);
  }
  return equal && rank > 0 ? axis_text(0) : all;
}

std::string in_text(const Problem &problem) { return " in \"" + problem.str() + "\""; }

}  // namespace

std::int64_t Problem::out(int axis) const {
  if (op == Op::dense) return dense_out[axis];
  const Checked one{1}, extent{in[axis]}, step{stride[axis]}, lo{pad_lo[axis]}, hi{pad_hi[axis]};
  const Checked window = Checked{dilation[axis]} * (Checked{kernel[axis]} - one) + one;
  Checked result{run_time, window.fits};
  if (in[axis] != run_time) {
    if (op == Op::transposed) {
      result = (extent - one) * step - lo - hi + window + Checked{out_pad[axis]};
    } else {
      const Checked room = extent + lo + hi - window;
      result = Checked{floor_divide(room.value, stride[axis]), room.fits} + one;
    }
  }
  if (!result.fits) {
    throw Error(std::string("problem: axis ") + "DHW"[3 - rank + axis] +
                ": expected extents whose output extent fits 64 bits, got more" + in_text(*this));
  }
  return result.value;
}

Shape Problem::input_shape() const {
  Shape shape{n, ic};
  append(shape, in, rank);
  return shape;
}

Shape Problem::output_shape() const {
  Shape shape{n, oc};
  for (int axis = 0; axis < rank; ++axis) shape.push_back(out(axis));
  return shape;
}

Shape Problem::weight_shape() const {
  Shape shape;
  switch (op) {
    case Op::dense:
      shape = {oc};
      append(shape, dense_out, rank);
      shape.push_back(ic);
      append(shape, in, rank);
      return shape;
    case Op::transposed:
      shape = {ic, oc / groups};
      break;
    case Op::local:
      for (int axis = 0; axis < rank; ++axis) shape.push_back(out(axis));
      shape.insert(shape.end(), {oc, ic / groups});
      break;
    case Op::correlation:
    case Op::convolution:
      shape = {oc, ic / groups};
      break;
  }
  append(shape, kernel, rank);
  return shape;
}

Shape Problem::bias_shape() const { return {oc}; }

std::string Problem::str() const {
  Writer writer;
  const auto write_axes = [&](Key key, const Extents &extents, std::int64_t usual) {
    const std::string value = axes_text(rank, [&](int axis) { return std::to_string(extents[axis]); });
    writer.write_unless(std::to_string(usual), key, value);
  };
  writer.write_unless("correlation", Key::op, name(ops, op));
  writer.write_unless("1", Key::n, number_text(n));
  writer.write_unless("1", Key::ic, number_text(ic));
  writer.write_unless("1", Key::oc, number_text(oc));
  writer.write_unless("1", Key::groups, number_text(groups));
  writer.write(Key::in, shape_text(Shape(in.begin(), in.begin() + rank)));
  // Where the op has a kernel it is required, so it has no default to leave out.
  write_axes(Key::kernel, kernel, op == Op::dense ? 1 : 0);
  write_axes(Key::out, dense_out, 1);
  write_axes(Key::stride, stride, 1);
  write_axes(Key::dilation, dilation, 1);
  writer.write_unless("0", Key::pad, axes_text(rank, [&](int axis) { return pad_text(pad_lo[axis], pad_hi[axis]); }));
  write_axes(Key::out_pad, out_pad, 0);
  writer.write_unless("zero", Key::border, name(borders, border));
  writer.write_unless("f32", Key::type, name(types, type));
  writer.write_unless("f32", Key::out_type, name(out_types, out_type));
  writer.write_unless("tensor", Key::scale, name(scales, scale));
  writer.write_unless("channels_last", Key::layout, name(layouts, layout));
  writer.write_unless("0", Key::bias, name(switches, bias));
  writer.write_unless("none", Key::activation, activation_text(activation));
  writer.write_unless("0", Key::residual, name(switches, residual));
  writer.write_unless("none", Key::save, name(saves, save));
  writer.write_unless("exact", Key::precision, name(precisions, precision));
  return writer.text;
}

std::int64_t element_count(const Shape &shape) {
  const Checked count = product(shape);
  if (!count.fits) throw Error("shape " + shape_text(shape) + ": expected at most 2^63-1 elements, got more");
  return count.value;
}

void check_element_limit(const Problem &problem, int bits) {
  const std::pair<const char *, Shape> tensors[] = {{"input", problem.input_shape()},
                                                    {"output", problem.output_shape()},
                                                    {"weight", problem.weight_shape()},
                                                    {"bias", problem.bias_shape()}};
  for (const auto &[tensor, shape] : tensors) {
    const Checked count = product(shape);
    if (count.fits && count.value >> bits == 0) continue;
    const std::string what = std::string("problem: ") + tensor + " " + shape_text(shape) + ": ";
    if (!count.fits) throw Error(what + "expected at most 2^63-1 elements, got more" + in_text(problem));
    throw Error(what + std::to_string(count.value) + " elements; more than 2^" + std::to_string(bits) +
                "-1 in a tensor is not available yet," + in_text(problem));
  }
}

std::string shape_text(const Shape &shape) {
  if (shape.empty()) return "()";
  std::string text;
  for (const std::int64_t extent : shape) {
    if (!text.empty()) text += 'x';
    text += extent == run_time ? "?" : std::to_string(extent);
  }
  return text;
}

}  // namespace convsmith
