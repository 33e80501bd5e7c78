#include "convsmith/curvature.h"
#include <algorithm>
#include <cmath>
#include "convsmith/error.h"
#include "lanczos.h"

namespace convsmith {
namespace {

// Puts a layer's weight and bias back, whatever happens.
class KeptWeights {
 public:
  explicit KeptWeights(Conv &layer) : layer_(layer) {
    for (const Parameter &parameter : layer.parameters()) kept_.push_back(parameter.value.clone());
  }
  KeptWeights(const KeptWeights &) = delete;
  KeptWeights &operator=(const KeptWeights &) = delete;
  ~KeptWeights() {
    const std::vector<Parameter> parameters = layer_.parameters();
    for (std::size_t i = 0; i < kept_.size(); i++) parameters[i].value.copy_from(kept_[i]);
    layer_.weights_changed();
  }

 private:
  Conv &layer_;
  std::vector<Tensor> kept_;
};

// Part of a vector as a row-major tensor of a parameter's shape.
Tensor slice(std::vector<float> &vector, std::int64_t offset, const Tensor &like) {
  const Shape shape = like.shape();
  return Tensor::view(vector.data() + offset, CONVSMITH_F32, {like.elements()}, {1}).reshaped(shape);
}

}  // namespace

double Curvature::largest_stable_rate(double momentum) const { return 2 * (1 + momentum) / largest; }

double Curvature::best_rate() const { return 2 / (largest + smallest); }

double Curvature::heavy_ball_rate() const { return 2 / largest; }

double Curvature::heavy_ball_momentum() const {
  const double root = 1 - std::sqrt(std::min(1.0, heavy_ball_rate() * smallest));
  return root * root;
}

Curvature curvature(Conv &layer, const Tensor &x, const Loss &loss, int steps, std::uint64_t seed) {
  if (layer.problem().activation.kind != Activation::Kind::none) {
    throw Error("curvature: the loss is not quadratic behind an activation (problem: " + layer.problem().str() + ")");
  }
  if (steps < 1) throw Error("curvature: expected at least 1 step, got " + std::to_string(steps));
  std::int64_t count = 0;
  for (const Parameter &parameter : layer.parameters()) count += parameter.value.elements();

  const KeptWeights kept(layer);
  const Tensor input = layer.forward_pass().fit("x", x);
  const Tensor y = layer.make_output(input), zero = layer.make_output(input).as(CONVSMITH_F32);
  const auto [smallest, largest] = extreme_eigenvalues(count, steps, seed, [&](const std::vector<float> &vector) {
    std::vector<float> values = vector;
    std::int64_t offset = 0;
    for (const Parameter &parameter : layer.parameters()) {
      parameter.value.copy_from(slice(values, offset, parameter.value));
      offset += parameter.value.elements();
    }
    layer.weights_changed();
    layer.forward(input, y);
    const Tensor dy = y.as(CONVSMITH_F32);
    (void)loss(dy, zero, dy);  // the gradient by y, in its place: 2 * scale * A v
    layer.parameter_gradients(dy);
    offset = 0;
    for (const Parameter &parameter : layer.parameters()) {
      slice(values, offset, parameter.value).copy_from(parameter.gradient);
      offset += parameter.value.elements();
    }
    return std::vector<double>(values.begin(), values.end());
  });
  if (!std::isfinite(largest) || !std::isfinite(smallest)) {
    throw Error("curvature: not finite: the elements of x are too large, or none (problem: " + layer.problem().str() + ")");
  }
  // The Hessian has no negative eigenvalue; rounding may give one.
  return {std::max(largest, 0.0), std::max(smallest, 0.0)};
}

}  // namespace convsmith
