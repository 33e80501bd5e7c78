// Tensors: a view and an owner over Halide's own run-time buffer.
#pragma once
#include <HalideBuffer.h>
#include <cstddef>
#include <memory>
#include <vector>
#include "convsmith/abi.h"
#include "convsmith/problem.h"

namespace convsmith {

/// A tensor of logical axes [N, C, *spatial] (weights [OC, IC/groups, *kernel]) in any order in memory.
/// Copies share the memory; `clone` does not. An owner's memory is aligned to 64 bytes.
/// Rank at most CONVSMITH_MAX_RANK, extents and strides below 2^31; everything else is refused with an Error.
class Tensor {
 public:
  Tensor() = default;
  /// Dense, row-major (the last axis contiguous), zero-filled.
  explicit Tensor(const Shape &shape, convsmith_type type = CONVSMITH_F32);
  /// Dense in the memory order that `like`'s strides have, zero-filled: what a kernel's `init` describes. Axes of
  /// extent 1 keep `like`'s stride.
  explicit Tensor(const convsmith_tensor &like);
  /// A view of memory that someone else keeps alive; `data` is element [0, 0, …]. Strides in elements.
  static Tensor view(void *data, convsmith_type type, const Shape &shape, const Shape &strides);

  bool defined() const { return buffer_.data() != nullptr; }
  convsmith_type type() const { return type_; }
  int rank() const { return buffer_.dimensions(); }
  std::int64_t extent(int axis) const;
  Shape shape() const;
  Shape strides() const;
  std::int64_t elements() const;

  /// Element [0, 0, …]. T must be the stored type.
  template<class T>
  T *data() const {
    return static_cast<T *>(static_cast<void *>(buffer_.data()));
  }
  /// The f32 element at a logical index; no bounds are checked.
  float &at(const Shape &index) const;

  /// The same elements as another view: axes exchanged, by a permutation of the logical axes.
  Tensor permuted(const std::vector<int> &axes) const;
  /// Reinterprets a dense row-major tensor. Throws Error where the elements do not fit.
  Tensor reshaped(const Shape &shape) const;
  /// Copies every element from a tensor of equal shape and type, whatever the orders in memory.
  void copy_from(const Tensor &from) const;
  /// A dense copy with memory of its own, in the same memory order.
  Tensor clone() const;
  /// The same elements in another type: these where it is theirs, else a dense copy in the same memory order. Floats are
  /// rounded to the nearest, ties to even. Throws Error where an integer type cannot hold a value.
  Tensor as(convsmith_type type) const;
  /// Of all elements, 0 where there are none.
  float largest_magnitude() const;
  /// Multiplies every element. f32 only.
  void scale(float factor) const;
  /// Throws Error where the type cannot hold the value (integers: its integral values in range).
  void fill(float value) const;
  /// Index of the first NaN or infinity in logical order, or -1. Integers have none.
  std::int64_t first_not_finite() const;

  /// True where type, extents and strides are those of Tensor(like); strides of extent 1 say nothing, and an extent
  /// of run_time in `like` fits any.
  bool fits(const convsmith_tensor &like) const;
  /// These elements in the memory order of `like`: shared where `fits`, else copied. Throws Error where the type or
  /// an extent differs.
  Tensor ordered_like(const convsmith_tensor &like) const;

  /// What an emitted kernel takes.
  convsmith_tensor c() const;
  /// Whether kernels find it on a GPU (Library::to_device). The elements that every function here sees, and views and
  /// copies made by them, are those of the host.
  bool on_device() const { return device_ != nullptr; }
  /// Halide's own view; its dimensions are the axes innermost first (the last logical axis is dimension 0). The
  /// memory lives as long as a Tensor that shares it.
  const Halide::Runtime::Buffer<void> &buffer() const { return buffer_; }

 private:
  friend class Library;
  Tensor(std::shared_ptr<void> memory, void *data, convsmith_type type,
         const std::vector<halide_dimension_t> &dimensions);
  static Tensor zeros(convsmith_type type, const Shape &shape, const Shape &strides);
  float load(std::int64_t offset) const;
  void store(std::int64_t offset, float value) const;

  convsmith_type type_ = CONVSMITH_F32;
  std::shared_ptr<void> memory_;  // null for a view of someone else's
  Halide::Runtime::Buffer<void> buffer_;
  std::shared_ptr<void> device_;  // gives the room on the device back
};

/// f32, f16 or bf16.
bool is_float(convsmith_type);
/// Bytes of one element.
std::size_t size_of(convsmith_type);
/// "f32", "u8", …
const char *type_name(convsmith_type);

}  // namespace convsmith
