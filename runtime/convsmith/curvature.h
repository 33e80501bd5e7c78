// The curvature of a layer's squared loss, and the rates of gradient descent that follow from it.
#pragma once
#include <cstdint>
#include "convsmith/conv.h"
#include "convsmith/loss.h"

namespace convsmith {

/// The extreme eigenvalues of the Hessian of a quadratic loss.
/// Source of the rates: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
struct Curvature {
  double largest = 0, smallest = 0;

  /// 2 * (1 + momentum) / largest: gradient descent, heavy-ball from momentum > 0, converges below and diverges above.
  double largest_stable_rate(double momentum = 0) const;
  /// 2 / (largest + smallest): the error falls by (largest - smallest) / (largest + smallest) a step, the best without
  /// momentum.
  double best_rate() const;
  /// 2 / largest, half of the largest stable rate of a momentum near 1. Polyak's own 4 / (sqrt(largest) +
  /// sqrt(smallest))^2 puts the largest eigenvalue on a double root, whose error first grows sqrt(largest/smallest)
  /// times; half of it is calm from the first step and slower by a factor of sqrt(2) only.
  double heavy_ball_rate() const;
  /// (1 - sqrt(heavy_ball_rate * smallest))^2: critical damping of the smallest eigenvalue, whose error then falls by
  /// the square root of it a step.
  double heavy_ball_momentum() const;
};

/// The loss is quadratic in (weight, bias) where there is no activation: its Hessian is 2 * scale * A^T A, with
/// y = A (weight, bias) and scale 1 (sum_squared) or 1/elements of y (mean_squared). The eigenvalues are Lanczos
/// estimates, fully reorthogonalised, from a seeded random vector and min(parameters, steps) products with A and A^T:
/// to rounding for at most `steps` parameters, else `largest` is a lower and `smallest` an upper bound.
/// Leaves the weights as they are; the gradients and the input that the layer keeps for `backward` change.
/// Throws Error for a layer with an activation, or one that cannot be trained.
Curvature curvature(Conv &layer, const Tensor &x, const Loss &loss, int steps = 64, std::uint64_t seed = 1);

}  // namespace convsmith
