// What is mended in the code that Halide lowers for a device, before it is compiled.
#pragma once
#include "Halide.h"

namespace convsmith {

/// `floats_as_bits`: f16 and bf16 become the 16-bit integers that hold their bits, converted to and from f32 by arithmetic on
/// those: rounded to the nearest, ties to even. Else f32 becomes f16 by that arithmetic, and f16 f32 as the device does it.
/// Kernels have no assertions.
void mend_device_code(Halide::Pipeline &, bool floats_as_bits);

}  // namespace convsmith
