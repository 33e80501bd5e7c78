// Each thread computes a register tile of the result, reduced from start to end, or chunk by chunk with both operands in
// shared memory.
#include "gpu_loops.h"

using namespace Halide;

namespace convsmith {
namespace {

// All residues of a strided gradient are in a thread's registers at once.
bool supports(const Stages &s, const Workload &w) {
  return residue_count(s) <= 16 && w.target.has_gpu_feature();
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = gpu_knobs(s, w);
  if (!s.sums.empty()) preset_chunks(k, s, w);
  return k;
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  GpuKernel g{s.out, s.free, {}, s.vec, s.bcast, s.dense, reads_vectors(w.target), !floats_as_bits(w)};
  for (auto &sum : s.sums) {
    GpuKernel::Part part{sum.acc, {}, sum.extent, true, in_fours(s, sum, k, w)};
    for (int i = 0; i < sum.red.dimensions(); i++) part.red.push_back({i, sum.red[i]});
    g.sums.push_back(part);
  }
  schedule_kernel(g, k);
}

}  // namespace

extern const Schedule gpu_direct{"gpu_direct", 1, supports, knobs, gpu_conflict, apply};

}  // namespace convsmith
