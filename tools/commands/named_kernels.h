// Kernels by name, as `apply` and `learn --compare` take them.
#pragma once
#include <string>
#include "convsmith/tensor.h"

namespace convsmith {

/// A .npy file of one 2-D kernel ([KH, KW] or [1, 1, KH, KW]), or edge-x [1,-1], edge-y, sharpen, laplacian,
/// gaussian:SIGMA (radius ceil(2 sigma), normalised), box:N. Returns [1, 1, KH, KW].
/// Throws Error that lists the names.
Tensor named_kernel(const std::string &name);

}  // namespace convsmith
