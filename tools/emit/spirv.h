// A fault of Halide 21's SPIR-V, mended before it is embedded.
#pragma once
#include <cstddef>
#include <cstdint>

namespace convsmith {

/// Halide ends a loop where its index, from 0, is no longer less than the extent, and compares them as unsigned numbers. An
/// extent below 0, which it makes where it has trimmed a loop to the taps inside the border, is then a loop without end.
/// Turns these comparisons into signed ones in every module that the bytes hold. Returns how many.
int compare_loops_signed(std::uint8_t *bytes, std::size_t count);

}  // namespace convsmith
