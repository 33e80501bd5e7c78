// One task a row of the result; each vector of channels is summed in a register from start to end.
#include "example_schedule.h"
#include <algorithm>
#include "schedules/loops.h"

namespace convsmith {
namespace {

bool supports(const Stages &s, const Workload &w) {
  return s.sums.size() == 1 && s.free.size() > 3 && !w.target.has_gpu_feature();
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  const int lanes = std::min(machine(w.target).lanes, s.free[0].extent);
  return {{"lanes", {lanes}, {1}, {lanes}}};  // name, presets by rule, the least and the most they may be
}

std::string conflict(const Stages &, const Knobs &, const Workload &) { return ""; }

void apply(Stages &s, const Knobs &k, const Workload &) {
  const Halide::Var channel = s.free[0].var, row = s.free[2].var, tile("tile"), lane("lane");
  s.out.split(channel, tile, lane, k.get("lanes", 1), Halide::TailStrategy::ShiftInwards).vectorize(lane).parallel(row);
  s.sums[0].acc.compute_at(s.out, tile).vectorize(channel);
  s.sums[0].acc.update(0).vectorize(channel);
}

}  // namespace

extern const Schedule example_rows{"example_rows", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
