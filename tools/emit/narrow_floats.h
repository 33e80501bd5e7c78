// 16-bit floats where a device's language has none.
#pragma once
#include "Halide.h"

namespace convsmith {

/// In the code that Halide makes of the pipeline f16 and bf16 become the 16-bit integers that hold their bits, converted to
/// and from f32 by arithmetic on those: rounded to the nearest, ties to even.
void hold_narrow_floats_as_bits(Halide::Pipeline &);

}  // namespace convsmith
