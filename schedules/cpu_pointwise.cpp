// Passes without a sum: vectors along the contiguous axis; rows, or where only when run it is known how many small images there are, these in
// parallel.
#include "loops.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

bool supports(const Stages &s, const Workload &w) { return s.sums.empty() && !w.target.has_gpu_feature(); }

constexpr std::int64_t worth_a_task = 1 << 16;

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  const int lanes = machine(w.target).lanes;
  const std::int64_t elements = results(s);
  return {{"lanes", {lanes}, {1}, {lanes}},
          {"parallel", {elements >= worth_a_task || !all_known(s)}, {0}, {1}}};  // of the outermost axis that has more than one element
}

std::string conflict(const Stages &, const Knobs &, const Workload &) { return ""; }

void apply(Stages &s, const Knobs &k, const Workload &w) {
  std::vector<Loop> order;
  for (auto &a : s.free) order.push_back(a.var);
  s.out.reorder(order);
  if (k.get("parallel", 0))
    for (size_t a = s.free.size() - 1; a >= 1; a--)
      if (s.free[a].extent > 1 || (!s.free[a].known && results(s) < worth_a_task)) {
        const Var v = s.free[a].var, task(v.name() + "_task"), each(v.name() + "_of_task");
        const std::int64_t of_one = std::max<std::int64_t>(1, results(s) / s.free[a].extent);
        s.out.split(v, task, each, int(std::max<std::int64_t>(1, worth_a_task / 2 / of_one)), TailStrategy::GuardWithIf).parallel(task);
        break;
      }
  const int lanes = k.get("lanes", machine(w.target).lanes);
  if (lanes > 1) s.out.vectorize(s.free[0].var, lanes, TailStrategy::GuardWithIf);
}

}  // namespace

extern const Schedule cpu_pointwise{"cpu_pointwise", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
