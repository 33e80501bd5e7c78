#include "convsmith/conv.h"
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include "convsmith/error.h"
#include "rows.h"
#include "text.h"

namespace convsmith {
namespace {

// The number of products that one output element sums.
double fan_in(const Problem &problem) {
  const auto &extents = problem.op == Op::dense ? problem.in : problem.kernel;
  double count = static_cast<double>(problem.ic) / static_cast<double>(problem.groups);
  for (int axis = 0; axis < problem.rank; axis++) count *= static_cast<double>(extents[axis]);
  return count;
}

// The distributions of the standard library differ between platforms; its engines do not.
void fill_uniform(const Tensor &tensor, double bound, std::mt19937_64 &engine) {
  float *values = tensor.data<float>();
  for_each_row<1>(tensor.shape(), {tensor.strides()}, [&](const Row<1> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      const double unit = static_cast<double>(engine() >> 11) * 0x1p-53;
      values[row.offset[0] + i * row.step[0]] = static_cast<float>((2 * unit - 1) * bound);
    }
  });
}

}  // namespace

Conv::Conv(const Library &library, std::string_view kernel)
    : library_(library),
      forward_(library.pass(kernel, "forward")),
      input_gradient_(library.find(kernel, "input_gradient")),
      weight_gradient_(library.find(kernel, "weight_gradient")),
      bias_gradient_(library.find(kernel, "bias_gradient")),
      activation_gradient_(library.find(kernel, "activation_gradient")),
      pack_weight_(library.find(kernel, "pack_weight")),
      pack_weight_for_input_gradient_(library.find(kernel, "pack_weight_for_input_gradient")),
      problem_(Problem::parse(forward_.problem())) {
  for (int i = 0; i < forward_.arguments(); i++) {
    const std::string name = forward_.argument_name(i);
    if (name != "x" && name != "weight" && name != "bias" && name != "y" && name != "pre") {
      throw Error(forward_.title() + ": a layer has x, weight, bias and y, but this kernel also takes " + name +
                  " (problem: " + problem_.str() + ")");
    }
  }
  if (forward_.has("bias")) bias_.value = forward_.make("bias");
  if (!forward_.has("weight")) return;
  const Tensor like_forward = forward_.make("weight");
  if (weight_gradient_) weight_.value = weight_gradient_->make("dweight");
  else weight_.value = like_forward.shape() == problem_.weight_shape() ? like_forward.as(CONVSMITH_F32) : Tensor(problem_.weight_shape());
}

const Tensor &Conv::weight() const {
  if (!has_weight())
    throw Error(forward_.title() + ": the weight is a constant in the code (problem: " + problem_.str() + ")");
  return weight_.value;
}

const Tensor &Conv::bias() const {
  if (!has_bias())
    throw Error(forward_.title() + ": there is no bias to set or read (problem: " + problem_.str() + ")");
  return bias_.value;
}

void Conv::set(const Tensor &parameter, const char *name, const Tensor &from) {
  const bool is_float = from.type() == CONVSMITH_F32 || from.type() == CONVSMITH_F16 || from.type() == CONVSMITH_BF16;
  if (!is_float || from.shape() != parameter.shape()) {
    throw Error(forward_.title() + ": expected " + shape_text(parameter.shape()) + " of f32, f16 or bf16 for " + name + ", got " +
                (from.defined() ? shape_text(from.shape()) + " of " + type_name(from.type()) : "none") + " (problem: " + problem_.str() + ")");
  }
  parameter.copy_from(from.as(CONVSMITH_F32));
}

void Conv::set_weight(const Tensor &weight) {
  set(this->weight(), "weight", weight);
  weights_changed();
}

void Conv::set_bias(const Tensor &bias) { set(this->bias(), "bias", bias); }

void Conv::initialise(std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  const double bound = 1 / std::sqrt(fan_in(problem_));
  for (const Parameter &parameter : parameters()) fill_uniform(parameter.value, bound, engine);
  weights_changed();
}

const Tensor &Conv::packed(Packed &cache, const Pass &consumer, const std::optional<Pass> &packer) {
  if (cache.version == version_) return cache.tensor;
  const convsmith_tensor wanted = consumer.describe("weight");
  if (weight_.value.fits(wanted)) {
    cache.tensor = weight_.value.ordered_like(wanted);
  } else {
    if (!cache.tensor.defined()) cache.tensor = consumer.make("weight");
    if (packer) (*packer)({{"from", weight_.value}, {"weight", cache.tensor}});
    else if (cache.tensor.shape() == weight_.value.shape()) cache.tensor.copy_from(weight_.value.as(cache.tensor.type()));
    else
      throw Error(consumer.title() + ": the library has no pass that packs its weight (problem: " + problem_.str() +
                  ")");
  }
  cache.version = version_;
  return cache.tensor;
}

Tensor Conv::make_output(const Tensor &x) const {
  Problem problem = problem_;
  const Shape wanted = problem.input_shape();
  if (x.shape().size() != wanted.size()) (void)forward_.fit("x", x);  // throws, with the shapes
  problem.n = x.extent(0);
  for (int axis = 0; axis < problem.rank; axis++) problem.in[axis] = x.extent(2 + axis);
  return forward_.make("y", problem.output_shape());
}

Tensor Conv::forward(const Tensor &x) {
  const Tensor in_order = forward_.fit("x", x);
  Tensor y = make_output(in_order);
  forward(in_order, y);
  return y;
}

void Conv::forward(const Tensor &x, const Tensor &y) {
  const Tensor in_order = forward_.fit("x", x);
  x_ = {}, y_ = {};  // nothing to go back from where this one fails
  std::vector<std::pair<std::string, Tensor>> arguments{{"x", in_order}, {"y", y}};
  if (has_weight()) arguments.emplace_back("weight", packed(forward_weight_, forward_, pack_weight_));
  if (has_bias()) arguments.emplace_back("bias", bias_.value);
  if (forward_.has("pre")) {
    if (!pre_.defined() || pre_.shape() != y.shape()) pre_ = forward_.make("pre", y.shape());
    arguments.emplace_back("pre", pre_);
  }
  forward_.run(arguments);
  x_ = in_order, y_ = y;
}

const Pass &Conv::required(const std::optional<Pass> &pass, const char *name) const {
  if (pass) return *pass;
  throw Error("library " + library_.name() + ": kernel " + forward_.kernel() + " has no pass " + name +
              "; emit it with the passes `all` (problem: " + problem_.str() + ")");
}

std::optional<Tensor> Conv::backward(const Tensor &dy, bool want_dx) {
  (void)weight();  // throws where it is a constant
  const Pass &weight_gradient = required(weight_gradient_, "weight_gradient");
  if (!y_.defined()) throw Error(forward_.title() + ": expected a call of forward before backward");

  Tensor dpre = dy;
  if (problem_.activation.kind != Activation::Kind::none) {
    const Pass &gradient = required(activation_gradient_, "activation_gradient");
    const char *saved = gradient.has("pre") ? "pre" : "y";
    dpre = gradient.make("dpre", y_.shape());
    gradient({{"dy", gradient.fit("dy", dy)}, {saved, gradient.fit(saved, *saved == 'p' ? pre_ : y_)}, {"dpre", dpre}});
  }
  if (!weight_.gradient.defined()) weight_.gradient = weight_gradient.make("dweight");
  dpre = weight_gradient.fit("dy", dpre);
  weight_gradient({{"x", weight_gradient.fit("x", x_)}, {"dy", dpre}, {"dweight", weight_.gradient}});
  if (has_bias()) {
    const Pass &bias_gradient = required(bias_gradient_, "bias_gradient");
    if (!bias_.gradient.defined()) bias_.gradient = bias_gradient.make("dbias");
    bias_gradient({{"dy", bias_gradient.fit("dy", dpre)}, {"dbias", bias_.gradient}});
  }
  if (!want_dx) return std::nullopt;
  const Pass &input_gradient = required(input_gradient_, "input_gradient");
  Tensor dx = input_gradient.make("dx", x_.shape());
  input_gradient({{"dy", input_gradient.fit("dy", dpre)},
                  {"weight", packed(input_gradient_weight_, input_gradient, pack_weight_for_input_gradient_)},
                  {"dx", dx}});
  return dx;
}

void Conv::parameter_gradients(const Tensor &dy) {
  // The power of two that brings the largest magnitude to [1, 2).
  const float largest = problem_.type == Type::f32 ? 0 : dy.largest_magnitude();
  const float scale = largest > 0 && std::isfinite(largest) ? std::ldexp(1.0f, std::clamp(-std::ilogb(largest), -100, 100)) : 1;
  if (scale != 1) dy.scale(scale);
  backward(dy, false);
  if (scale == 1) return;
  for (const Parameter &parameter : parameters()) parameter.gradient.scale(1 / scale);
}

std::vector<Parameter> Conv::parameters() const {
  std::vector<Parameter> result{{weight(), weight_.gradient}};
  if (has_bias()) result.push_back(bias_);
  return result;
}

void Conv::step(Sgd &optimiser) {
  optimiser.step(parameters());
  weights_changed();
}

}  // namespace convsmith
