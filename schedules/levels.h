// The instruction levels that an archive may hold side by side, and their names.
#pragma once
#include "Halide.h"
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

/// "x86-64", "x86-64-avx2", "x86-64-avx512", "x86-64-avx512-vnni", "x86-64-avx512-fp16", "arm-64", "arm-64-dotprod", of a GPU
/// "cuda-7.5", "cuda-8.0", "cuda-8.6", "opencl" or "vulkan", or, elsewhere, the target's own text.
std::string level_name(const Halide::Target &);

/// The function of Halide's run-time that a GPU's level is called by; empty for a level of the processor.
std::string device_interface(const std::string &level);
/// Whether a level is a GPU's.
bool is_device(const std::string &level);
/// A target that has what each of the list has: for a run-time that serves them all.
Halide::Target target_for_all(const std::vector<Halide::Target> &);

/// The level that every machine of a target's kind has.
std::string baseline(const Halide::Target &);

/// Targets from "T,T…", all of one kind of machine: level names, `all` (the five x86 levels), `host`, or Halide's own texts. GPUs
/// first, then the best level.
/// Throws Error that says what is known.
std::vector<Halide::Target> parse_targets(std::string_view list);

/// Throws Error for a target of another kind of machine than this one.
void require_runs_here(const Halide::Target &);
/// The level of this machine.
Halide::Target host_target();

}  // namespace convsmith
