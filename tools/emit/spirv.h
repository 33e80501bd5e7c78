// Two faults of Halide 21's SPIR-V, mended before it is embedded.
#pragma once
#include <cstddef>
#include <cstdint>

namespace convsmith {

/// In every module that the bytes hold:
///   - Halide ends a loop where its index, from 0, is no longer less than the extent, and compares them as unsigned numbers. An
///     extent below 0, which it makes where it has trimmed a loop to the taps inside the border, is then a loop without end.
///     These comparisons become signed.
///   - It shifts signed numbers to the right as if they were unsigned, so that a negative one divided by a constant comes out
///     wrong. These shifts become arithmetic.
/// Returns how many instructions it changed.
int mend_spirv(std::uint8_t *bytes, std::size_t count);

}  // namespace convsmith
