#include "knob_effects.h"
#include <algorithm>
#include <functional>
#include <map>
#include <sstream>
#include <tuple>
#include "page.h"

namespace convsmith {

std::vector<std::pair<std::string, std::string>> knob_values(const std::string &setting) {
  std::vector<std::pair<std::string, std::string>> values;
  std::istringstream words(setting);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (values.empty()) values.emplace_back("schedule", word);
    else values.emplace_back(word.substr(0, equals), equals == std::string::npos ? "" : word.substr(equals + 1));
  }
  return values;
}

std::vector<Tried> tried_settings(const nlohmann::json &seen) {
  std::map<std::string, Tried> by_setting;
  for (auto &trial : seen) {
    const std::string setting = text(trial, "setting");
    const double rung = number(trial, "rung"), ratio = number(trial, "ratio");
    const Tried now{setting, text(trial, "fault"),  rung > 0 && rung < 100 ? int(rung) : 0, number(trial, "us"),
                    ratio,   number(trial, "noise")};
    if (setting.empty() || (now.fault.empty() && !shown(ratio))) continue;
    const auto [at, first] = by_setting.try_emplace(setting, now);
    // What was found wrong later counts, however well it did before.
    if (!first && at->second.fault.empty() && (!now.fault.empty() || now.rung > at->second.rung)) at->second = now;
  }
  std::vector<Tried> all;
  all.reserve(by_setting.size());
  for (auto &[setting, tried] : by_setting) all.push_back(tried);
  std::stable_sort(all.begin(), all.end(), [](auto &a, auto &b) {
    if (a.fault.empty() != b.fault.empty()) return a.fault.empty();
    return a.fault.empty() && std::tie(a.rung, a.ratio) > std::tie(b.rung, b.ratio);
  });
  return all;
}

double ValueEffect::median() const { return (ratios[(ratios.size() - 1) / 2] + ratios[ratios.size() / 2]) / 2; }

std::vector<KnobEffect> knob_effects(const std::vector<Tried> &all) {
  std::map<std::string, std::map<std::string, std::vector<double>>> ratios;
  for (auto &tried : all)
    if (tried.fault.empty())
      for (auto &[knob, value] : knob_values(tried.setting)) ratios[knob][value].push_back(tried.ratio);
  std::vector<KnobEffect> effects;
  for (auto &[knob, values] : ratios) {
    if (values.size() < 2) continue;
    effects.push_back({knob, {}});
    for (auto &[value, list] : values) {
      std::sort(list.begin(), list.end(), std::greater());
      effects.back().values.push_back({value, list});
    }
    auto &sorted = effects.back().values;
    std::stable_sort(sorted.begin(), sorted.end(), [](auto &a, auto &b) { return a.ratios[0] > b.ratios[0]; });
  }
  std::stable_sort(effects.begin(), effects.end(), [](auto &a, auto &b) { return a.size() > b.size(); });
  return effects;
}

}  // namespace convsmith
