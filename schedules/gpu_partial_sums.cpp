// For a short result and a long reduction: one kernel writes partial sums to memory, a second adds them, always in the same
// order. The cut is the problem's and not the device's, so there are no atomics and the bits do not change.
//   cut  how much of each axis of the reduction one partial sum holds (0: all of it)
#include "gpu_loops.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

bool supports(const Stages &s, const Workload &w) {
  if (!w.target.has_gpu_feature() || !s.over_positions || s.sums.size() != 1 || !s.sums[0].known) return false;
  return terms(s) >= 256;
}

// Some 64 Ki threads' worth of partial sums, of at least 64 products each. Of several cuts: the batch first, so that a slice is a
// row or more; where threads read in fours rows first, as their own rows and the next image's are in other lines anyway.
// 3x3, 64 -> 64 at 56x56 and n=8: two rows of all images 86 us, eight of one 105; depthwise 144 at 56x56, half as many threads
// 30 against 57 (H200).
std::vector<int> best_cut(const Stages &s, const std::vector<int> &tile, bool in_fours) {
  const std::vector<int> &red = s.sums[0].extent;
  const std::int64_t sum = terms(s);
  std::int64_t threads = 1;
  for (size_t a = 0; a < s.free.size(); a++) threads *= tiles_along(s, tile, a);
  std::vector<size_t> order;
  for (size_t i = red.size(); i-- > 0;) order.push_back(i);
  if (in_fours && red.size() > 2) std::rotate(order.begin(), order.begin() + 1, order.end() - 1);
  std::vector<int> cut(red.size(), 0);
  std::int64_t slices = std::min<std::int64_t>(std::max<std::int64_t>(2, (s.paired ? 28 * 1024 : 65536) / threads), std::max<std::int64_t>(2, sum / 64));
  for (size_t at = 0; at < order.size() && slices > 1; at++) {
    const size_t i = order[at];
    const int wanted = int(std::min<std::int64_t>(slices, red[i]));
    if (wanted == 1) continue;
    int pieces = wanted;  // even ones, where there are not many more: a slice without a guard can be staged
    while (red[i] % pieces) pieces++;
    if (pieces > 3 * wanted && in_fours && at + 1 < order.size()) continue;
    if (pieces > 3 * wanted || (pieces == red[i] && i == 0)) pieces = wanted;
    cut[i] = (red[i] + pieces - 1) / pieces;
    slices /= pieces;
  }
  return cut;
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = gpu_knobs(s, w);
  Knob cut{"cut", best_cut(s, k[0].preset, best_in_fours(s, w, k[0].preset)), std::vector<int>(s.sums[0].extent.size(), 0), s.sums[0].extent};
  k.push_back(cut);
  preset_chunks(k, s, w);
  if (s.paired) preset(k, "unroll", {2});
  return k;
}

std::string conflict(const Stages &s, const Knobs &k, const Workload &w) {
  bool whole = true, single = true;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) {
    const int cut = k.get("cut", i, 0);
    whole &= cut == 0 || cut >= s.sums[0].extent[i];
    single &= cut == 1 || s.sums[0].extent[i] == 1;
  }
  if (single) return "cut=1 for every axis: expected at least one axis of the reduction to be summed within a slice";
  return whole ? "cut=0 for every axis: expected at least one axis of the reduction to be cut" : gpu_conflict(s, k, w);
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  Func acc = s.sums[0].acc;
  const RDom red = s.sums[0].red;
  std::vector<std::pair<RVar, Var>> slices;
  GpuKernel first{{}, s.free, {GpuKernel::Part()}, s.vec, s.bcast, 0, reads_vectors(w.target)}, second{s.out, s.free, {{acc, {}, {}, true, {}}}, {}, {}, s.dense};
  GpuKernel::Part &part = first.sums[0];
  part.fours = in_fours(s, s.sums[0], k, w);
  for (int i = 0; i < red.dimensions(); i++) {
    const int extent = s.sums[0].extent[size_t(i)], cut = std::min(k.get("cut", size_t(i), 0), extent);
    RVar o = red[i];
    if (cut == 0 || cut == extent) {
      part.red.push_back({i, o}), part.extent.push_back(extent);
      continue;
    }
    if (cut > 1) {
      const RVar in(o.name() + "_in_slice"), out(o.name() + "_slice");
      acc.update(0).split(o, out, in, cut, TailStrategy::GuardWithIf);
      part.red.push_back({i, in}), part.extent.push_back(cut), o = out;
      part.even &= extent % cut == 0;
    }
    const Var v = numbered("slice_", i);
    slices.push_back({o, v});
    first.free.push_back({v, (extent + cut - 1) / cut});
    second.sums[0].red.push_back({i, o}), second.sums[0].extent.push_back((extent + cut - 1) / cut);
  }
  part.acc = acc.update(0).rfactor(slices);
  first.store = part.acc.in(acc);
  first.store.compute_root().reorder_storage(storage_order(first.free));
  schedule_kernel(first, k);
  schedule_kernel(second, Knobs::parse("thread=32,4 unroll=1"));
}

}  // namespace

extern const Schedule gpu_partial_sums{"gpu_partial_sums", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
