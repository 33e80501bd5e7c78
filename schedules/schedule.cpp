#include "schedule.h"
#include "convsmith/error.h"
#include "generators/kernel_generator.h"
#include "gpu_loops.h"
#include "records.h"
#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sstream>

using namespace Halide;

namespace convsmith {

extern const Schedule cpu_direct, cpu_dot4, cpu_lane_sums, cpu_partial_sums, cpu_pointwise, gpu_direct, gpu_partial_sums;

namespace {

// One loop nest a Func, as the mathematics says it: always right, never fast. On a GPU, a thread an element.
void apply_reference(Stages &s, const Knobs &, const Workload &w) {
  if (w.target.has_gpu_feature()) {
    for (auto &sum : s.sums) schedule_elements(sum.acc.compute_root());
    schedule_elements(s.out, -1, -1);
    return;
  }
  for (auto &sum : s.sums) sum.acc.compute_root();
  if (s.padded.defined()) s.padded.compute_root();
}

const Schedule reference{"reference",
                         1,
                         [](const Stages &, const Workload &) { return true; },
                         [](const Stages &, const Workload &) { return std::vector<Knob>{}; },
                         [](const Stages &, const Knobs &, const Workload &) { return std::string(); },
                         apply_reference};

}  // namespace

const std::vector<const Schedule *> &schedules() {
  static const std::vector<const Schedule *> all = {&cpu_lane_sums, &cpu_partial_sums, &cpu_dot4, &cpu_direct, &cpu_pointwise,
                                              &gpu_partial_sums, &gpu_direct, &reference};
  return all;
}

const Schedule &find_schedule(std::string_view name) {
  std::string list;
  for (const Schedule *s : schedules()) {
    if (name == s->name) return *s;
    list += (list.empty() ? "" : ", ") + std::string(s->name);
  }
  throw Error(fmt::format("schedule: expected one of {}, got \"{}\"", list, name));
}

Knobs Knobs::parse(std::string_view text) {
  Knobs k;
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) {
    const auto bad = [&] {
      return Error(fmt::format("knob: expected NAME=INTEGER[,INTEGER...], got \"{}\"", word));
    };
    const size_t eq = word.find('=');
    if (eq == std::string::npos || eq == 0) throw bad();
    const std::string name = word.substr(0, eq);
    if (k.values_.count(name)) throw Error(fmt::format("knob {}: given twice", name));
    std::vector<int> values;
    const char *at = word.data() + eq + 1, *end = word.data() + word.size();
    while (true) {
      int value = 0;
      const auto [next, error] = std::from_chars(at, end, value);
      if (error != std::errc()) throw bad();
      values.push_back(value);
      if (next == end) break;
      if (*next != ',') throw bad();
      at = next + 1;
    }
    k.values_[name] = values;
  }
  return k;
}

std::string Knobs::str() const {
  std::string text;
  for (auto &[name, values] : values_)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, fmt::join(values, ","));
  return text;
}

int Knobs::get(const std::string &name, size_t axis, int preset) const {
  const auto i = values_.find(name);
  return i == values_.end() || axis >= i->second.size() ? preset : i->second[axis];
}

namespace {

bool may_have_panels(const Workload &w) {
  return (w.pass == PassKind::forward || w.pass == PassKind::input_gradient) && w.problem.op != Op::local && w.problem.type != Type::u8s8;
}

}  // namespace

bool read_from_panels(const Workload &w) {
  const Problem &p = w.problem;
  return may_have_panels(w) && element_count(p.weight_shape()) >= 1 << 17 && p.groups == 1 &&
         (p.op == Op::dense || std::min(p.ic * folded_positions(p), p.oc) >= 16);
}

std::vector<Knob> all_knobs(const Schedule &schedule, const Stages &s, const Workload &w) {
  std::vector<Knob> k = schedule.knobs(s, w);
  const Problem &p = w.problem;
  // The same width at every level, so that an archive has one packed order.
  k.push_back({"panel", {read_from_panels(w) && &schedule != &reference ? 16 : 0}, {0}, {may_have_panels(w) ? 256 : 0}});
  // Skipping the rows of taps in the border pays, but not where a tile's rows would each guard their own.
  bool border = false;
  for (int a = 0; a + 1 < p.rank; a++) border |= p.pad_lo[a] > 0 || p.pad_hi[a] > 0;
  bool rows = false;
  for (auto &knob : k) rows |= knob.name == "rows" && knob.preset[0] > 1;
  for (auto &knob : k)
    for (size_t a = s.over_positions ? 3 : 2; knob.name == "tile" && a < knob.preset.size(); a++) rows |= knob.preset[a] > 1;
  k.push_back({"trim", {border && !w.target.has_gpu_feature() && !rows && !s.sums.empty() && !s.paired && !s.by_fours && &schedule != &reference}, {0}, {1}});
  return k;
}

Knobs presets(const Schedule &schedule, const Stages &s, const Workload &w) {
  Knobs knobs;
  for (auto &k : all_knobs(schedule, s, w)) knobs.set(k.name, k.preset);
  return knobs;
}

void check_knobs(const Schedule &schedule, const Knobs &knobs, const Stages &s, const Workload &w) {
  const auto known = all_knobs(schedule, s, w);
  auto fail = [&](const std::string &what) {
    throw Error(fmt::format("schedule {}: {}, for {} of \"{}\"", schedule.name, what, pass_name(w.pass), w.problem.str()));
  };
  for (auto &[name, values] : knobs.values()) {
    const auto k = std::find_if(known.begin(), known.end(), [&, &n = name](const Knob &x) { return x.name == n; });
    if (k == known.end()) fail(fmt::format("unknown knob \"{}\"", name));
    if (values.size() > k->preset.size())
      fail(fmt::format("knob {}: expected at most {} entries, got {}", name, k->preset.size(), values.size()));
    if (k->permutation) {
      std::vector<int> sorted = values;
      std::sort(sorted.begin(), sorted.end());
      for (size_t i = 0; i < sorted.size() || sorted.size() != k->preset.size(); i++)
        if (sorted.size() != k->preset.size() || sorted[i] != int(i))
          fail(fmt::format("knob {}: expected a permutation of 0 to {}, got {}", name, k->preset.size() - 1,
                           fmt::join(values, ",")));
      continue;
    }
    for (size_t i = 0; i < values.size(); i++)
      if (values[i] < k->low[i] || values[i] > k->high[i])
        fail(fmt::format("knob {}: entry {} expected {} to {}, got {}", name, i, k->low[i], k->high[i], values[i]));
  }
  const std::string conflict = schedule.conflict(s, knobs, w);
  if (!conflict.empty()) fail(conflict);
}

namespace {

// The first schedule that supports it, with its presets; the last of them supports all.
std::pair<const Schedule *, Knobs> by_rule(const Stages &s, const Workload &w) {
  for (const Schedule *schedule : schedules()) {
    if (!schedule->supports(s, w)) continue;
    const Knobs knobs = presets(*schedule, s, w);
    if (schedule->conflict(s, knobs, w).empty()) return {schedule, knobs};
  }
  return {&reference, {}};
}

// The forward pass of a training step, as its knobs make it.
Workload of_first(Workload w) {
  w.pass = PassKind::forward;
  w.panel = w.panel_first, w.few = w.few_first, w.quad = w.position_lanes = 0;
  w.fill = w.fill_first, w.trim = w.trim_first, w.fill_both = false;
  return w;
}

// A tensor of positions lies in memory as the problem's own do. Its Func's dimensions are channel, group, space, batch.
void store_as_tensor(Func f, const Workload &w) {
  std::vector<Var> memory = f.args();
  if (w.problem.layout == Layout::channels_first) std::rotate(memory.begin(), memory.begin() + 2, memory.end() - 1);
  f.compute_root().reorder_storage(memory);
}

// Of each position's elements those beside each other in memory make vectors, of few channels a row's.
void schedule_elements_of(Func f, int channels, bool parallel, const Workload &w) {
  const int lanes = machine(w.target).lanes;
  const std::vector<Var> v = f.args();
  store_as_tensor(f, w);
  if (w.problem.layout == Layout::channels_first) f.reorder(v[2], v[0]).vectorize(v[2], lanes, TailStrategy::GuardWithIf);
  else if (channels % lanes == 0) f.vectorize(v[0], lanes);
  else {
    const Var of_position(f.name() + "_position"), row(f.name() + "_row");
    f.fuse(v[0], v[1], of_position).fuse(of_position, v[2], row).vectorize(row, lanes, TailStrategy::GuardWithIf);
  }
  if (parallel && v.size() > 4) f.parallel(v[v.size() - 2]);
}

// Of f(channel, group, [h, [d,]] n) += that of a row's positions: vectors of channels, or where these are few or lie apart, of what lies side
// by side in a row, whose lanes are then added up.
void schedule_row_sums(Func f, int channels, bool parallel, const Workload &w) {
  const int lanes = machine(w.target).lanes;
  const std::vector<Var> v = f.args();
  const Var c = v[0];
  const RVar row = f.rvars(0)[0], piece(row.name() + "_piece"), lane(row.name() + "_lane");
  const bool last = w.problem.layout == Layout::channels_last;
  f.compute_root().bound(c, 0, channels);
  if (last && channels >= lanes) {
    f.update(0).reorder(c, row).vectorize(c, lanes, TailStrategy::GuardWithIf);
    if (parallel && v.size() > 3) f.update(0).parallel(v[v.size() - 2]);
    return;
  }
  // Beside each other: of few channels as many positions as are whole vectors, two at the least.
  int positions = last ? 1 : lanes;
  while (last && (positions * channels % lanes || positions * channels < 2 * lanes)) positions *= 2;
  const Var in_lane(f.name() + "_lane"), plane(f.name() + "_plane"), task(f.name() + "_task");
  f.update(0).split(row, piece, lane, positions, TailStrategy::GuardWithIf);
  Func lane_sums = f.update(0).rfactor(lane, in_lane);
  std::vector<Var> memory = lane_sums.args();
  std::rotate(memory.begin() + last, memory.end() - 1, memory.end());
  lane_sums.bound(c, 0, channels).reorder_storage(memory);
  if (last) {
    lane_sums.compute_at(f, v[1]).reorder(c, in_lane).vectorize(c).vectorize(in_lane);
    lane_sums.update(0).reorder(c, in_lane, piece).vectorize(c).vectorize(in_lane);
    f.update(0).reorder(c, lane).vectorize(c);
    if (parallel && v.size() > 3) f.update(0).parallel(v[v.size() - 2]);
  } else {
    f.update(0).atomic().vectorize(lane);
    std::vector<VarOrRVar> order = {in_lane, piece};  // then that of memory: rows, then channels
    order.insert(order.end(), v.begin() + 2, v.end() - 1);
    order.insert(order.end(), {c, v[1], v.back()});
    lane_sums.compute_root().vectorize(in_lane, lanes);
    lane_sums.update(0).reorder(order).vectorize(in_lane, lanes).fuse(c, v[1], plane).fuse(plane, v.back(), task);
    if (parallel) lane_sums.update(0).parallel(task);
  }
}

// On a GPU a training step's forward pass is a Func after the other, whole; so it is where it has few products, whose vectors would wait for
// what was just stored: 6x8 by [1, -1], 0.36 against 0.57 us, but 3x3 at 28x28 6.8 against 1.7 (Emerald Rapids).
bool one_by_one(const Stages &first, const Workload &w) {
  if (first.sums.empty()) return true;  // no tap reaches the result
  return w.target.has_gpu_feature() || (all_known(first) && terms(first) * results(first) <= 512);
}

void schedule_first(Stages &s, const Workload &w) {
  if (!s.first) return;
  Stages &f = *s.first;
  if (one_by_one(f, w)) {
    std::vector<Func> all = f.before;
    for (auto &sum : f.sums) all.push_back(sum.acc);
    all.push_back(f.out);
    for (auto *list : {&f.after, &s.elements, &s.row_sums, &s.before}) all.insert(all.end(), list->begin(), list->end());
    s.before = all;
    return;
  }
  const Workload before = of_first(w);
  const auto [schedule, knobs] = by_rule(f, before);
  schedule->apply(f, knobs, before);
  Func result = f.result();
  store_as_tensor(result, before);
  int channels = 1;
  for (auto &axis : f.free) {
    if (axis.var.name() == result.args()[0].name()) channels = axis.extent;
    if (f.after.empty()) result.bound(axis.var, 0, axis.known ? Expr(axis.extent) : axis.size);
  }
  schedule_rest(f, before);
  const bool parallel = results(f) >= 32 * 1024;
  for (auto &e : s.elements) schedule_elements_of(e, channels, parallel, w);
  for (auto &sums : s.row_sums) schedule_row_sums(sums, channels, parallel, w);
}

}  // namespace

void schedule_rest(Stages &s, const Workload &w) {
  schedule_first(s, w);
  const Target &target = w.target;
  const int lanes = machine(target).lanes;
  const std::vector<Var> storage = storage_order(s.free);  // of what is between the sums and the result
  if (!s.after.empty()) {
    s.out.compute_root().reorder_storage(storage);
    if (target.has_gpu_feature()) schedule_elements(s.out, 0);
    for (int u = 0; u < s.out.num_update_definitions() && !target.has_gpu_feature(); u++)
      for (auto &v : pure_axes(s.out, u))
        if (v.name() == storage[0].name()) s.out.update(u).vectorize(v, lanes, TailStrategy::GuardWithIf);
  }
  for (auto *list : {&s.before, &s.after, &s.results})
    for (auto &f : *list) {
      f.compute_root();
      if (target.has_gpu_feature()) {
        schedule_elements(f);
        continue;
      }
      if (f.args().empty()) continue;
      Var vector = f.args()[0];
      for (auto &v : f.args())
        if (v.name() == storage[0].name()) vector = v;
      f.vectorize(vector, lanes, TailStrategy::GuardWithIf);
      for (int u = 0; u < f.num_update_definitions(); u++)
        for (auto &v : pure_axes(f, u))
          if (v.name() == vector.name()) f.update(u).vectorize(v, lanes, TailStrategy::GuardWithIf);
      // The folds of a border are as large as the tensor.
      if (list != &s.after || f.dimensions() < 4) continue;
      const Var rows = f.args()[size_t(f.dimensions()) - 2];
      if (rows.name() != vector.name()) f.parallel(rows);
    }
}

Workload with_knobs(Workload w, const Knobs &knobs) {
  w.panel = knobs.get("panel", 0);
  w.quad = knobs.get("quad", 0);
  w.offset = knobs.get("offset", 0) != 0;
  w.trim = knobs.get("trim", 0) != 0;
  w.few = knobs.get("few", 0);
  // Each copy holds whole rows: none of the axes that may be a row's is shared out.
  const bool copied = knobs.get("pad", 0) != 0 && knobs.get("block", 0, 0) == 0 && knobs.get("block", 1, 0) == 0 &&
                      (w.problem.op != Op::local || knobs.get("block", 2, 0) == 0);
  if (w.pass == PassKind::weight_gradient || w.pass == PassKind::train_step) {
    w.position_lanes = knobs.get("strip", 0) != 0 && w.problem.rank > 1 ? knobs.get("lanes", machine(w.target).lanes) : 0;
    w.fill = w.position_lanes > 0 || (copied && knobs.get("cut", 0, 0) == 0 && w.problem.rank > 1);
    w.fill_both = w.position_lanes > 0 && knobs.get("stage", 1) != 0;
    if (w.pass == PassKind::train_step) {
      const Stages first = *outline(w).first;
      Workload forward = of_first(w);
      if (!one_by_one(first, w)) forward = with_knobs(forward, by_rule(first, forward).second);
      w.fill_first = forward.fill, w.trim_first = forward.trim, w.few_first = forward.few;
      // Dense, each weight is read but once an image: 3,136 -> 100 of 16 327 against 380 us; but 3x3, 256 channels at 14x14, 6.1 against 3.1 ms
      // (Emerald Rapids).
      w.panel_first = w.problem.op == Op::dense ? 0 : forward.panel;
    }
  } else {
    w.fill = copied && (w.pass == PassKind::forward || w.pass == PassKind::input_gradient);
  }
  return w;
}

Stages outline(const Workload &described) {
  const Workload w = with_described_sizes(described);
  const std::vector<ImageParam> inputs = described_inputs(w);
  return find_operator(w).build(w, {inputs.begin(), inputs.end()});
}

Choice choose(const Workload &w, const RecordBook &book, const std::string &cpu) {
  const Stages s = outline(w);
  if (const Record *r = book.find(w, cpu)) {
    const Schedule &schedule = find_schedule(r->schedule);
    if (schedule.version != r->version)
      throw Error(fmt::format("{}: {}@{} is stale: expected version {}", r->where, r->schedule, r->version, schedule.version));
    if (!schedule.supports(s, w)) throw Error(fmt::format("{}: {} does not support this problem", r->where, r->schedule));
    check_knobs(schedule, r->knobs, s, w);
    std::string why = fmt::format("the record {}{}{}", r->where, r->measured.empty() ? "" : ", which measured ", r->measured);
    if (r->halide != halide_version()) why += fmt::format(", made with Halide {}", r->halide.empty() ? "unknown" : r->halide);
    return {&schedule, r->knobs, why};
  }
  const auto [schedule, knobs] = by_rule(s, w);
  return {schedule, knobs, "no record; the first schedule that supports the problem, with its presets"};
}

}  // namespace convsmith
