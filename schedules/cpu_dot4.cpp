// cpu_direct for 8-bit operands: four summed channels make one 32-bit lane, so that one instruction multiplies and sums
// four (vpdpbusd, sdot, and vpmaddwd after widening).
//   quad    4: how many summed channels the weights hold side by side
//   offset  1: the data are read 128 less, as s8, for machines that multiply equal signs only
#include "loops.h"

using namespace Halide;

namespace convsmith {
namespace {

bool supports(const Stages &s, const Workload &w) {
  return s.by_fours && s.sums.size() == 1 && !w.target.has_gpu_feature();
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = loop_knobs(s, w);
  std::erase_if(k, [](const Knob &knob) { return knob.name == "order" || knob.name == "copy" || knob.name == "unroll" || knob.name == "stage"; });
  const Machine m = machine(w.target);
  std::vector<int> tile(s.free.size(), 1), block(s.free.size(), 0);
  const int e0 = units(s.free[0]), vectors = e0 >= 2 * m.lanes ? 2 : 1;
  tile[0] = std::min(e0, vectors * m.lanes);
  tile[1] = best_tile(s.free[1], (m.registers - 4) / vectors);
  strips(s, tile, block, w);
  preset(k, "tile", tile);
  preset(k, "block", block);
  k.push_back({"quad", {4}, {4}, {4}});
  k.push_back({"offset", {w.target.arch == Target::ARM}, {0}, {1}});
  return k;
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  Loops l = plan(s, k, w);
  const LoopLevel task = store_tiles(s, k, l);
  Func acc = s.sums[0].acc;
  const RDom red = s.sums[0].red;
  acc.compute_at(s.out, around_tile(l).var);
  const RVar fours(red[0].name() + "_fours"), four(red[0].name() + "_four");
  const Var c = s.free[0].var, lane(c.name() + "_lane");
  Stage update = acc.update(0);
  update.split(red[0], fours, four, 4);
  std::vector<Loop> tile = {c}, sums = {fours};
  for (size_t a = 0; a < s.free.size(); a++) {
    if (a && l.tile_extent[a] == 1) continue;
    acc.bound_extent(s.free[a].var, l.tile_extent[a]);
    if (a) tile.push_back(s.free[a].var);
  }
  for (int i = 1; i < red.dimensions(); i++) sums.push_back(red[i]);
  acc.reorder_storage(storage_order(s.free));
  acc.vectorize(c, l.lanes);
  for (auto &v : tile) acc.unroll(v);
  update.split(c, c, lane, l.lanes);
  update.reorder(join({four, lane}, tile, sums)).atomic().vectorize(lane).vectorize(four);
  for (auto &v : tile) update.unroll(v);
  copy_operand(s.padded, k.get("pad", 1), l, task);
}

}  // namespace

extern const Schedule cpu_dot4{"cpu_dot4", 1, supports, knobs, tile_conflict, apply};

}  // namespace convsmith
