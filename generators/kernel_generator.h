// The one Generator class: the contract of the emitted function, and nothing else.
#pragma once
#include "stages.h"
#include <functional>

namespace convsmith {

/// Builds the module of a workload's function NAME: buffers in the operator's order, extents fixed or, where they are
/// known only when run, given as 32-bit numbers between the inputs and the outputs; strides as the BufferSpecs say.
/// `schedule` is called with the Workload, whose sizes are set, and its Stages. `weight`, where defined, takes the place
/// of that input. `scheduler`, where named, is one of Halide's own, which then schedules all. `lower`, where there is one, may
/// add to what is done to the lowered code.
Halide::Module build_kernel(const Workload &, const std::string &name,
                            const std::function<void(Stages &, const Workload &)> &schedule,
                            const Halide::Buffer<> &weight = {}, const Halide::AutoschedulerParams &scheduler = {},
                            const std::function<void(Halide::Pipeline &)> &lower = {});

/// The buffers that the emitted function takes: the operator's, less `weight` where it is a constant.
std::vector<BufferSpec> kernel_buffers(const Workload &, bool constant_weight);

/// A Func's arguments where no function is to be made: its inputs are only described.
std::vector<Halide::ImageParam> described_inputs(const Workload &);
/// The workload with a number for each size that is known only when run.
Workload with_described_sizes(Workload);

}  // namespace convsmith
