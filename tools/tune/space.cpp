#include "space.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include "convsmith/error.h"
#include "schedules/loops.h"

namespace convsmith {
namespace {

double rounded_up(double value, double unit) { return std::ceil(value / unit) * unit; }

// Cycles a vector of multiply-adds. A schedule without a sum, or without tiles, says nothing.
double modelled(const Schedule &schedule, const Stages &s, const Knobs &k, const Workload &w, int threads) {
  const auto known = all_knobs(schedule, s, w);
  if (s.sums.empty() || std::none_of(known.begin(), known.end(), [](const Knob &knob) { return knob.name == "tile"; })) return 1;
  const Machine m = machine(w.target);
  const int lanes = std::max(1, k.get("lanes", m.lanes));
  const auto tile_of = [&](size_t a) { return std::max(1, std::min(k.get("tile", a, a == 0 ? lanes : 1), units(s.free[a]))); };
  const auto &red = s.sums[0].extent;

  // A register tile: two multiply-adds and two loads a cycle, a multiply-add's latency of four, the registers.
  double vectors = std::ceil(double(tile_of(0)) / lanes), others = 1, waste = rounded_up(units(s.free[0]), tile_of(0)) / units(s.free[0]);
  for (size_t a = 1; a < s.free.size(); a++) {
    others *= tile_of(a);
    waste *= rounded_up(units(s.free[a]), tile_of(a)) / units(s.free[a]);
  }
  const double sums = vectors * others, loads = (vectors + (s.paired ? vectors : 1) * others) / sums / 2, latency = 4 / sums;
  double cycles = std::max({0.5, loads, latency}) + 0.1 * loads + 0.1 * latency;
  const double held = sums + vectors + 1;
  if (held > m.registers) cycles *= 1 + 2 * (held - m.registers) / held;
  cycles *= waste * m.lanes / lanes;

  double work = 1, sum = 1, tasks = std::max(1, k.get("strips", 1)), channel_tasks = 1, block = 1;
  for (size_t a = 0; a < s.free.size(); a++) {
    const int extent = units(s.free[a]), b = k.get("block", a, 0);
    const double parts = b > 0 && b < extent ? std::ceil(double(extent) / b) : 1;
    tasks *= parts, work *= s.free[a].extent, block *= extent / parts;
    if (a == 0) channel_tasks = parts;
  }
  for (const int e : red) sum *= e;
  const double products = work * sum / m.lanes;
  // Elements of the two operands.
  const double walked = s.over_positions ? sum * (s.free.size() > 1 ? units(s.free[1]) : 1) : work / units(s.free[0]) * red[0];
  const double along = s.over_positions ? sum * units(s.free[0]) : units(s.free[0]) * sum;
  if (threads > 1 && work * sum > 400'000) cycles *= rounded_up(tasks, threads) / tasks;
  // Each task reads one operand anew, and copies are read and written once or once a task.
  const double passes = s.over_positions ? tasks : tasks / channel_tasks;
  cycles += 0.1 * (passes * (s.over_positions ? walked / std::max(1., tasks) + along : along) + channel_tasks * walked) / products;
  const auto copied = [&](const char *knob, double elements, double each_task) {
    const int how = k.get(knob, 0);
    return how == 0 ? 0. : elements * (how == 1 ? each_task : 1);
  };
  if (s.padded.defined()) cycles += 0.2 * copied("pad", walked, channel_tasks) / products;
  cycles += 0.2 * copied("copy", along, tasks) / products;
  // What a task walks through for each of its tiles along the vector axis, past L2.
  const double block_walked = s.over_positions ? along / tasks : block / std::max(1, units(s.free[0])) * red[0];
  if (block_walked > 128 * 1024) cycles *= 1.05;
  return cycles;
}

// What an entry of a knob may be tried at: a short range whole, of a long one its ends, its divisors, which leave no tail,
// and powers of two.
std::vector<int> values_of(const Knob &knob, size_t entry) {
  const int low = knob.low[entry], high = knob.high[entry], unit = entry < knob.unit.size() ? knob.unit[entry] : 1;
  std::set<int> values = {low, high, knob.preset[entry]};
  for (int v = std::max(low, 1); v <= high && v <= 16 * unit; v++)
    if (high <= 16 * unit || high % v == 0) values.insert(v);
  for (int parts = 1; parts <= 16 && high > 16; parts++) values.insert((high + parts - 1) / parts);
  for (int v = 1; v < high && v > 0; v *= 2) values.insert(v);
  std::vector<int> kept;
  for (const int v : values)
    if (v >= low && v <= high && (v % unit == 0 || v == high || v == knob.preset[entry])) kept.push_back(v);
  return kept;
}

// A loop of one turn is where it is said to be wherever that is.
bool walks(const Knob &permutation, int axis) { return size_t(axis) >= permutation.high.size() || permutation.high[size_t(axis)] > 1; }

// Part of the archive's contract, not of this kernel alone.
bool is_packed_order(const std::string &name) { return name == "panel" || name == "quad" || name == "offset"; }

class Proposer {
 public:
  Proposer(const ProposalRequest &r, const Workload &w, const Stages &s) : r_(r), w_(w), s_(s), random_(r.seed) {}

  void add(const Schedule &schedule, const Knobs &knobs) {
    if (!seen_.insert(schedule.name + knobs.str()).second) return;
    const Workload w = with_knobs(w_, knobs);
    const std::tuple key(w.panel, w.trim, w.fill, w.fill_both, w.position_lanes);
    auto at = outlines_.find(key);
    if (at == outlines_.end()) at = outlines_.emplace(key, outline(w)).first;
    const Stages &s = at->second;
    if (!schedule.supports(s, w)) return;
    try {
      check_knobs(schedule, knobs, s, w);
    } catch (const Error &) { return; }
    found_.push_back({schedule.name, knobs.str(), schedule.version, modelled(schedule, s, knobs, w, r_.threads)});
  }

  // Every setting that differs in one entry, or in the order of two axes.
  void add_neighbours(const Schedule &schedule, const Knobs &base) {
    for (auto &knob : all_knobs(schedule, s_, w_)) {
      if (is_packed_order(knob.name)) continue;
      std::vector<int> values;
      for (size_t i = 0; i < knob.preset.size(); i++) values.push_back(base.get(knob.name, i, knob.preset[i]));
      const auto with = [&](const std::vector<int> &v) {
        Knobs k = base;
        k.set(knob.name, v), add(schedule, k);
      };
      for (size_t i = 0; i < values.size(); i++) {
        auto changed = values;
        if (!knob.permutation)
          for (const int v : values_of(knob, i)) changed[i] = v, with(changed);
        else if (i + 1 < values.size() && walks(knob, values[i]) && walks(knob, values[i + 1])) std::swap(changed[i], changed[i + 1]), with(changed);
      }
    }
  }

  // Settings that differ in several.
  void add_random(const Schedule &schedule, const Knobs &base, int count) {
    const auto knobs = all_knobs(schedule, s_, w_);
    const auto below = [&](size_t n) { return size_t(random_() % n); };
    for (int i = 0; i < count; i++) {
      Knobs k = base;
      for (size_t changes = 1 + below(3); changes > 0; changes--) {
        const Knob &knob = knobs[below(knobs.size())];
        if (is_packed_order(knob.name) || knob.preset.empty()) continue;
        std::vector<int> values;
        for (size_t e = 0; e < knob.preset.size(); e++) values.push_back(k.get(knob.name, e, knob.preset[e]));
        const size_t entry = below(values.size());
        if (knob.permutation) {
          const size_t other = below(values.size());
          if (walks(knob, values[entry]) && walks(knob, values[other])) std::swap(values[entry], values[other]);
        } else {
          const auto choices = values_of(knob, entry);
          values[entry] = choices[below(choices.size())];
        }
        k.set(knob.name, values);
      }
      add(schedule, k);
    }
  }

  // The most promising first; a third of those taken are drawn from the rest of the better half, as the model may be wrong.
  std::vector<Proposal> best() {
    std::stable_sort(found_.begin(), found_.end(), [](auto &a, auto &b) { return a.model < b.model; });
    const size_t count = std::min(size_t(r_.count), found_.size()), by_model = count - count / 3;
    const size_t half = std::max(count, found_.size() / 2);
    if (by_model < half) std::shuffle(found_.begin() + std::ptrdiff_t(by_model), found_.begin() + std::ptrdiff_t(half), random_);
    found_.resize(count);
    return found_;
  }

 private:
  const ProposalRequest &r_;
  const Workload &w_;
  const Stages &s_;
  std::mt19937_64 random_;
  std::set<std::string> seen_;
  std::map<std::tuple<int, bool, bool, bool, bool>, Stages> outlines_;
  std::vector<Proposal> found_;
};

}  // namespace

std::vector<Proposal> proposals(const ProposalRequest &r, const Workload &w) {
  const Stages s = outline(w);
  Proposer proposer(r, w, s);
  if (!r.around.schedule.empty()) {
    const Schedule &schedule = find_schedule(r.around.schedule);
    const Knobs base = Knobs::parse(r.around.knobs);
    proposer.add_neighbours(schedule, base);
    proposer.add_random(schedule, base, 4 * r.count);
    return proposer.best();
  }
  for (const Schedule *schedule : schedules()) {
    if (!schedule->supports(s, w) || schedule == schedules().back()) continue;
    const Knobs base = presets(*schedule, s, w);
    proposer.add(*schedule, base);
    proposer.add_random(*schedule, base, 20 * r.count);
  }
  return proposer.best();
}

std::vector<Proposal> proposals(const ProposalRequest &r) {
  return ask_worker({{"what", "proposals"}, {"request", r}}, fmt::format("{} of \"{}\"", r.pass, r.problem)).get<std::vector<Proposal>>();
}

}  // namespace convsmith
