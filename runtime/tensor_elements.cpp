// What a tensor does to each of its elements.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include "convsmith/error.h"
#include "convsmith/half.h"
#include "convsmith/tensor.h"
#include "rows.h"
#include "text.h"

namespace convsmith {
namespace {

template<class T>
T integer(float value, convsmith_type type) {
  if (value < static_cast<float>(std::numeric_limits<T>::min()) ||
      value >= static_cast<float>(std::numeric_limits<T>::max()) + 1.0f || value != std::trunc(value)) {
    throw Error("tensor: expected a value of type " + std::string(type_name(type)) + ", got " + number_text(value));
  }
  return static_cast<T>(value);
}

template<class T>
void fill_with(const Tensor &tensor, T value) {
  T *data = tensor.data<T>();
  for_each_row<1>(tensor.shape(), {tensor.strides()}, [&](const Row<1> &row) {
    for (std::int64_t i = 0; i < row.length; i++) data[row.offset[0] + i * row.step[0]] = value;
  });
}

template<class T>
void copy_row(void *to, const void *from, const Row<2> &row) {
  T *t = static_cast<T *>(to) + row.offset[0];
  const T *f = static_cast<const T *>(from) + row.offset[1];
  if (row.step[0] == 1 && row.step[1] == 1) {
    std::memcpy(t, f, static_cast<std::size_t>(row.length) * sizeof(T));
  } else {
    for (std::int64_t i = 0; i < row.length; i++) t[i * row.step[0]] = f[i * row.step[1]];
  }
}

}  // namespace

void Tensor::copy_from(const Tensor &from) const {
  if (from.type_ != type_ || from.shape() != shape() || from.defined() != defined()) {
    throw Error("tensor: expected " + shape_text(shape()) + " of " + type_name(type_) + " to copy, got " +
                shape_text(from.shape()) + " of " + type_name(from.type_));
  }
  if (!defined()) return;
  // In the source's memory order, so that reads are contiguous.
  const Shape extents = shape(), strides = this->strides(), from_strides = from.strides();
  std::vector<std::size_t> axes(extents.size());
  std::iota(axes.begin(), axes.end(), std::size_t{0});
  std::stable_sort(axes.begin(), axes.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(from_strides[a]) > std::abs(from_strides[b]); });
  Shape ordered;
  std::array<Shape, 2> ordered_strides;
  for (std::size_t axis : axes) {
    ordered.push_back(extents[axis]);
    ordered_strides[0].push_back(strides[axis]);
    ordered_strides[1].push_back(from_strides[axis]);
  }
  for_each_row<2>(ordered, ordered_strides, [&, bytes = size_of(type_)](const Row<2> &row) {
    if (bytes == 1) copy_row<std::uint8_t>(data<void>(), from.data<void>(), row);
    else if (bytes == 2) copy_row<std::uint16_t>(data<void>(), from.data<void>(), row);
    else copy_row<std::uint32_t>(data<void>(), from.data<void>(), row);
  });
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor result(c());
  result.copy_from(*this);
  return result;
}

void Tensor::fill(float value) const {
  if (!defined()) return;
  switch (type_) {
    case CONVSMITH_F32:
      return fill_with(*this, value);
    case CONVSMITH_F16:
      return fill_with(*this, to_float16(value));
    case CONVSMITH_BF16:
      return fill_with(*this, to_bfloat16(value));
    case CONVSMITH_U8:
      return fill_with(*this, integer<std::uint8_t>(value, type_));
    case CONVSMITH_S8:
      return fill_with(*this, integer<std::int8_t>(value, type_));
    case CONVSMITH_I32:
      return fill_with(*this, integer<std::int32_t>(value, type_));
  }
}

Tensor Tensor::as(convsmith_type type) const {
  if (type == type_ || !defined()) return *this;
  convsmith_tensor like = c();
  like.type = type;
  const Tensor result(like);
  for_each_row<2>(shape(), {result.strides(), strides()}, [&](const Row<2> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      result.store(row.offset[0] + i * row.step[0], load(row.offset[1] + i * row.step[1]));
    }
  });
  return result;
}

float Tensor::load(std::int64_t offset) const {
  switch (type_) {
    case CONVSMITH_F32:
      return data<float>()[offset];
    case CONVSMITH_F16:
      return from_float16(data<std::uint16_t>()[offset]);
    case CONVSMITH_BF16:
      return from_bfloat16(data<std::uint16_t>()[offset]);
    case CONVSMITH_U8:
      return data<std::uint8_t>()[offset];
    case CONVSMITH_S8:
      return data<std::int8_t>()[offset];
    case CONVSMITH_I32:
      return static_cast<float>(data<std::int32_t>()[offset]);
  }
  return 0;
}

void Tensor::store(std::int64_t offset, float value) const {
  switch (type_) {
    case CONVSMITH_F32:
      data<float>()[offset] = value;
      break;
    case CONVSMITH_F16:
      data<std::uint16_t>()[offset] = to_float16(value);
      break;
    case CONVSMITH_BF16:
      data<std::uint16_t>()[offset] = to_bfloat16(value);
      break;
    case CONVSMITH_U8:
      data<std::uint8_t>()[offset] = integer<std::uint8_t>(value, type_);
      break;
    case CONVSMITH_S8:
      data<std::int8_t>()[offset] = integer<std::int8_t>(value, type_);
      break;
    case CONVSMITH_I32:
      data<std::int32_t>()[offset] = integer<std::int32_t>(value, type_);
      break;
  }
}

float Tensor::largest_magnitude() const {
  float largest = 0;
  if (!defined()) return largest;
  for_each_row<1>(shape(), {strides()}, [&](const Row<1> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      largest = std::max(largest, std::abs(load(row.offset[0] + i * row.step[0])));
    }
  });
  return largest;
}

void Tensor::scale(float factor) const {
  if (type_ != CONVSMITH_F32) throw Error("tensor: expected f32 to scale, got " + std::string(type_name(type_)));
  if (!defined()) return;
  float *values = data<float>();
  for_each_row<1>(shape(), {strides()}, [&](const Row<1> &row) {
    for (std::int64_t i = 0; i < row.length; i++) values[row.offset[0] + i * row.step[0]] *= factor;
  });
}

std::int64_t Tensor::first_not_finite() const {
  if (!defined() || !is_float(type_)) return -1;
  std::int64_t index = 0, found = -1;
  for_each_row<1>(shape(), {strides()}, [&](const Row<1> &row) {
    for (std::int64_t i = 0; found < 0 && i < row.length; i++) {
      if (!std::isfinite(load(row.offset[0] + i * row.step[0]))) found = index + i;
    }
    index += row.length;
  });
  return found;
}

}  // namespace convsmith
