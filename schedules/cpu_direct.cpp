// Each task computes a block of the result in register tiles, each of them reduced from start to end.
#include "loops.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

// Residues of a strided gradient are unrolled around the tile: past 64 the code grows out of hand.
bool supports(const Stages &s, const Workload &w) {
  std::int64_t residues = 1;
  for (auto &a : s.free) residues = std::min<std::int64_t>(residues * a.period, 1 << 20);
  return !s.sums.empty() && residues <= 64 && !w.target.has_gpu_feature();
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = loop_knobs(s, w);
  const Machine m = machine(w.target);
  const size_t axes = s.free.size();
  const int budget = m.registers - 4;  // what the operands leave for the sums
  std::int64_t residues = 1, taps = 1, sum = 1;
  for (auto &a : s.free) residues *= a.period;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) sum *= s.sums[0].extent[i], taps *= i ? s.sums[0].extent[i] : 1;

  std::vector<int> tile(axes, 1), block(axes, 0);
  const int e0 = units(s.free[0]);
  const int vectors = !s.paired && e0 >= 2 * m.lanes ? 2 : 1;
  tile[0] = std::min(e0, vectors * m.lanes);
  int left = budget / vectors;
  // Code grows with the residues of a strided gradient, each of which unrolls the tile.
  if (residues > 4) left = std::max<std::int64_t>(1, left * 4 / residues);
  if (s.paired) {
    if (axes > 3) tile[1] = best_tile(s.free[1], 4), tile[2] = best_tile(s.free[2], 2);
  } else if (axes > 1) {
    tile[1] = best_tile(s.free[1], left);
    left /= tile[1];
    // Rows of a strided gradient's tile would each guard their own taps: 66 against 18 GFLOP/s (7x7 stride 2, 3 -> 64
    // channels, Zen 3).
    if (axes > 3 && left > 1 && residues == 1) tile[2] = best_tile(s.free[2], std::min(left, 4));
  }

  strips(s, tile, block);
  const bool border = s.padded.defined() && (taps > 1 || w.problem.pad_lo != Problem::Extents{} ||
                                             w.problem.pad_hi != Problem::Extents{});
  preset(k, "tile", tile);
  preset(k, "block", block);
  preset(k, "pad", {border && !s.paired ? 1 : 0});
  preset(k, "stage", {s.paired || s.over_positions ? 0 : 1});
  // Few channels: rows of the tile share what they load where the taps of a column are unrolled side by side. A 5x5 image
  // filter: 72 against 26 GFLOP/s (Zen 3).
  const bool along_space = s.padded.defined() && s.vec.name() == s.padded.name() && !s.over_positions;
  if (along_space && residues == 1 && s.sums[0].extent.size() >= 3) {
    preset(k, "stage", {0});
    preset(k, "order", s.sums[0].extent.size() == 3 ? std::vector<int>{0, 2, 1} : std::vector<int>{0, 2, 1, 3});
    if (s.sums[0].extent[2] <= 7) preset(k, "unroll", {0, 0, -1, 0});
  }
  if (s.paired && sum <= 27 && residues == 1 && !s.over_positions) preset(k, "unroll", {-1, -1, -1, -1});
  return k;
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  Loops l = plan(s, k, w);
  const LoopLevel task = store_tiles(s, k, l);
  for (auto &sum : s.sums) {
    sum.acc.compute_at(s.out, around_tile(l).var);
    std::vector<Reduced> red;
    for (int i = 0; i < sum.red.dimensions(); i++) red.push_back({i, sum.red[i]});
    keep_in_registers(sum.acc, red, s, k, l, k.get("stage", 1));
  }
  copy_padded(s.padded, k, l, task);
}

}  // namespace

extern const Schedule cpu_direct{"cpu_direct", 1, supports, knobs, tile_conflict, apply};

}  // namespace convsmith
