// What a compiled function asks of the allocator.
#pragma once
#include "kernel_job.h"
#include <string>
#include <vector>
#include "Halide.h"
#include "convsmith/problem.h"

namespace convsmith {

/// Bytes that a function asks of the allocator: an upper bound, by the sizes of its heap allocations. Those that live at
/// the same time add up; those inside a parallel loop, whose body is a function of its own, are asked for once a thread.
/// The texts are C expressions of the sizes known only when run, s[Size], in 64 bits: numbers where there are none.
struct Workspace {
  std::string serial = "0", task = "0";
};
/// Throws std::logic_error where an allocation has no bound.
Workspace workspace_of(const Halide::Module &, const Problem &, const std::vector<int> &sizes);

/// The kernels that a module starts on a device, in the order of the code.
std::vector<KernelLaunch> launches_of(const Halide::Module &);

}  // namespace convsmith
