// Walks tensors of one shape row by row, in logical order. Private to the run-time.
#pragma once
#include <array>
#include <cstddef>
#include "convsmith/problem.h"

namespace convsmith {

/// One row of N tensors: `length` elements, element i of tensor t at offset[t] + i*step[t]. In elements.
template<std::size_t N>
struct Row {
  std::int64_t length = 1;
  std::array<std::int64_t, N> offset{}, step{};
};

/// Calls visit(row) for rows that cover the shape in logical (row-major) order, whatever the strides are: axes are
/// joined into longer rows only where every tensor allows it, so the order of the elements never changes.
template<std::size_t N, class Visit>
void for_each_row(const Shape &shape, const std::array<Shape, N> &strides, Visit &&visit) {
  Shape extent;
  std::array<Shape, N> stride;
  for (std::size_t axis = 0; axis < shape.size(); axis++) {
    if (shape[axis] == 0) return;
    if (shape[axis] == 1) continue;
    bool joins = !extent.empty();
    for (std::size_t t = 0; joins && t < N; t++) joins = stride[t].back() == strides[t][axis] * shape[axis];
    if (joins) extent.back() *= shape[axis];
    else extent.push_back(shape[axis]);
    for (std::size_t t = 0; t < N; t++) {
      if (joins) stride[t].back() = strides[t][axis];
      else stride[t].push_back(strides[t][axis]);
    }
  }

  Row<N> row;
  if (extent.empty()) return visit(row);
  row.length = extent.back();
  for (std::size_t t = 0; t < N; t++) row.step[t] = stride[t].back();
  Shape index(extent.size(), 0);
  for (;;) {
    visit(row);
    std::size_t axis = extent.size() - 1;
    for (;;) {
      if (axis-- == 0) return;
      for (std::size_t t = 0; t < N; t++) row.offset[t] += stride[t][axis];
      if (++index[axis] < extent[axis]) break;
      for (std::size_t t = 0; t < N; t++) row.offset[t] -= stride[t][axis] * extent[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace convsmith
