#include "levels.h"
#include "convsmith/error.h"
#include <algorithm>
#include <fmt/format.h>

using namespace Halide;

namespace convsmith {
namespace {

struct Level {
  const char *name;
  std::vector<Target::Feature> features;
};

// Each holds the features of the one after it.
const std::vector<Level> &levels() {
  static const std::vector<Target::Feature> sse2, avx2 = {Target::SSE41, Target::AVX, Target::AVX2, Target::F16C, Target::FMA};
  static const std::vector<Level> all = [] {
    auto skylake = avx2;
    skylake.insert(skylake.end(), {Target::AVX512, Target::AVX512_Skylake});
    auto vnni = skylake;
    vnni.insert(vnni.end(), {Target::AVX512_Cannonlake, Target::AVX512_Zen4});
    return std::vector<Level>{{"x86-64-avx512-vnni", vnni}, {"x86-64-avx512", skylake}, {"x86-64-avx2", avx2}, {"x86-64", sse2}};
  }();
  return all;
}

Target target_of(const Level &level) { return Target(Target::Linux, Target::X86, 64, level.features); }

bool has_all(const Target &t, const Level &level) {
  return std::all_of(level.features.begin(), level.features.end(), [&](auto f) { return t.has_feature(f); });
}

}  // namespace

std::string level_name(const Target &t) {
  if (t.arch == Target::X86 && t.bits == 64 && t.os == Target::Linux)
    for (auto &level : levels())
      if (has_all(t, level)) return level.name;
  return t.to_string();
}

Target host_target() {
  const Target host = get_host_target();
  if (host.arch == Target::X86 && host.bits == 64 && host.os == Target::Linux)
    for (auto &level : levels())
      if (has_all(host, level)) return target_of(level);
  return host;
}

std::vector<Target> parse_targets(std::string_view list) {
  std::vector<Target> targets;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string word(list.substr(at, comma - at));
    at = comma + 1;
    std::vector<Target> found;
    for (auto &level : levels())
      if (word == level.name || word == "all") found.push_back(target_of(level));
    if (word == "host") found = {host_target()};
    if (found.empty()) {
      std::string known;
      for (auto &level : levels()) known += std::string(level.name) + ", ";
      // Halide knows many machines; this build makes code, a C layer and a dispatch for those that it was proven on.
      if (!Target::validate_target_string(word))
        throw Error(fmt::format("target: expected {}all, host or a Halide target, got \"{}\"", known, word));
      const Target t(word);
      if (t.arch != Target::X86 || t.bits != 64 || t.os != Target::Linux)
        throw Error(fmt::format("target {} is not available yet: expected {}all or host", word, known));
      found = parse_targets(level_name(t));
    }
    for (auto &t : found)
      if (std::find(targets.begin(), targets.end(), t) == targets.end()) targets.push_back(t);
  }
  auto rank = [](const Target &t) {
    size_t i = 0;
    while (level_name(t) != levels()[i].name) i++;
    return i;
  };
  std::sort(targets.begin(), targets.end(), [&](auto &a, auto &b) { return rank(a) < rank(b); });
  return targets;
}

}  // namespace convsmith
