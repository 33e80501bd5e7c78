// Shapes, memory and views of a tensor.
#include "convsmith/tensor.h"
#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>
#include "convsmith/error.h"

namespace convsmith {
namespace {

halide_type_t halide_type(convsmith_type type) {
  switch (type) {
    case CONVSMITH_F32:
      return {halide_type_float, 32};
    case CONVSMITH_F16:
      return {halide_type_float, 16};
    case CONVSMITH_BF16:
      return {halide_type_bfloat, 16};
    case CONVSMITH_U8:
      return {halide_type_uint, 8};
    case CONVSMITH_S8:
      return {halide_type_int, 8};
    case CONVSMITH_I32:
      return {halide_type_int, 32};
  }
  throw Error("tensor: expected an element type from 0 to 5, got " + std::to_string(static_cast<int>(type)));
}

// The number of elements. A product past 2^63, zeros left out, is refused too: the strides would need it.
std::int64_t checked_elements(const Shape &shape) {
  if (shape.size() > CONVSMITH_MAX_RANK) {
    throw Error("tensor: expected at most " + std::to_string(CONVSMITH_MAX_RANK) + " axes, got " +
                std::to_string(shape.size()));
  }
  for (std::int64_t extent : shape) {
    if (extent < 0 || extent > std::numeric_limits<std::int32_t>::max()) {
      throw Error("tensor: expected extents from 0 to 2147483647, got " + std::to_string(extent));
    }
  }
  return element_count(shape);
}

// Dense strides in the memory order of `strides`, the first of equal strides outermost; an axis of extent 1 keeps its
// own.
Shape packed(const Shape &shape, Shape strides) {
  std::vector<std::size_t> outermost_first(shape.size());
  std::iota(outermost_first.begin(), outermost_first.end(), std::size_t{0});
  std::stable_sort(outermost_first.begin(), outermost_first.end(),
                   [&](std::size_t a, std::size_t b) { return std::abs(strides[a]) > std::abs(strides[b]); });
  std::int64_t next = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    const std::size_t axis = outermost_first[i];
    if (shape[axis] == 1) continue;
    strides[axis] = next;
    next *= std::max<std::int64_t>(shape[axis], 1);
  }
  return strides;
}

Shape row_major(const Shape &shape) {
  Shape strides(shape.size());
  std::int64_t next = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = next;
    next *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

std::vector<halide_dimension_t> dimensions(const Shape &shape, const Shape &strides) {
  std::vector<halide_dimension_t> result;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (strides[i] != static_cast<std::int32_t>(strides[i])) {
      throw Error("tensor: expected strides below 2^31, got " + std::to_string(strides[i]) + " for a shape of " +
                  shape_text(shape));
    }
    result.emplace_back(0, static_cast<std::int32_t>(shape[i]), static_cast<std::int32_t>(strides[i]));
  }
  return result;
}

Shape shape_of(const convsmith_tensor &like) {
  if (like.rank < 0 || like.rank > CONVSMITH_MAX_RANK) {
    throw Error("tensor: expected a rank from 0 to " + std::to_string(CONVSMITH_MAX_RANK) + ", got " +
                std::to_string(like.rank));
  }
  return {like.extent, like.extent + like.rank};
}

Shape strides_of(const convsmith_tensor &like) { return {like.stride, like.stride + like.rank}; }

}  // namespace

bool is_float(convsmith_type type) {
  return type == CONVSMITH_F32 || type == CONVSMITH_F16 || type == CONVSMITH_BF16;
}

std::size_t size_of(convsmith_type type) { return static_cast<std::size_t>(halide_type(type).bytes()); }

const char *type_name(convsmith_type type) {
  switch (type) {
    case CONVSMITH_F32:
      return "f32";
    case CONVSMITH_F16:
      return "f16";
    case CONVSMITH_BF16:
      return "bf16";
    case CONVSMITH_U8:
      return "u8";
    case CONVSMITH_S8:
      return "s8";
    case CONVSMITH_I32:
      return "i32";
  }
  return "unknown type";
}

Tensor::Tensor(std::shared_ptr<void> memory, void *data, convsmith_type type,
               const std::vector<halide_dimension_t> &dimensions)
    : type_(type), memory_(std::move(memory)), buffer_(halide_type(type), data, dimensions) {}

Tensor::Tensor(const Shape &shape, convsmith_type type) {
  checked_elements(shape);
  *this = zeros(type, shape, row_major(shape));
}

Tensor::Tensor(const convsmith_tensor &like) {
  const Shape shape = shape_of(like);
  checked_elements(shape);
  *this = zeros(static_cast<convsmith_type>(like.type), shape, packed(shape, strides_of(like)));
}

Tensor Tensor::view(void *data, convsmith_type type, const Shape &shape, const Shape &strides) {
  if (strides.size() != shape.size()) {
    throw Error("tensor: expected " + std::to_string(shape.size()) + " strides, got " + std::to_string(strides.size()));
  }
  if (data == nullptr) throw Error("tensor: expected memory for a view of " + shape_text(shape) + ", got null");
  checked_elements(shape);
  return {nullptr, data, type, dimensions(shape, strides)};
}

Tensor Tensor::zeros(convsmith_type type, const Shape &shape, const Shape &strides) {
  const std::size_t alignment = 64, size = size_of(type);
  const std::int64_t elements = checked_elements(shape);
  const std::vector<halide_dimension_t> dims = dimensions(shape, strides);
  if (elements > static_cast<std::int64_t>((std::numeric_limits<std::ptrdiff_t>::max() - alignment) / size)) {
    throw Error("tensor: " + shape_text(shape) + " of " + type_name(type) + " passes the address space");
  }
  const std::size_t bytes = static_cast<std::size_t>(elements) * size;
  // calloc's pages stay untouched until they are used.
  std::shared_ptr<void> memory(std::calloc(1, bytes + alignment), std::free);
  if (!memory) {
    throw Error("tensor: no memory for " + shape_text(shape) + " of " + type_name(type) + ", " + std::to_string(bytes) +
                " bytes");
  }
  void *data = memory.get();
  std::size_t space = bytes + alignment;
  data = std::align(alignment, bytes, data, space);
  return {std::move(memory), data, type, dims};
}

std::int64_t Tensor::extent(int axis) const {
  if (axis < 0 || axis >= rank()) {
    throw Error("tensor: expected an axis below " + std::to_string(rank()) + ", got " + std::to_string(axis));
  }
  return buffer_.dim(rank() - 1 - axis).extent();
}

Shape Tensor::shape() const {
  Shape result(static_cast<std::size_t>(rank()));
  for (int i = 0; i < rank(); i++) result[i] = buffer_.dim(rank() - 1 - i).extent();
  return result;
}

Shape Tensor::strides() const {
  Shape result(static_cast<std::size_t>(rank()));
  for (int i = 0; i < rank(); i++) result[i] = buffer_.dim(rank() - 1 - i).stride();
  return result;
}

std::int64_t Tensor::elements() const { return defined() ? checked_elements(shape()) : 0; }

float &Tensor::at(const Shape &index) const {
  std::int64_t offset = 0;
  for (int i = 0; i < rank(); i++) offset += index[i] * buffer_.dim(rank() - 1 - i).stride();
  return data<float>()[offset];
}

Tensor Tensor::permuted(const std::vector<int> &axes) const {
  std::vector<int> sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  bool valid = static_cast<int>(axes.size()) == rank();
  for (int i = 0; valid && i < rank(); i++) valid = sorted[i] == i;
  if (!valid) throw Error("tensor: expected a permutation of the " + std::to_string(rank()) + " axes");
  const Shape own = shape(), stride = strides();
  Shape new_shape, new_strides;
  for (int axis : axes) {
    new_shape.push_back(own[axis]);
    new_strides.push_back(stride[axis]);
  }
  return {memory_, data<void>(), type_, dimensions(new_shape, new_strides)};
}

Tensor Tensor::reshaped(const Shape &shape) const {
  if (checked_elements(shape) != elements()) {
    throw Error("tensor: expected a shape of " + std::to_string(elements()) + " elements, got " + shape_text(shape));
  }
  const Shape own = this->shape(), dense = row_major(own), stride = strides();
  for (std::size_t i = 0; i < own.size(); i++) {
    if (own[i] > 1 && stride[i] != dense[i]) {
      throw Error("tensor: expected dense row-major memory to reshape " + shape_text(own) + ", got other strides");
    }
  }
  return {memory_, data<void>(), type_, dimensions(shape, row_major(shape))};
}

bool Tensor::fits(const convsmith_tensor &like) const {
  if (like.type != type_ || like.rank != rank()) return false;
  const Shape own = shape(), stride = strides();
  for (int i = 0; i < rank(); i++) {
    if (like.extent[i] != own[i] && like.extent[i] != run_time) return false;
  }
  const Shape wanted = packed(own, strides_of(like));
  for (int i = 0; i < rank(); i++) {
    if (own[i] > 1 && stride[i] != wanted[i]) return false;
  }
  return true;
}

Tensor Tensor::ordered_like(const convsmith_tensor &like) const {
  convsmith_tensor wanted = like;
  bool same = like.type == type_ && like.rank == rank();
  for (int i = 0; same && i < rank(); i++) {
    if (wanted.extent[i] == run_time) wanted.extent[i] = extent(i);
    same = wanted.extent[i] == extent(i);
  }
  if (!same) {
    throw Error("expected " + shape_text(shape_of(like)) + " of " + type_name(static_cast<convsmith_type>(like.type)) +
                ", got " + shape_text(shape()) + " of " + type_name(type_));
  }
  if (!fits(wanted)) {
    Tensor result(wanted);
    result.copy_from(*this);
    return result;
  }
  return {memory_, data<void>(), type_, dimensions(shape(), packed(shape(), strides_of(like)))};
}

convsmith_tensor Tensor::c() const {
  convsmith_tensor result{};
  result.data = data<void>();
  result.type = type_;
  result.rank = rank();
  for (int i = 0; i < rank(); i++) {
    result.extent[i] = buffer_.dim(rank() - 1 - i).extent();
    result.stride[i] = buffer_.dim(rank() - 1 - i).stride();
  }
  result.device = device_.get();
  return result;
}

}  // namespace convsmith
