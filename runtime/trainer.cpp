#include "convsmith/trainer.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
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
    try {
      stable_rate = curvature(layer, x, options.loss).largest_stable_rate(options.momentum);
      message += "; the largest stable rate is " + number_text(*stable_rate);
    } catch (const Error &error) {
      message += std::string("; ") + error.what();
    }
  }
  throw Diverged(message + " (problem: " + layer.problem().str() + ")", step, loss, stable_rate);
}

// What a step does with a layer: `loss` at its weights, and then maybe `update`, by the gradient there.
struct Step {
  virtual ~Step() = default;
  virtual double loss() = 0;
  virtual void update() = 0;
  // So that the layer's weights are those of the last update.
  virtual void finish() {}
};

// Pass by pass, the loss and the update on the processor.
class StepByPasses : public Step {
 public:
  StepByPasses(Conv &layer, const Tensor &x, const Tensor &target, const TrainOptions &options)
      : layer_(layer), options_(options), optimiser_(options.rate, options.momentum) {
    const Tensor fitted = layer.forward_pass().fit("x", x);
    x_ = layer.library().uses_device() ? layer.library().to_device(fitted) : fitted;
    y_ = layer.make_output(x_), dy_ = y_.clone().as(CONVSMITH_F32);
    const Tensor in_order = layer.forward_pass().fit("y", target);
    target_ = y_.type() == CONVSMITH_F32 ? in_order : target.as(CONVSMITH_F32).ordered_like(dy_.c());
  }
  double loss() override {
    layer_.forward(x_, y_);
    return options_.loss(y_.as(CONVSMITH_F32), target_, dy_);
  }
  void update() override {
    layer_.parameter_gradients(dy_);
    layer_.step(optimiser_);
  }

 private:
  Conv &layer_;
  const TrainOptions &options_;
  Sgd optimiser_;
  Tensor x_, y_, dy_, target_;
};

// On a GPU the pass train_step does it all: x, target and parameters stay there, and the loss alone comes back; with momentum
// the parameters too.
class StepOnDevice : public Step {
 public:
  StepOnDevice(Conv &layer, Pass pass, const Tensor &x, const Tensor &target, const TrainOptions &options)
      : layer_(layer), pass_(std::move(pass)), library_(layer.library()), options_(options) {
    const Tensor rate = pass_.make("rate");
    const auto outputs = static_cast<double>(target.elements());
    mean_of_ = options.loss.kind == Loss::Kind::mean_squared && outputs > 0 ? outputs : 1;
    rate.fill(static_cast<float>(options.rate / mean_of_));
    add("x", pass_.fit("x", x)), add("target", pass_.fit("target", target)), add("rate", rate);
    add("loss", pass_.make("loss"));
    for (const char *name : {"weight", "bias"}) {
      if (!pass_.has(name)) continue;
      const Tensor &value = *name == 'w' ? layer.weight() : layer.bias();
      names_.emplace_back(name);
      add(name, pass_.fit(name, value).clone()), add(out_of(name), pass_.make(out_of(name)));
      if (options.momentum != 0) before_.push_back(arguments_.at(name).clone());
    }
  }
  double loss() override {
    pass_.run({arguments_.begin(), arguments_.end()});
    library_.to_host(arguments_.at("loss"));
    return static_cast<double>(*arguments_.at("loss").data<float>()) / mean_of_;
  }
  // What train_step made is w - rate * gradient; momentum adds its share of the step before.
  void update() override {
    for (std::size_t i = 0; i < names_.size(); i++) {
      Tensor &value = arguments_.at(names_[i]), &next = arguments_.at(out_of(names_[i]));
      if (options_.momentum != 0) {
        library_.to_host(next);
        float *to = next.data<float>(), *from = value.data<float>(), *before = before_[i].data<float>();
        for (std::int64_t e = 0; e < next.elements(); e++) {
          to[e] += static_cast<float>(options_.momentum) * (from[e] - before[e]);
          before[e] = from[e];
        }
        next = library_.to_device(next);
      }
      std::swap(value, next);
    }
  }
  void finish() override {
    for (const std::string &name : names_) {
      library_.to_host(arguments_.at(name));
      if (name == "weight") layer_.set_weight(arguments_.at(name));
      else layer_.set_bias(arguments_.at(name));
    }
  }

 private:
  static std::string out_of(const std::string &name) { return name + "_out"; }
  void add(const std::string &name, const Tensor &tensor) { arguments_[name] = library_.to_device(tensor); }

  Conv &layer_;
  Pass pass_;
  Library library_;
  const TrainOptions &options_;
  double mean_of_ = 1;
  std::map<std::string, Tensor> arguments_;
  std::vector<std::string> names_;  // of the parameters
  std::vector<Tensor> before_;      // their values a step ago, where there is momentum
};

std::unique_ptr<Step> step_of(Conv &layer, const Tensor &x, const Tensor &target, const TrainOptions &options) {
  auto pass = layer.library().uses_device() ? layer.library().find(layer.forward_pass().kernel(), "train_step") : std::nullopt;
  if (pass && layer.has_weight()) return std::make_unique<StepOnDevice>(layer, *pass, x, target, options);
  return std::make_unique<StepByPasses>(layer, x, target, options);
}

}  // namespace

TrainResult train(Conv &layer, const Tensor &x, const Tensor &target, const TrainOptions &options,
                  const std::function<bool(const Progress &)> &callback) {
  if (options.steps < 0) throw Error("train: expected at least 0 steps, got " + std::to_string(options.steps));
  (void)Sgd(options.rate, options.momentum);  // throws where they are no rate and momentum
  for (const Parameter &parameter : layer.parameters()) check_finite(parameter.value, "the weights");
  check_finite(x, "x");
  check_finite(target, "the target");

  const std::unique_ptr<Step> of = step_of(layer, x, target, options);
  const Tensor in_f32 = target.as(CONVSMITH_F32);
  const double floor = 1e-6 * options.loss.value(Tensor(in_f32.c()), in_f32);  // of a y of zeros
  TrainResult result;
  const auto diverged = [&] {
    of->finish();
    throw_diverged(layer, x, options, result);
  };
  for (int step = 1; step <= options.steps; step++) {
    const double loss = of->loss();
    result.losses.push_back(loss);
    const double limit = 1e4 * std::max(result.losses.front(), floor);
    if (!std::isfinite(loss) || loss > limit) diverged();
    if (loss <= options.tolerance && options.tolerance > 0) {
      result.stop = TrainResult::Stop::tolerance;
      break;
    }
    of->update();
    result.updates++;
    if (!finite_parameters(layer)) diverged();
    bool more = true;
    try {
      more = !callback || callback({step, loss});
    } catch (...) {
      of->finish();
      throw;
    }
    if (!more) {
      result.stop = TrainResult::Stop::callback;
      break;
    }
  }
  of->finish();
  return result;
}

}  // namespace convsmith
