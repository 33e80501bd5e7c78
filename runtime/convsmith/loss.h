// Losses: a value and its gradient in one pass over the elements.
#pragma once
#include <string_view>
#include "convsmith/tensor.h"

namespace convsmith {

/// L = scale * sum (y - t)^2 and dL/dy = 2 * scale * (y - t), scale = 1 (sum_squared) or 1/elements (mean_squared).
/// Accumulated in double in logical order: the bits do not depend on the tensors' order in memory.
struct Loss {
  enum class Kind { sum_squared, mean_squared };
  Kind kind = Kind::sum_squared;

  /// "sum_squared" or "mean_squared". Throws Error for another word.
  static Loss parse(std::string_view text);
  const char *name() const;

  /// Shapes: y, target and dy equal, f32; dy is written, and may be y itself. Of no elements the loss is 0.
  double operator()(const Tensor &y, const Tensor &target, const Tensor &dy) const;
  double value(const Tensor &y, const Tensor &target) const;
};

}  // namespace convsmith
