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

// Four vectors of four, their rows made columns: column i of the rows at from + rows[0..3] becomes the row at to + i*step.
void transpose_four(std::uint32_t *to, std::int64_t step, const std::uint32_t *from, const std::int64_t *rows) {
  using Four = std::uint32_t __attribute__((vector_size(16)));
  Four a, b, c, d;
  std::memcpy(&a, from + rows[0], sizeof a), std::memcpy(&b, from + rows[1], sizeof b);
  std::memcpy(&c, from + rows[2], sizeof c), std::memcpy(&d, from + rows[3], sizeof d);
  const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Four columns[] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; i++) std::memcpy(to + i * step, &columns[i], sizeof columns[i]);
}

// Copies 32-bit elements where the last axis lies dense in what is read, and the one before it in what is written. The
// axes that lie without gaps in what is written are its columns; a cache line of each is filled before the next.
void transpose(void *to, const void *from, const Shape &extents, const std::array<Shape, 2> &strides) {
  std::size_t outer = extents.size() - 1;  // axes before the columns
  Shape columns = {0};                     // where each is read
  const auto few = [&](std::size_t axis) { return std::int64_t(columns.size()) * extents[axis] <= 1 << 16; };
  while (outer > 0 && strides[0][outer - 1] == std::int64_t(columns.size()) && (columns.size() == 1 || few(outer - 1))) {
    const std::size_t inner = columns.size();
    outer--;
    for (std::int64_t i = 1; i < extents[outer]; i++)
      for (std::size_t j = 0; j < inner; j++) columns.push_back(columns[j] + i * strides[1][outer]);
  }
  const std::int64_t rows = extents.back(), step = strides[0].back();
  constexpr std::size_t line = 16;
  const auto block = [&](std::uint32_t *t, const std::uint32_t *f) {
    for (std::int64_t row = 0; row < rows; row += std::int64_t(line)) {
      const std::int64_t end = std::min(rows, row + std::int64_t(line));
      std::size_t column = 0;
      // Rows a page apart share the sets of a first-level cache, which has fewer than 16 ways: lines are written whole, 0.17 against
      // 0.62 ns an element. Elsewhere that takes a little longer.
      for (; step % 1024 == 0 && end - row == std::int64_t(line) && column + line <= columns.size(); column += line) {
        std::uint32_t square[line][line];
        for (std::size_t c = 0; c < line; c += 4)
          for (std::size_t r = 0; r < line; r += 4) transpose_four(&square[r][c], line, f + row + r, &columns[column + c]);
        for (std::size_t r = 0; r < line; r++) std::memcpy(t + (row + std::int64_t(r)) * step + std::int64_t(column), square[r], sizeof square[r]);
      }
      for (; column + 4 <= columns.size(); column += 4) {
        std::int64_t r = row;
        for (; r + 4 <= end; r += 4) transpose_four(t + r * step + std::int64_t(column), step, f + r, &columns[column]);
        for (; r < end; r++)
          for (std::size_t c = column; c < column + 4; c++) t[r * step + std::int64_t(c)] = f[r + columns[c]];
      }
      for (; column < columns.size(); column++)
        for (std::int64_t r = row; r < end; r++) t[r * step + std::int64_t(column)] = f[r + columns[column]];
    }
  };
  std::array<Shape, 2> outer_strides = {Shape(strides[0].begin(), strides[0].begin() + std::ptrdiff_t(outer)),
                                        Shape(strides[1].begin(), strides[1].begin() + std::ptrdiff_t(outer))};
  for_each_row<2>(Shape(extents.begin(), extents.begin() + std::ptrdiff_t(outer)), outer_strides, [&](const Row<2> &row) {
    for (std::int64_t i = 0; i < row.length; i++)
      block(static_cast<std::uint32_t *>(to) + row.offset[0] + i * row.step[0],
            static_cast<const std::uint32_t *>(from) + row.offset[1] + i * row.step[1]);
  });
}

}  // namespace

void Tensor::copy_from(const Tensor &from) const {
  if (from.type_ != type_ || from.shape() != shape() || from.defined() != defined()) {
    throw Error("tensor: expected " + shape_text(shape()) + " of " + type_name(type_) + " to copy, got " +
                (from.defined() ? shape_text(from.shape()) + " of " + type_name(from.type_) : "an undefined tensor"));
  }
  if (!defined() || elements() == 0) return;
  // In the memory order of what is written, but along the axis that lies densest in what is read by pieces of a cache
  // line: the outermost and the innermost loop. So neither side meets a line for one element alone.
  const Shape extents = shape(), strides = this->strides(), from_strides = from.strides();
  std::vector<std::size_t> axes;
  for (std::size_t axis = 0; axis < extents.size(); axis++)
    if (extents[axis] != 1) axes.push_back(axis);
  const auto densest_last = [&](const Shape &by) {
    std::stable_sort(axes.begin(), axes.end(), [&](std::size_t a, std::size_t b) { return std::abs(by[a]) > std::abs(by[b]); });
  };
  densest_last(from_strides);
  const std::size_t dense = axes.empty() ? 0 : axes.back();
  densest_last(strides);
  const bool transposes = !axes.empty() && axes.back() != dense;
  if (transposes) axes.erase(std::find(axes.begin(), axes.end(), dense)), axes.push_back(dense);
  Shape ordered;
  std::array<Shape, 2> ordered_strides;
  for (std::size_t axis : axes) {
    ordered.push_back(extents[axis]);
    ordered_strides[0].push_back(strides[axis]);
    ordered_strides[1].push_back(from_strides[axis]);
  }
  const std::int64_t bytes = std::int64_t(size_of(type_)), length = transposes ? ordered.back() : 1;
  if (transposes && bytes == 4 && from_strides[dense] == 1 && strides[axes[axes.size() - 2]] == 1) {
    std::int64_t &columns = ordered[ordered.size() - 2];
    const std::int64_t all = columns, step = ordered_strides[1][ordered.size() - 2];
    for (std::int64_t at = 0; at < all; at += columns) {  // a long axis by pieces
      columns = std::min<std::int64_t>(all - at, 1 << 16);
      transpose(static_cast<std::uint32_t *>(data<void>()) + at, static_cast<const std::uint32_t *>(from.data<void>()) + at * step,
                ordered, ordered_strides);
    }
    return;
  }
  const std::int64_t piece = transposes ? 64 / bytes : 1;
  for (std::int64_t at = 0; at < length; at += piece) {
    if (transposes) ordered.back() = std::min(piece, length - at);
    for_each_row<2>(ordered, ordered_strides, [&](Row<2> row) {
      if (transposes) row.offset[0] += at * strides[dense], row.offset[1] += at * from_strides[dense];
      if (bytes == 1) copy_row<std::uint8_t>(data<void>(), from.data<void>(), row);
      else if (bytes == 2) copy_row<std::uint16_t>(data<void>(), from.data<void>(), row);
      else copy_row<std::uint32_t>(data<void>(), from.data<void>(), row);
    });
  }
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
  const bool twice = type_ == CONVSMITH_I32 && size_of(type) == 2;  // rounded to a float and then again
  for_each_row<2>(shape(), {result.strides(), strides()}, [&](const Row<2> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      const std::int64_t at = row.offset[1] + i * row.step[1];
      result.store(row.offset[0] + i * row.step[0], twice ? to_odd(data<std::int32_t>()[at]) : load(at));
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
