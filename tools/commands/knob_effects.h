// What the trials of a task say about each knob.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace convsmith {

/// Of "NAME@VERSION knob=value …", in that order; the schedule counts as a knob.
std::vector<std::pair<std::string, std::string>> knob_values(const std::string &setting);

/// A setting that was tried, as it was when it was looked at most closely. Where it has a fault, that is all.
struct Tried {
  std::string setting, fault;
  int rung = -1;
  double us, ratio, noise;
};

/// Each setting once: the sound ones by rung, then by ratio, the best first; then those with faults.
std::vector<Tried> tried_settings(const nlohmann::json &seen);

struct ValueEffect {
  std::string value;
  std::vector<double> ratios;  // of the sound settings with this value, the best first
  double median() const;
};

struct KnobEffect {
  std::string knob;
  std::vector<ValueEffect> values;  // the best first
  /// What choosing the worst value costs at least, where all others are chosen well.
  double size() const { return values.front().ratios.front() - values.back().ratios.front(); }
};

/// Of those with more than one value, the largest first.
std::vector<KnobEffect> knob_effects(const std::vector<Tried> &);

}  // namespace convsmith
