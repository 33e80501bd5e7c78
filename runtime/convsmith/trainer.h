// Full-batch training of one layer.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>
#include "convsmith/conv.h"
#include "convsmith/error.h"
#include "convsmith/loss.h"

namespace convsmith {

/// Step 1 is the first. `loss` is at the weights before the step's update.
struct Progress {
  int step = 0;
  double loss = 0;
};

struct TrainOptions {
  int steps = 100;
  double rate = 0.01;
  double momentum = 0;
  Loss loss;
  double tolerance = 0;  // stop, without an update, at a step whose loss is at most this
};

struct TrainResult {
  enum class Stop { steps, tolerance, callback };
  std::vector<double> losses;  // entry s-1 is step s's loss, before its update
  int updates = 0;
  Stop stop = Stop::steps;
};

/// The loss or a weight is not finite, or the loss passed 10^4 times the first (of at least 10^-6 times the loss of an
/// all-zero output, so that a start at the solution does not count). The weights stay as they were then.
class Diverged : public Error {
 public:
  Diverged(const std::string &message, int at_step, double at_loss, std::optional<double> stable_rate)
      : Error(message), step(at_step), loss(at_loss), largest_stable_rate(stable_rate) {}
  int step;
  double loss;
  std::optional<double> largest_stable_rate;  // at this momentum; none for a layer with an activation
};

/// Repeats: y = layer(x), loss(y, target), gradients, and w -= rate * v (v = momentum * v + gradient).
/// The callback, where there is one, is called after each step's update; false stops there.
/// On a GPU, and where the library has train_step, a step is that pass: the tensors stay there, the loss is summed in f64
/// (OpenCL, Vulkan: in f32, rows first), and the layer has its weights when training ends.
/// Throws Diverged, or Error where the layer cannot be trained, the shapes disagree or a number is not finite.
TrainResult train(Conv &layer, const Tensor &x, const Tensor &target, const TrainOptions &options,
                  const std::function<bool(const Progress &)> &callback = {});

}  // namespace convsmith
