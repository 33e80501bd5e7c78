#include "convsmith/trainer.h"
#include <algorithm>
#include <cmath>
#include "convsmith/curvature.h"
#include "convsmith/sgd.h"
#include "text.h"

namespace convsmith {
namespace {

void check_finite(const Tensor &tensor, const char *name) {
  const std::int64_t element = tensor.first_not_finite();
  if (element < 0) return;
  throw Error(std::string("train: expected finite numbers in ") + name + ", got NaN or infinity at element " +
              std::to_string(element) + " of " + shape_text(tensor.shape()));
}

bool finite_parameters(const Conv &layer) {
  const std::vector<Parameter> parameters = layer.parameters();
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const Parameter &parameter) { return parameter.value.first_not_finite() < 0; });
}

[[noreturn]] void throw_diverged(Conv &layer, const Tensor &x, const TrainOptions &options, const TrainResult &result) {
  const double loss = result.losses.back();
  const auto step = static_cast<int>(result.losses.size());
  std::string message = "train: diverged at step " + std::to_string(step) + ": loss " + number_text(loss) +
                        ", at step 1 " + number_text(result.losses.front()) + ", rate " + number_text(options.rate);
  if (!finite_parameters(layer)) message += ", a weight is not finite";
  if (options.momentum != 0) message += ", momentum " + number_text(options.momentum);
  std::optional<double> stable_rate;
  if (layer.problem().activation.kind == Activation::Kind::none) {
    stable_rate = curvature(layer, x, options.loss).largest_stable_rate(options.momentum);
    message += "; the largest stable rate is " + number_text(*stable_rate);
  }
  throw Diverged(message + " (problem: " + layer.problem().str() + ")", step, loss, stable_rate);
}

// The power of two that brings the largest magnitude of a gradient to [1, 2): narrow floats then lose none of it but what
// is 2^-14 of the largest or less.
float gradient_scale(const Tensor &dy, convsmith_type type) {
  if (type == CONVSMITH_F32) return 1;
  const float largest = dy.largest_magnitude();
  return largest > 0 && std::isfinite(largest) ? std::ldexp(1.0f, std::clamp(-std::ilogb(largest), -100, 100)) : 1;
}

}  // namespace

TrainResult train(Conv &layer, const Tensor &x, const Tensor &target, const TrainOptions &options,
                  const std::function<bool(const Progress &)> &callback) {
  if (options.steps < 0) throw Error("train: expected at least 0 steps, got " + std::to_string(options.steps));
  for (const Parameter &parameter : layer.parameters()) check_finite(parameter.value, "the weights");
  check_finite(x, "x");
  check_finite(target, "the target");

  Sgd optimiser(options.rate, options.momentum);
  const Tensor fitted_x = layer.forward_pass().fit("x", x);
  // On a GPU, x is copied there once.
  const Tensor input = layer.library().uses_device() ? layer.library().to_device(fitted_x) : fitted_x;
  const Tensor y = layer.make_output(input), dy = y.clone().as(CONVSMITH_F32);
  const Tensor fitted = layer.forward_pass().fit("y", target);
  const Tensor wanted = y.type() == CONVSMITH_F32 ? fitted : target.as(CONVSMITH_F32).ordered_like(dy.c());
  const double floor = 1e-6 * options.loss.value(dy, wanted);  // zero as yet

  TrainResult result;
  for (int step = 1; step <= options.steps; step++) {
    layer.forward(input, y);
    const double loss = options.loss(y.as(CONVSMITH_F32), wanted, dy);
    result.losses.push_back(loss);
    const double limit = 1e4 * std::max(result.losses.front(), floor);
    if (!std::isfinite(loss) || loss > limit) throw_diverged(layer, input, options, result);
    if (loss <= options.tolerance && options.tolerance > 0) {
      result.stop = TrainResult::Stop::tolerance;
      break;
    }
    const float scale = gradient_scale(dy, y.type());
    if (scale != 1) dy.scale(scale);
    layer.backward(dy, false);
    if (scale != 1)
      for (const Parameter &parameter : layer.parameters()) parameter.gradient.scale(1 / scale);
    layer.step(optimiser);
    result.updates++;
    if (!finite_parameters(layer)) throw_diverged(layer, input, options, result);
    if (callback && !callback({step, loss})) {
      result.stop = TrainResult::Stop::callback;
      break;
    }
  }
  return result;
}

}  // namespace convsmith
