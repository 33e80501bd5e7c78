// Stochastic gradient descent with heavy-ball momentum.
#pragma once
#include <vector>
#include "convsmith/tensor.h"

namespace convsmith {

/// A tensor that training changes, and the gradient of the loss by it. Both f32 and of one shape.
struct Parameter {
  Tensor value, gradient;
};

/// v = momentum * v + gradient;  value = value - rate * v, with v = 0 at first.
/// Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
class Sgd {
 public:
  /// Throws Error unless rate is finite and at least 0, and 0 <= momentum < 1.
  explicit Sgd(double rate, double momentum = 0);
  Sgd(const Sgd &) = delete;  // two would share their velocities
  Sgd &operator=(const Sgd &) = delete;
  Sgd(Sgd &&) = default;
  Sgd &operator=(Sgd &&) = default;
  /// The same parameters, in the same order, every time; Error where their number, shapes or types disagree.
  void step(const std::vector<Parameter> &parameters);
  double rate() const { return rate_; }
  double momentum() const { return momentum_; }

 private:
  double rate_, momentum_;
  std::vector<Shape> shapes_;       // of the parameters, after the first step
  std::vector<Tensor> velocities_;  // empty without momentum
};

}  // namespace convsmith
