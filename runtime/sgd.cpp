#include "convsmith/sgd.h"
#include <cmath>
#include <utility>
#include "convsmith/error.h"
#include "rows.h"
#include "text.h"

namespace convsmith {

Sgd::Sgd(double rate, double momentum) : rate_(rate), momentum_(momentum) {
  if (!std::isfinite(rate) || rate < 0) throw Error("sgd: expected a rate of at least 0, got " + number_text(rate));
  if (!(momentum >= 0 && momentum < 1)) {
    throw Error("sgd: expected a momentum of at least 0 and below 1, got " + number_text(momentum));
  }
}

void Sgd::step(const std::vector<Parameter> &parameters) {
  const bool first = shapes_.empty();
  if (!first && shapes_.size() != parameters.size()) {
    throw Error("sgd: expected " + std::to_string(shapes_.size()) + " parameters, got " +
                std::to_string(parameters.size()));
  }
  for (std::size_t p = 0; p < parameters.size(); p++) {
    const auto &[value, gradient] = parameters[p];
    const Shape shape = value.shape();
    if (value.type() != CONVSMITH_F32 || gradient.type() != CONVSMITH_F32 || gradient.shape() != shape ||
        !gradient.defined() || (!first && shapes_[p] != shape)) {
      throw Error("sgd: expected parameter " + std::to_string(p) + " and its gradient in f32 and of " +
                  shape_text(first ? shape : shapes_[p]) + ", got " + shape_text(shape) + " of " +
                  type_name(value.type()) + " and " + shape_text(gradient.shape()) + " of " +
                  type_name(gradient.type()));
    }
  }
  if (first) {
    std::vector<Shape> shapes;
    std::vector<Tensor> velocities;
    for (const Parameter &parameter : parameters) {
      shapes.push_back(parameter.value.shape());
      if (momentum_ != 0) velocities.emplace_back(parameter.value.c());
    }
    shapes_ = std::move(shapes), velocities_ = std::move(velocities);
  }
  for (std::size_t p = 0; p < parameters.size(); p++) {
    const auto &[value, gradient] = parameters[p];
    const Tensor &velocity = momentum_ != 0 ? velocities_[p] : gradient;
    float *w = value.data<float>(), *v = velocity.data<float>();
    const float *g = gradient.data<float>();
    for_each_row<3>(value.shape(), {value.strides(), velocity.strides(), gradient.strides()}, [&](const Row<3> &row) {
      for (std::int64_t i = 0; i < row.length; i++) {
        float &speed = v[row.offset[1] + i * row.step[1]];
        if (momentum_ != 0) speed = static_cast<float>(momentum_ * speed + g[row.offset[2] + i * row.step[2]]);
        float &weight = w[row.offset[0] + i * row.step[0]];
        weight = static_cast<float>(weight - rate_ * speed);
      }
    });
  }
}

}  // namespace convsmith
