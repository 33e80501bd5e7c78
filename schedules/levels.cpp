#include "levels.h"
#include "convsmith/error.h"
#include <algorithm>
#include <fmt/format.h>

using namespace Halide;

namespace convsmith {
namespace {

struct Level {
  const char *name;
  Target::Arch arch;
  std::vector<Target::Feature> features;
  const char *interface = nullptr;  // of a GPU
};

// Of one machine each holds the features of the ones after it, but that fp16 and vnni stand beside each other; a GPU's host code is
// for every x86.
const std::vector<Level> &levels() {
  static const std::vector<Target::Feature> avx2 = {Target::SSE41, Target::AVX, Target::AVX2, Target::F16C, Target::FMA};
  static const std::vector<Level> all = [] {
    auto skylake = avx2;
    skylake.insert(skylake.end(), {Target::AVX512, Target::AVX512_Skylake});
    // Both have VNNI and BF16. Halide compiles the one for znver4, which has SSE4A, and the other for sapphirerapids, which has FP16:
    // neither runs on the other's makers' processors.
    auto vnni = skylake, fp16 = skylake;
    vnni.insert(vnni.end(), {Target::AVX512_Cannonlake, Target::AVX512_Zen4});
    fp16.insert(fp16.end(), {Target::AVX512_Cannonlake, Target::AVX512_SapphireRapids});
    const auto cuda = [](const char *name, Target::Feature capability) {
      return Level{name, Target::X86, {Target::CUDA, capability}, "halide_cuda_device_interface"};
    };
    return std::vector<Level>{cuda("cuda-8.6", Target::CUDACapability86),
                              cuda("cuda-8.0", Target::CUDACapability80),
                              cuda("cuda-7.5", Target::CUDACapability75),
                              {"opencl", Target::X86, {Target::OpenCL}, "halide_opencl_device_interface"},
                              {"vulkan", Target::X86, {Target::Vulkan, Target::VulkanInt8, Target::VulkanInt16, Target::VulkanInt64}, "halide_vulkan_device_interface"},
                              {"x86-64-avx512-fp16", Target::X86, fp16}, {"x86-64-avx512-vnni", Target::X86, vnni},
                              {"x86-64-avx512", Target::X86, skylake},   {"x86-64-avx2", Target::X86, avx2},
                              {"x86-64", Target::X86, {}},
                              {"arm-64-dotprod", Target::ARM, {Target::ARMDotProd}}, {"arm-64", Target::ARM, {}}};
  }();
  return all;
}

bool is_of_all(const Level &level) { return level.arch == Target::X86 && !level.interface; }

Target target_of(const Level &level) { return Target(Target::Linux, level.arch, 64, level.features); }

// The best level that a target has; null where it is of another machine.
const Level *level_of(const Target &t) {
  if (t.bits != 64 || t.os != Target::Linux) return nullptr;
  for (auto &level : levels())
    if (t.arch == level.arch && std::all_of(level.features.begin(), level.features.end(), [&](auto f) { return t.has_feature(f); }))
      return &level;
  return nullptr;
}

}  // namespace

std::string level_name(const Target &t) {
  const Level *level = level_of(t);
  return level ? level->name : t.to_string();
}

std::string device_interface(const std::string &name) {
  for (auto &level : levels())
    if (name == level.name && level.interface) return level.interface;
  return "";
}

bool is_device(const std::string &level) { return !device_interface(level).empty(); }

Target target_for_all(const std::vector<Target> &targets) {
  Target t(Target::Linux, targets.at(0).arch, 64, {});
  for (auto &level : levels())
    for (auto &each : targets)
      if (level.interface && level_of(each) == &level) t = t.with_feature(level.features[0]);
  return t;
}

std::string baseline(const Target &t) { return t.arch == Target::ARM ? "arm-64" : "x86-64"; }

Target host_target() {
  const Target host = get_host_target();
  const Level *level = level_of(host);
  return level ? target_of(*level) : host;
}

void require_runs_here(const Target &t) {
  if (t.arch != get_host_target().arch)
    throw Error(fmt::format("target {}: expected one that this machine can run", level_name(t)));
}

std::vector<Target> parse_targets(std::string_view list) {
  std::vector<Target> targets;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string word(list.substr(at, comma - at));
    at = comma + 1;
    std::vector<Target> found;
    for (auto &level : levels())
      if (word == level.name || (word == "all" && is_of_all(level))) found.push_back(target_of(level));
    if (word == "host") found = {host_target()};
    if (found.empty()) {
      std::string known;
      for (auto &level : levels()) known += std::string(level.name) + ", ";
      // Halide knows many machines; this build makes code, a C layer and a dispatch for those that it was proven on.
      if (!Target::validate_target_string(word))
        throw Error(fmt::format("target: expected {}all, host or a Halide target, got \"{}\"", known, word));
      const Level *level = level_of(Target(word));
      if (!level) throw Error(fmt::format("target {} is not available yet: expected {}all or host", word, known));
      found = {target_of(*level)};
    }
    for (auto &t : found)
      if (std::find(targets.begin(), targets.end(), t) == targets.end()) targets.push_back(t);
  }
  const auto rank = [](const Target &t) { return level_of(t) - levels().data(); };
  std::sort(targets.begin(), targets.end(), [&](auto &a, auto &b) { return rank(a) < rank(b); });
  for (auto &t : targets)
    if (t.arch != targets[0].arch)
      throw Error(fmt::format("target {}: expected targets of one machine, got {} and {}", list, level_name(targets[0]), level_name(t)));
  return targets;
}

}  // namespace convsmith
