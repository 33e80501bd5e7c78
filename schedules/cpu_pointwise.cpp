// Passes without a sum: vectors along the contiguous axis, rows in parallel where there are many.
#include "loops.h"

using namespace Halide;

namespace convsmith {
namespace {

bool supports(const Stages &s, const Workload &w) { return s.sums.empty() && !w.target.has_gpu_feature(); }

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  const int lanes = machine(w.target).lanes;
  std::int64_t elements = 1;
  for (auto &a : s.free) elements *= a.extent;
  return {{"lanes", {lanes}, {1}, {lanes}},
          {"parallel", {elements >= 1 << 16}, {0}, {1}}};  // of the outermost axis that has more than one element
}

std::string conflict(const Stages &, const Knobs &, const Workload &) { return ""; }

void apply(Stages &s, const Knobs &k, const Workload &w) {
  std::vector<Loop> order;
  for (auto &a : s.free) order.push_back(a.var);
  s.out.reorder(order);
  if (k.get("parallel", 0))
    for (size_t a = s.free.size() - 1; a >= 1; a--)
      if (s.free[a].extent > 1) {
        s.out.parallel(s.free[a].var);
        break;
      }
  const int lanes = k.get("lanes", machine(w.target).lanes);
  if (lanes > 1) s.out.vectorize(s.free[0].var, lanes, TailStrategy::GuardWithIf);
}

}  // namespace

extern const Schedule cpu_pointwise{"cpu_pointwise", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
