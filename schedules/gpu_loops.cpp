#include "gpu_loops.h"
#include "bounds.h"
#include <algorithm>
#include <fmt/format.h>
#include <sstream>

using namespace Halide;

namespace convsmith {
namespace {

// Innermost first. Of the threads, the first loop is the one whose neighbours are in one warp.
struct GpuLoops {
  std::vector<int> tile_extent, threads;
  std::vector<Loop> tile, thread, residue, block;
};

GpuLoops plan(const std::vector<Axis> &free, const Knobs &k) {
  GpuLoops l;
  for (size_t a = 0; a < free.size(); a++) {
    // What is shifted inwards must fit once. Past the end of an open axis nothing may be read but an exterior.
    const int extent = units(free[a]);
    const bool open = !free[a].known;
    l.tile_extent.push_back(open && !free[a].overrun ? 1 : std::min(k.get("tile", a, 1), extent));
    l.threads.push_back(open && !free[a].overrun ? 1 : std::max(1, std::min(k.get("thread", a, 1), extent / l.tile_extent[a])));
  }
  return l;
}

// Splits the free axes of a stage. grid: the stage covers the whole axis, else what a block holds of it.
void split(Stage stage, const std::vector<Axis> &free, GpuLoops &l, bool grid) {
  l.tile.clear(), l.thread.clear(), l.residue.clear(), l.block.clear();
  for (size_t a = 0; a < free.size(); a++) {
    Var v = free[a].var;
    const auto level = [&](const char *suffix) { return Var(free[a].var.name() + suffix); };
    if (grid) {
      if (free[a].period > 1) {
        const Var of = level("_of_period"), residue = level("_residue");
        stage.split(v, of, residue, free[a].period, TailStrategy::GuardWithIf);
        l.residue.push_back(residue), v = of;
      }
      const Var block = level("_block"), in = level("_in_block");
      stage.split(v, block, in, l.tile_extent[a] * l.threads[a], free[a].known ? TailStrategy::ShiftInwards : TailStrategy::GuardWithIf);
      l.block.push_back(block), v = in;
    }
    if (l.tile_extent[a] > 1) {
      const Var outer = level("_tile"), inner = level("_in_tile");
      stage.split(v, outer, inner, l.tile_extent[a], TailStrategy::RoundUp);
      l.tile.push_back(inner), v = outer;
    }
    // The first axis always has a thread loop, so that every kernel has one.
    (l.threads[a] > 1 || a == 0 ? l.thread : l.block).push_back(v);
  }
}

// Vectors of four, or two: what OpenCL has.
int width(int tile) { return tile % 4 == 0 ? 4 : tile % 2 == 0 ? 2 : 1; }

// Straight-line code, with vectors along loop `vector` (-1: none).
void unroll_tile(Stage stage, const std::vector<Loop> &tile, int vector, int extent) {
  for (size_t i = 0; i < tile.size(); i++) {
    if (int(i) == vector && width(extent) > 1) stage.vectorize(tile[i].var, width(extent));
    stage.unroll(tile[i].var);
  }
}

// Keeps one register tile of acc over the loops `red` of its update, innermost first. No vectors in the arithmetic: they gain
// nothing in registers, and strided ones become widths that OpenCL has not. `staged`: the operands that are loaded into registers
// a few steps of the reduction at a time; `fours`: as vectors along dimension 0.
void keep_in_registers(Func acc, std::vector<RVar> red, const GpuKernel &g, const Knobs &k, const GpuLoops &l, int inner_extent,
                       const std::vector<Func> &staged, bool fours) {
  std::vector<Loop> tile, sums;
  for (size_t a = 0; a < g.free.size(); a++) {
    acc.bound_extent(g.free[a].var, l.tile_extent[a]);
    if (l.tile_extent[a] > 1) tile.push_back(g.free[a].var);
  }
  acc.reorder_storage(storage_order(g.free)).store_in(MemoryType::Register);
  Stage update = acc.update(0);
  const int unroll = divisor(inner_extent, k.get("unroll", 4));  // a guard inside the innermost loop would cost more than it gains
  if (unroll > 1) {
    const RVar in(red[0].name() + "_few"), out(red[0].name() + "_many");
    update.split(red[0], out, in, unroll, TailStrategy::GuardWithIf);
    sums.push_back(in), red[0] = out;
  }
  for (auto &r : red) sums.push_back(r);
  update.reorder(join(tile, sums));
  unroll_tile(acc, tile, -1, 1);
  unroll_tile(update, tile, -1, 1);
  update.never_partition_all();
  if (unroll > 1) update.unroll(sums[0].rvar);
  for (Func operand : staged) {
    Func registers = operand.in(acc);
    registers.compute_at(acc, red[0]).store_in(MemoryType::Register);
    if (fours) registers.vectorize(registers.args()[0], 4);
    for (auto &v : registers.args()) registers.unroll(v);
  }
}

// The loops of a reduction as the knob order has them: places in `red`.
std::vector<size_t> ordered(const GpuKernel::Part &sum, const Knobs &k) {
  std::vector<size_t> places;
  int axes = 0;
  for (auto &r : sum.red) axes = std::max(axes, r.axis + 1);
  for (int i = 0; i < axes || places.size() < sum.red.size(); i++)
    for (size_t at = 0; at < sum.red.size(); at++)
      if (sum.red[at].axis == k.get("order", size_t(i), i)) places.push_back(at);
  return places;
}

// A chunk divides its axis: Halide takes a guarded loop over a reduction to run over the edge, so that a copy outside the
// guard would read past the operand.
int chunk_of(const Knobs &k, size_t axis, int extent) {
  const int want = k.get("chunk", axis, 0);
  return want == 0 ? extent : divisor(extent, want);
}

// Copies an operand into shared memory with all threads of the block.
Func staged(Func operand, const Func &reader, const LoopLevel &at, const GpuLoops &l, bool vectors) {
  Func copy = operand.in(reader);
  copy.compute_at(at).store_in(MemoryType::GPUShared);
  const std::vector<Var> args = copy.args();
  Var all = args[0];
  std::vector<Loop> order;
  if (vectors) {
    const Var lane(copy.name() + "_vector"), rest(copy.name() + "_vectors");
    copy.split(all, rest, lane, 4, TailStrategy::RoundUp).vectorize(lane);
    order.push_back(lane), all = rest;
  }
  for (size_t i = 1; i < args.size(); i++) {
    const Var next(copy.name() + "_all" + std::to_string(i));
    copy.fuse(all, args[i], next);
    all = next;
  }
  std::vector<Var> lanes;
  for (size_t a = 0; a < l.threads.size(); a++) {
    if (l.threads[a] == 1 && a) continue;
    const Var lane(copy.name() + "_lane" + std::to_string(a)), rest(copy.name() + "_rest" + std::to_string(a));
    copy.split(all, rest, lane, l.threads[a], TailStrategy::GuardWithIf);
    lanes.push_back(lane), order.push_back(lane), all = rest;
  }
  order.push_back(all);
  copy.reorder(order);
  for (auto &v : lanes) copy.gpu_threads(v);
  copy.never_partition_all();
  return copy;
}

// Halide has no registers that live across a block's barriers. So the sum is in shared memory, each thread owning its tile of
// it, and is touched once a chunk: the chunk's own sum is in registers.
void sum_by_chunks(GpuKernel &g, const GpuKernel::Part &sum, const Knobs &k, const GpuLoops &l, const Var &grid) {
  Func acc = sum.acc;
  std::vector<std::pair<RVar, Var>> chunks;
  std::vector<RVar> inner;
  std::vector<Loop> outer;
  int inner_extent = 0;
  for (const size_t at : ordered(sum, k)) {
    const int extent = sum.extent[at], chunk = chunk_of(k, size_t(sum.red[at].axis), extent);
    RVar o = sum.red[at].var;
    if (chunk > 1 && chunk < extent) {
      const RVar in(o.name() + "_in"), out(o.name() + "_chunk");
      acc.update(0).split(o, out, in, chunk);
      inner.push_back(in), o = out;
    } else if (chunk == extent) {
      inner.push_back(o);
    }
    if (inner.size() == 1 && !inner_extent) inner_extent = chunk;
    if (chunk < extent) chunks.push_back({o, numbered("chunk_", int(at))}), outer.push_back(o);
  }
  Func part = acc.update(0).rfactor(chunks);
  acc.compute_at(g.store, grid).store_in(MemoryType::GPUShared).reorder_storage(storage_order(g.free));
  GpuLoops m = l;
  for (const bool update : {false, true}) {
    Stage stage = update ? acc.update(0) : Stage(acc);
    split(stage, g.free, m, false);
    stage.reorder(join(join(m.tile, m.thread, m.block), update ? outer : std::vector<Loop>{}));
    unroll_tile(stage, m.tile, l.tile_extent[0] > 1 ? 0 : -1, l.tile_extent[0]);
    for (auto &v : m.thread) stage.gpu_threads(v.var);
    stage.never_partition_all();
  }
  for (size_t a = 0; a < g.free.size(); a++) acc.bound_extent(g.free[a].var, l.tile_extent[a] * l.threads[a]);
  part.compute_at(acc, m.thread[0].var);
  GpuKernel from = g;
  const LoopLevel chunk(acc, outer[0].rvar);
  from.vec = staged(g.vec, part, chunk, l, g.vectors && (l.tile_extent[0] * l.threads[0]) % 4 == 0);
  from.bcast = staged(g.bcast, part, chunk, l, false);
  keep_in_registers(part, inner, from, k, l, inner_extent, {from.vec, from.bcast}, false);
}

bool stages(const GpuKernel::Part &sum, const Knobs &k) {
  if (k.get("chunk", -1) < 0 || !sum.even) return false;
  bool some = false, inner = false;
  for (size_t i = 0; i < sum.extent.size(); i++) {
    const int chunk = chunk_of(k, size_t(sum.red[i].axis), sum.extent[i]);
    some |= chunk < sum.extent[i], inner |= chunk > 1;
  }
  return some && inner;
}

// Of an axis of the reduction, what one kernel sums: a slice where it is cut.
int summed(const Stages &s, const Knobs &k, size_t i) {
  const int extent = s.sums[0].extent[i], cut = k.get("cut", i, 0);
  return cut ? std::min(cut, extent) : extent;
}

// What a block holds in shared memory: the sums, and what a chunk of them reads of both operands.
std::int64_t shared_bytes(const Stages &s, const Knobs &k, const GpuLoops &l) {
  std::int64_t all = 0;
  for (auto &sum : s.sums) {
    std::map<std::string, int> extents;
    std::int64_t bytes = sum.acc.type().bytes();
    for (size_t a = 0; a < s.free.size(); a++)
      bytes *= extents[s.free[a].var.name()] = l.tile_extent[a] * l.threads[a];
    for (size_t i = 0; i < sum.extent.size(); i++) extents[sum.red[int(i)].name()] = chunk_of(k, i, summed(s, k, i));
    all += bytes;
    for (const Func &operand : {s.vec, s.bcast}) {
      const auto region = region_read(sum.acc.update_value(0), operand, extents);
      if (!region) return std::int64_t(1) << 40;
      bytes = operand.type().bytes();
      for (size_t d = 0; d < region->size(); d++) bytes *= d == 0 ? ((*region)[d] + 3) / 4 * 4 : (*region)[d];
      all += bytes;
    }
  }
  return all;
}

std::string text_of(const Expr &e) {
  std::ostringstream text;
  text << e;
  return text.str();
}

// The best of up to `most` pieces of an axis: full blocks, and many.
int best_threads(int extent, int tile, int most) {
  int best = 1;
  double best_score = 0;
  for (int t = 1; t <= std::min(most, extent / tile); t++) {
    const int blocks = (extent + t * tile - 1) / (t * tile);
    const double score = double(extent) / (double(blocks) * t * tile) * (t / (t + 1.));
    if (score >= best_score) best = t, best_score = score;
  }
  return best;
}

// Depthwise, pictures, and sums of a few products.
bool shares_little(const Stages &s) {
  if (s.sums.empty()) return false;
  const bool picture = !s.over_positions && s.free.size() > 1 && units(s.free[1]) == 1 && s.sums[0].extent[0] == 1;
  return s.paired || picture || terms(s) < 32;
}

int unroll_in_fours(const Stages &s) { return s.over_positions ? 4 : s.sums[0].extent[0] % 8 ? 4 : 8; }

}  // namespace

Device device(const Target &t) {
  if (t.has_feature(Target::CUDA)) return {1024, 48 * 1024};
  return {256, 32 * 1024};
}

bool reads_vectors(const Target &t) { return t.has_feature(Target::CUDA); }

bool floats_as_bits(const Workload &w) {
  return w.problem.type == Type::bf16 || (w.problem.type == Type::f16 && !w.target.has_feature(Target::CUDA));
}

void schedule_kernel(GpuKernel &g, const Knobs &k) {
  GpuLoops l = plan(g.free, k);
  split(Stage(g.store), g.free, l, true);
  // The sums of all residues are computed before any is stored: Halide does not see through the loops of a tile which one an
  // element uses.
  g.store.reorder(join(join(l.tile, l.residue, l.thread), l.block));
  int vector = -1;
  const Axis &dense = g.free[size_t(g.dense)];
  // The tile lies along axis 0 in registers: along another it is read with a stride.
  if (g.stores_vectors && dense.known && dense.period == 1 && l.tile_extent[size_t(g.dense)] > 1 && (g.dense == 0 || g.vectors)) {
    vector = 0;
    for (int a = 0; a < g.dense; a++) vector += l.tile_extent[size_t(a)] > 1;
  }
  // Halide joins stores that lie between each other into one: of three times four, which OpenCL and Vulkan have not.
  for (size_t a = 0; a < g.free.size() && !g.vectors; a++)
    if (int(a) != g.dense && l.tile_extent[a] != 1 && l.tile_extent[a] != 2 && l.tile_extent[a] != 4) vector = -1;
  unroll_tile(g.store, l.tile, vector, l.tile_extent[size_t(g.dense)]);
  for (auto &v : l.residue) g.store.unroll(v.var);
  Var grid = l.block[0].var;  // one axis of blocks: CUDA's y and z end at 65,535
  for (size_t i = 1; i < l.block.size(); i++) {
    const Var next = numbered("grid", int(i));
    g.store.fuse(grid, l.block[i].var, next);
    grid = next;
  }
  // Blocks and threads at the borders set apart would be further copies of the code, and threads of one warp would take turns
  // in them.
  g.store.never_partition_all();
  g.store.gpu_blocks(grid);
  for (auto &v : l.thread) g.store.gpu_threads(v.var);

  for (auto &sum : g.sums) {
    if (stages(sum, k)) {
      sum_by_chunks(g, sum, k, l, grid);
      continue;
    }
    std::vector<RVar> red;
    const std::vector<size_t> order = ordered(sum, k);
    for (const size_t at : order) red.push_back(sum.red[at].var);
    sum.acc.compute_at(g.store, l.thread[0].var);
    keep_in_registers(sum.acc, red, g, k, l, sum.extent[order[0]], sum.even ? sum.fours : std::vector<Func>(), true);
  }
}

std::vector<Var> pure_axes(const Func &f, int update) {
  std::vector<Var> axes;
  for (size_t a = 0; a < f.args().size(); a++)
    if (update < 0 || text_of(f.update_args(update)[a]) == f.args()[a].name()) axes.push_back(f.args()[a]);
  return axes;
}

void schedule_elements(Func f, int first, int last) {
  for (int u = first; u <= std::min(last, f.num_update_definitions() - 1); u++) {
    Stage stage = u < 0 ? Stage(f) : f.update(u);
    std::vector<Loop> inner;
    if (u >= 0)
      for (auto &r : f.rvars(u)) inner.push_back(r);
    const std::vector<Var> axes = pure_axes(f, u);
    if (axes.empty()) {
      stage.gpu_single_thread();
      continue;
    }
    stage.reorder(join(inner, {axes.begin(), axes.end()}));
    Var all = axes[0];
    for (size_t i = 1; i < axes.size(); i++) {
      const Var next(f.name() + "_all" + std::to_string(i));
      stage.fuse(all, axes[i], next);
      all = next;
    }
    const Var block(f.name() + "_block"), thread(f.name() + "_thread");
    stage.split(all, block, thread, 64, TailStrategy::GuardWithIf).gpu_blocks(block).gpu_threads(thread).never_partition_all();
  }
}

std::vector<Func> in_fours(const Stages &s, const Sum &sum, const Knobs &k, const Workload &w) {
  std::vector<Func> operands;
  if (!reads_vectors(w.target) || !sum.acc.type().is_float() || k.get("chunk", -1) >= 0) return operands;
  for (auto &axis : s.free)
    if (axis.repeat > 1) return operands;  // an index of what repeats is no constant, and registers have no other
  const GpuLoops l = plan(s.free, k);
  std::map<std::string, int> extents;
  for (size_t a = 0; a < s.free.size(); a++) extents[s.free[a].var.name()] = l.tile_extent[a];
  const int inner = k.get("order", 0), cut = k.get("cut", size_t(inner), 0), extent = sum.extent[size_t(inner)];
  extents[sum.red[inner].name()] = divisor(cut ? std::min(cut, extent) : extent, k.get("unroll", 4));
  for (const Func &operand : {s.vec, s.bcast}) {
    if (!operand.defined()) continue;
    if (const auto region = region_read(sum.acc.update_value(0), operand, extents); region && (*region)[0] % 4 == 0) operands.push_back(operand);
  }
  return operands;
}

bool best_in_fours(const Stages &s, const Workload &w, const std::vector<int> &tile) {
  if (s.sums.empty() || s.paired || !all_known(s) || !s.sums[0].known) return false;
  if (s.over_positions ? w.problem.layout != Layout::channels_last : s.padded.defined() && !s.padded_dense) return false;
  if (s.over_positions ? one_tap(w) && terms(s) >= 16384 : results(s) < std::int64_t(16) * 49152) return false;
  Knobs k;
  k.set("tile", tile), k.set("unroll", {unroll_in_fours(s)});
  return in_fours(s, s.sums[0], k, w).size() == 2;
}

std::vector<Knob> gpu_knobs(const Stages &s, const Workload &w) {
  const size_t axes = s.free.size();
  const bool known = all_known(s);
  const std::vector<int> red = s.sums.empty() ? std::vector<int>{} : s.sums[0].extent;
  const Device d = device(w.target);

  // A block of about 128 threads, each with some sixteen sums. Where these share little of what they read, neighbours read
  // neighbours in memory instead, and a thread's sums lie along the next axis: depthwise 3x3, 144 at 56x56 and n=8, 11 against
  // 29 us; 5x5 of an HD picture 43 against 89, 15x15 154 against 252 (H200).
  const bool alone = shares_little(s);
  // Where threads are few and sums long, many small ones: 3x3, 128 -> 128 at 28x28, 31 against 61 us; 1x1, 1024 -> 256 at 14x14 and
  // n=8, 80 against 124 (H200).
  const bool few = !alone && !s.sums.empty() && !s.over_positions && results(s) < 16 * 32768 && terms(s) >= 512;
  std::vector<int> tile(axes, 1), thread(axes, 1);
  int left = residue_count(s) > 4 ? 1 : alone && terms(s) < 32 ? 8 : few ? 2 : 4, threads = few ? 256 : 128, used = 0;
  for (size_t a = 0; a < axes && used < 3; a++) {
    const int extent = units(s.free[a]);
    if (a == 0) tile[a] = alone || extent < 16 ? 1 : few ? 2 : 4;
    else if (left > 1 && (alone ? extent > 1 : a == 1)) tile[a] = best_tile(s.free[a], std::min(left, extent)), left = 1;
    thread[a] = a == 0 && alone ? std::min(extent, 32) : best_threads(extent, tile[a], a == 0 ? (few ? 32 : 16) : std::min(threads, alone || few ? 8 : 16));
    threads = std::max(1, threads / thread[a]);
    used += thread[a] > 1 || a == 0;
  }
  if (s.over_positions && axes > 3 && units(s.free[2]) <= 4 && !best_in_fours(s, w, tile)) {
    tile[2] = units(s.free[2]), thread[2] = 1;
    if (s.paired) std::fill(thread.begin() + 1, thread.end(), 1), thread[0] = best_threads(units(s.free[0]), 1, 64);
  }
  std::vector<Knob> k;
  k.push_back({"tile", tile, std::vector<int>(axes, 1), {}});
  k.push_back({"thread", thread, std::vector<int>(axes, 1), {}});
  for (auto &a : s.free) k[0].high.push_back(std::min(16, units(a))), k[1].high.push_back(std::min(d.threads, units(a)));
  if (red.empty()) return k;
  Knob chunk{"chunk", {}, {}, red}, order{"order", {}, {}, red, true};
  const bool chunks = known && s.sums[0].known;
  for (size_t i = 0; i < red.size(); i++) {
    chunk.preset.push_back(i == 0 ? -1 : 0), chunk.low.push_back(i == 0 ? -1 : 0);
    if (!chunks) chunk.high[i] = chunk.preset[i];
    order.preset.push_back(int(i)), order.low.push_back(0);
  }
  k.push_back(chunk);
  k.push_back(order);
  k.push_back({"unroll", {1}, {1}, {8}});
  if (s.by_fours && s.sums.size() == 1) k.push_back({"quad", {4}, {0}, {4}, false, {4}});
  return k;
}

void preset_chunks(std::vector<Knob> &k, const Stages &s, const Workload &w) {
  if (shares_little(s) || !s.sums[0].known || !all_known(s) || !s.sums[0].acc.type().is_float()) return;
  Knobs all;
  for (auto &knob : k) all.set(knob.name, knob.preset);
  const GpuLoops l = plan(s.free, all);
  if (best_in_fours(s, w, all.values().at("tile"))) {
    preset(k, "unroll", {unroll_in_fours(s)});
    return;
  }
  if (s.sums.size() != 1) return;
  int of_block = 1;
  for (size_t a = 0; a < s.free.size(); a++) of_block *= l.tile_extent[a] * l.threads[a];
  std::int64_t sum = 1;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) sum *= summed(s, all, i);
  if (of_block < 256 || sum < 32) return;
  const std::vector<std::vector<int>> gathers = {{32, 0, 0, 0}, {16, 0, 0, 0}, {8, 0, 0, 0}, {8, 0, 1, 1}, {8, 1, 1, 1}, {4, 1, 1, 1}},
                                      positions = {{32, 1, 1, 1}, {16, 1, 1, 1}, {8, 1, 1, 1}};
  for (std::vector<int> chunk : s.over_positions ? positions : gathers) {
    chunk.resize(s.sums[0].extent.size());
    for (size_t i = 0; i < chunk.size(); i++) chunk[i] = std::min(chunk[i], s.sums[0].extent[i]);
    all.set("chunk", chunk);
    int held = 1;
    for (size_t i = 0; i < chunk.size(); i++) held *= chunk_of(all, i, summed(s, all, i));
    if (held < 4 || !gpu_conflict(s, all, w).empty()) continue;
    preset(k, "chunk", chunk);
    preset(k, "unroll", {4});
    return;
  }
}

std::string gpu_conflict(const Stages &s, const Knobs &k, const Workload &w) {
  const GpuLoops l = plan(s.free, k);
  std::int64_t threads = 1, tile = 1;
  int axes = 0;
  for (size_t a = 0; a < s.free.size(); a++) threads *= l.threads[a], tile *= l.tile_extent[a] * s.free[a].period, axes += l.threads[a] > 1 || a == 0;
  const Device d = device(w.target);
  if (axes > 3) return "more than one thread along more than three axes";
  if (threads > d.threads) return fmt::format("{} threads: expected at most {} in a block", threads, d.threads);
  if (tile > 128) return fmt::format("a tile of {} sums: expected at most 128 in a thread's registers", tile);
  if (!s.sums.empty() && k.get("chunk", -1) >= 0) {
    if (s.sums.size() > 1) return "chunk: expected a single sum, got one a residue";
    if (const auto bytes = shared_bytes(s, k, l); bytes > d.shared)
      return fmt::format("{} bytes of shared memory: expected at most {}", bytes, d.shared);
  }
  if (const int quad = k.get("quad", 0); quad && quad != 4) return "quad: expected 0 or 4";
  return "";
}

}  // namespace convsmith
