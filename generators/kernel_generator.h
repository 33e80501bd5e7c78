// The one Generator class: the contract of the emitted function, and nothing else.
#pragma once
#include "stages.h"
#include <functional>

namespace convsmith {

/// Builds the module of a workload's function NAME: buffers in the operator's order, extents fixed, strides as the
/// BufferSpecs say. `schedule` is called with the Stages. `weight`, where defined, takes the place of that input.
Halide::Module build_kernel(const Workload &, const std::string &name, const std::function<void(Stages &)> &schedule,
                            const Halide::Buffer<float> &weight = {});

/// The buffers that the emitted function takes: the operator's, less `weight` where it is a constant.
std::vector<BufferSpec> kernel_buffers(const Workload &, bool constant_weight);

}  // namespace convsmith
