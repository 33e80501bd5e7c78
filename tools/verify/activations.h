// Each activation in double, with the error that generated code may add to it.
#pragma once
#include "convsmith/problem.h"

namespace convsmith {

/// The value and slope at a pre-activation; a kink belongs to its flat side.
double activated(const Activation &, double pre);
double activation_slope(const Activation &, double pre);
/// The slope by the output alone; of activations whose output tells it.
double slope_from_output(const Activation &, double y);

/// Whether f32 gives the value of an exact pre-activation exactly, but for one rounding.
bool is_exact(const Activation &);
/// The largest slope.
double steepness(const Activation &);
/// How near a level's kernels compute e^v: to a few units, as the bounds below count, or as Vulkan asks of its drivers, to
/// 3 + 2|v| units in the last place. Source: Vulkan Specification, "Precision of Individual Operations".
enum class Exponential { few_units, vulkan };
/// Of the computed value and slope at an exact pre-activation. With u = 2^-24: sigmoid 8u of the value, tanh 8u, silu 10u,
/// gelu 2^-21 |pre|; slopes 16u (1 + |pre|), of gelu 32u (1 + |pre|). Clamping of exponents at 87 adds 2^-120.
double value_error(const Activation &, double pre, Exponential = Exponential::few_units);
double slope_error(const Activation &, double pre, Exponential = Exponential::few_units);
/// How far the slope may be off where the pre-activation is off by `error`: the jump of a kink within it counts whole.
double slope_change(const Activation &, double pre, double error);

}  // namespace convsmith
