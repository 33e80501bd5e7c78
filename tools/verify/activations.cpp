#include "activations.h"
#include <algorithm>
#include <cmath>
#include "reference.h"

namespace convsmith {
namespace {

using Kind = Activation::Kind;

double logistic(double v) { return 1 / (1 + std::exp(-v)); }
double normal_below(double v) { return 0.5 * std::erfc(-v * std::sqrt(0.5)); }
// The share of e^v that a device adds to what the bounds count already.
double off_by(double v, Exponential e) { return e == Exponential::vulkan ? 2 * u * (3 + 2 * std::abs(v)) : 0; }
double normal_density(double v) { return std::exp(-0.5 * v * v) / std::sqrt(2 * M_PI); }

}  // namespace

double activated(const Activation &a, double v) {
  switch (a.kind) {
    case Kind::none: return v;
    case Kind::relu: return std::max(v, 0.0);
    case Kind::relu6: return std::clamp(v, 0.0, 6.0);
    case Kind::leaky_relu: return v > 0 ? v : v * double(a.a);
    case Kind::sigmoid: return logistic(v);
    case Kind::tanh: return std::tanh(v);
    case Kind::silu: return v * logistic(v);
    case Kind::gelu: return v * normal_below(v);
    case Kind::clamp: return std::clamp(v, double(a.a), double(a.b));
  }
  return v;
}

double activation_slope(const Activation &a, double v) {
  switch (a.kind) {
    case Kind::silu: return logistic(v) * (1 + v * (1 - logistic(v)));
    case Kind::gelu: return normal_below(v) + v * normal_density(v);
    case Kind::leaky_relu: return v > 0 ? 1 : double(a.a);
    default: return slope_from_output(a, activated(a, v));
  }
}

double slope_from_output(const Activation &a, double y) {
  switch (a.kind) {
    case Kind::relu: return y > 0;
    case Kind::relu6: return y > 0 && y < 6;
    case Kind::leaky_relu: return y > 0 ? 1 : double(a.a);
    case Kind::sigmoid: return y * (1 - y);
    case Kind::tanh: return 1 - y * y;
    case Kind::clamp: return y > double(a.a) && y < double(a.b);
    default: return 1;
  }
}

bool is_exact(const Activation &a) {
  return a.kind != Kind::sigmoid && a.kind != Kind::tanh && a.kind != Kind::silu && a.kind != Kind::gelu;
}

double steepness(const Activation &a) {
  switch (a.kind) {
    case Kind::sigmoid: return 0.25;
    case Kind::silu: return 1.1;
    case Kind::gelu: return 1.13;
    case Kind::leaky_relu: return std::max(1.0, std::abs(double(a.a)));
    default: return 1;
  }
}

double value_error(const Activation &a, double v, Exponential e) {
  const double size = std::abs(activated(a, v)), tiny = std::ldexp(1.0, -120);
  switch (a.kind) {
    case Kind::sigmoid: return (8 * u + off_by(v, e)) * size + tiny;
    case Kind::tanh: return 8 * u * size + 2 * std::exp(-2 * std::abs(v)) * off_by(2 * v, e) + tiny;  // 1 - 2/(e^2v + 1)
    case Kind::silu: return (10 * u + off_by(v, e)) * size + tiny * std::min(std::abs(v), 100.0);
    case Kind::gelu: return (8 * u + std::exp(-0.5 * v * v) * off_by(0.5 * v * v, e)) * std::abs(std::max(v, -8.0)) + tiny;
    default: return u * size;
  }
}

double slope_error(const Activation &a, double v, Exponential e) {
  if (is_exact(a)) return 0;
  const double far = std::min(std::abs(v), 90.0), counted = (a.kind == Kind::gelu ? 32 : 16) * u * (1 + far);
  switch (a.kind) {
    case Kind::gelu: return counted + (1 + far) * std::exp(-0.5 * v * v) * off_by(0.5 * v * v, e);
    case Kind::tanh: return counted + 4 * std::exp(-2 * far) * off_by(2 * v, e);
    default: return counted + (1 + far) * std::exp(-far) * off_by(v, e);
  }
}

double slope_change(const Activation &a, double v, double error) {
  const auto near = [&](double kink) { return std::abs(v - kink) <= error; };
  switch (a.kind) {
    case Kind::none: return 0;
    case Kind::relu: return near(0);
    case Kind::relu6: return near(0) || near(6);
    case Kind::leaky_relu: return near(0) ? std::abs(1 - double(a.a)) : 0;
    case Kind::clamp: return near(double(a.a)) || near(double(a.b));
    default: return error;  // no second derivative passes 1
  }
}

}  // namespace convsmith
