// For a short result and a long reduction: the reduction is cut into blocks that stay in cache; within one, a register
// tile is summed, and then added onto the result. The cut is the problem's, so the same bits come out at any number
// of threads.
//   cut    how much of each axis of the reduction a block holds (0: all of it)
#include "loops.h"
#include <algorithm>
#include <fmt/format.h>

using namespace Halide;

namespace convsmith {
namespace {

// The largest divisor of n that is at most `most`.
int divisor(int n, int most) {
  for (int d = std::min(n, most); d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

bool supports(const Stages &s, const Workload &w) {
  if (s.sums.size() != 1 || !s.over_positions || w.target.has_gpu_feature()) return false;
  std::int64_t sum = 1;
  for (int e : s.sums[0].extent) sum *= e;
  return sum >= 256 && s.sums[0].extent.size() > 1;
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = loop_knobs(s, w);
  const auto &red = s.sums[0].extent;
  Knob cut{"cut", {}, {}, {}};
  for (size_t i = 0; i < red.size(); i++) {
    cut.low.push_back(0), cut.high.push_back(red[i]);
    cut.preset.push_back(1);
  }
  // A block: whole rows, as many as make some 512 positions, or a piece of a long row.
  if (red.size() == 2) cut.preset[0] = divisor(red[0], 512);
  else cut.preset[0] = 0, cut.preset[1] = divisor(red[1], std::max(1, 512 / red[0]));
  if (red.size() == 2 && cut.preset[0] < 64 && red[0] > 64) cut.preset[0] = std::min(red[0], 256);

  const Machine m = machine(w.target);
  const size_t axes = s.free.size();
  std::vector<int> tile(axes, 1), block(axes, 0);
  const int e0 = units(s.free[0]), budget = m.registers - 4;
  int vectors = s.paired ? 1 : std::min(std::max(e0 / m.lanes, 1), 2);
  if (axes > 3) {
    const int kw = units(s.free[2]);
    if (vectors * kw > budget) vectors = 1;
    tile[2] = kw <= budget / vectors ? kw : divisor(kw, budget / vectors);
    const int most = std::max(1, budget / (vectors * tile[2]));
    tile[1] = divisor(units(s.free[1]), most);
    if (tile[1] * 2 <= most && tile[1] * 2 <= units(s.free[1])) tile[1] = most;
    if (s.paired && axes > 4) tile[3] = units(s.free[3]) * tile[2] <= budget ? units(s.free[3]) : 1;
  }
  tile[0] = std::min(e0, vectors * m.lanes);
  // Tasks: a few blocks of the other channels, else of the vector axis.
  if (axes > 1 && units(s.free[1]) >= 4 * tile[1]) {
    const int tiles = (units(s.free[1]) + tile[1] - 1) / tile[1];
    block[1] = (tiles + 3) / 4 * tile[1];
  } else if (e0 >= 2 * tile[0]) {
    block[0] = tile[0];
  }
  preset(k, "tile", tile);
  preset(k, "block", block);
  if (s.paired || !s.padded.defined()) preset(k, "stage", {0}), preset(k, "pad", {0});
  k.push_back(cut);
  return k;
}

std::string conflict(const Stages &s, const Knobs &k, const Workload &w) {
  bool whole = true;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) whole &= k.get("cut", i, 0) == 0;
  if (whole) return "cut=0 for every axis: expected at least one axis of the reduction to be cut";
  bool some = false;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) some |= k.get("cut", i, 0) != 1;
  if (!some) return "cut=1 for every axis: expected at least one axis of the reduction to be summed within a block";
  return tile_conflict(s, k, w);
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  Loops l = plan(s, k, w);
  Func acc = s.sums[0].acc;
  RDom red = s.sums[0].red;

  std::vector<std::pair<RVar, Var>> blocks;
  std::vector<Reduced> inner;
  std::vector<Loop> outer;
  bool even = s.sums[0].known;  // with a short last block, Halide takes what a staged operand reads to run over the edge
  for (int i = 0; i < red.dimensions(); i++) {
    const int cut = k.get("cut", i, 0);
    RVar o = red[i];
    if (cut > 1) {
      RVar in(o.name() + "_in"), out(o.name() + "_block");
      even &= s.sums[0].extent[i] % cut == 0;
      acc.update(0).split(o, out, in, cut, TailStrategy::GuardWithIf);
      inner.push_back({i, in}), o = out;
    }
    if (cut == 0) inner.push_back({i, o});
    else blocks.push_back({o, numbered("part_", i)}), outer.push_back(o);
  }
  Func part = acc.update(0).rfactor(blocks);

  split(Stage(s.out), s, k, l, Tiles::none, true);
  s.out.reorder(join(l.middle, l.block));
  const Var c = s.free[0].var;
  const Loop contiguous = l.block_extent[0] ? Loop(Var(c.name() + "_in_block")) : Loop(c);
  s.out.vectorize(contiguous, l.lanes, TailStrategy::GuardWithIf);
  const LoopLevel task = parallel_tasks(s.out, s, l);

  acc.compute_at(task).vectorize(c, l.lanes);
  split(acc.update(0), s, k, l, Tiles::round_up, false);
  acc.update(0).reorder(join(l.tile, l.middle, outer));
  if (l.lanes > 1) acc.update(0).vectorize(l.tile[0].var, l.lanes);
  for (auto &v : l.tile) acc.update(0).unroll(v);

  part.compute_at(acc, l.middle[0].var);
  keep_in_registers(part, inner, s, k, l, even && k.get("stage", 1));
  copy_padded(s.padded, k, l, LoopLevel(acc, outer[0].rvar));
}

}  // namespace

extern const Schedule cpu_partial_sums{"cpu_partial_sums", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
