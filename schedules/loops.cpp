#include "loops.h"
#include <algorithm>
#include <fmt/format.h>
#include <numeric>

using namespace Halide;

namespace convsmith {

Machine machine(const Target &t) {
  const bool wide = t.has_feature(Target::AVX512_Skylake) || (t.arch == Target::ARM && t.bits == 64) ||
                    t.arch == Target::RISCV;
  return {t.natural_vector_size<float>(), wide ? 32 : 16};
}

std::vector<Loop> join(std::vector<Loop> a, const std::vector<Loop> &b, const std::vector<Loop> &c) {
  a.insert(a.end(), b.begin(), b.end());
  a.insert(a.end(), c.begin(), c.end());
  return a;
}

int units(const Axis &a) { return (a.extent + a.period - 1) / a.period; }

bool all_known(const Stages &s) {
  return std::all_of(s.free.begin(), s.free.end(), [](const Axis &a) { return a.known; });
}

int tiles_along(const Stages &s, const std::vector<int> &tile, size_t axis) { return (units(s.free[axis]) + tile[axis] - 1) / tile[axis]; }

std::int64_t terms(const Stages &s) {
  std::int64_t terms = 1;
  for (const int e : s.sums[0].extent) terms *= e;
  return terms;
}

size_t image_axis(const Stages &s) {
  size_t a = 0;
  while (a < s.free.size() && !s.free[a].images) a++;
  return a;
}

bool open_images(const Stages &s) { return image_axis(s) < s.free.size() && !s.free[image_axis(s)].known; }

int row_stride(const Workload &w) { return int(w.problem.stride[size_t(w.problem.rank) - 1]); }

bool vectors_have_border(const Stages &s) { return s.padded.defined() && s.padded.name() == s.vec.name(); }

bool vectors_lie_apart(const Stages &s, const Workload &w) {
  return s.over_positions && w.problem.layout == Layout::channels_first && vectors_have_border(s);
}

std::int64_t residue_count(const Stages &s) {
  std::int64_t residues = 1;
  for (auto &a : s.free) residues = std::min<std::int64_t>(residues * a.period, 1 << 20);
  return residues;
}

std::int64_t results(const Stages &s) {
  std::int64_t all = residue_count(s);
  for (auto &axis : s.free) all *= units(axis);
  return all;
}

std::vector<Var> storage_order(const std::vector<Axis> &free) {
  std::vector<Var> order;
  for (auto &axis : free) order.push_back(axis.var);
  return order;
}

int divisor(int n, int most) {
  for (int d = std::min(n, most); d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

namespace {

// Whether tiles of so many divide an axis.
bool divides(const Axis &a, int tile) { return tile == 1 || (a.known && units(a) % tile == 0); }

}  // namespace

Loops plan(const Stages &s, const Knobs &k, const Workload &w, Tiles tiles) {
  Loops l;
  l.lanes = k.get("lanes", machine(w.target).lanes);
  for (size_t a = 0; a < s.free.size(); a++) {
    const int extent = units(s.free[a]);
    int most = extent;
    if (a == 0 && tiles == Tiles::round_up) most = (extent + l.lanes - 1) / l.lanes * l.lanes;
    int tile = k.get("tile", a, a == 0 ? l.lanes : 1);
    if (s.free[a].known) tile = std::min(tile, most);
    if (a == 0) {  // whole vectors, or one short one
      if (tile < l.lanes) l.lanes = tile;
      tile -= tile % l.lanes;
    }
    // Where nothing may be read past the end, tiles that may not be shifted inwards must divide the axis.
    const bool even = divides(s.free[a], tile);
    if (!even && !s.free[a].overrun && a > 0 && !s.free[a].known && s.free[a].least < tile) tile = 1;
    if (!even && !s.free[a].overrun && s.over_positions && a > 0)
      while (extent % tile) tile--;
    const int block = k.get("block", a, 0);
    l.tile_extent.push_back(tile);
    // Tiles of panels read past the channels too, and guard their stores.
    const bool past_end = s.free[a].overrun || (a == 0 && s.free[a].repeat > 1 && s.sums.size() == 1 && !s.over_positions);
    l.block_extent.push_back((block < extent || !s.free[a].known) && (even || tile == 1 || past_end) ? block : 0);
  }
  return l;
}

namespace {

// An axis in space known only when run is cut into an even number of blocks of about as many tiles, so that two threads have as many each:
// 3x3, 64 channels at 56x56, on two threads, 667 against 770 us (Emerald Rapids).
Expr tiles_of_a_block(const Axis &axis, int tile, int about) {
  if (axis.known || about == 1 || axis.images) return about;
  const Expr tiles = (axis.size + axis.period * tile - 1) / (axis.period * tile), halves = max(1, (tiles + about) / (2 * about));
  return (tiles + 2 * halves - 1) / (2 * halves);
}

// Whether the last tile of an axis may be shifted inwards over its neighbour, whose stores it repeats.
bool shifts(const Axis &axis, Tiles tiles, bool blocked) {
  return !blocked && axis.repeat == 1 && (axis.known || axis.least > 1 || (tiles == Tiles::fitting && axis.period == 1));
}

}  // namespace

void split(Stage stage, const Stages &s, const Knobs &k, Loops &l, Tiles tiles, bool blocks) {
  l.tile.clear(), l.residue.clear(), l.middle.clear(), l.block.clear();
  std::vector<Loop> rest;
  for (size_t a = 0; a < s.free.size(); a++) {
    Var v = s.free[a].var;
    auto level = [&](const char *suffix) { return Var(s.free[a].var.name() + suffix); };
    const int tile = tiles == Tiles::none ? 1 : l.tile_extent[a];
    const bool blocked = blocks && l.block_extent[a];
    const bool tiled = tile > 1 || (a == 0 && tiles != Tiles::none), strided = s.free[a].period > 1;
    if (strided && tiled && !s.free[a].known) {  // by one guard
      Var outer = level("_tile"), both = level("_of_tile"), inner = level("_in_tile"), residue = level("_residue");
      stage.split(v, outer, both, tile * s.free[a].period, TailStrategy::GuardWithIf).split(both, inner, residue, s.free[a].period);
      l.tile.push_back(inner), l.residue.push_back(residue), v = outer;
    } else {
      if (strided) {
        Var of = level("_of_period"), residue = level("_residue");
        stage.split(v, of, residue, s.free[a].period, TailStrategy::GuardWithIf);
        l.residue.push_back(residue), v = of;
      }
      if (tiled) {
        Var outer = level("_tile"), inner = level("_in_tile");
        stage.split(v, outer, inner, tile,
                    tiles == Tiles::round_up            ? TailStrategy::RoundUp
                    : shifts(s.free[a], tiles, blocked) ? TailStrategy::ShiftInwards
                                                        : TailStrategy::GuardWithIf);
        l.tile.push_back(inner), v = outer;
      }
    }
    if (blocked) {
      Var outer = level("_block"), inner = level("_in_block");
      stage.split(v, outer, inner, tiles_of_a_block(s.free[a], tile, std::max(1, l.block_extent[a] / tile)), TailStrategy::GuardWithIf);
      l.block.push_back(outer), v = inner;
    }
    rest.push_back(v);
  }
  // Neighbours in space first and the vector axis last: a block's input is walked once for each group of vectors,
  // and that group's weights stay near.
  for (size_t a = 0; a < rest.size(); a++) l.middle.push_back(rest[k.get("loops", a, int((a + 1) % rest.size()))]);
}

LoopLevel parallel_tasks(Func f, Stage stage, const Stages &s, const Loops &l) {
  if (l.block.empty()) return LoopLevel::root();
  Var task = l.block[0].var;
  for (size_t i = 1; i < l.block.size(); i++) {
    const Var next = numbered("task", i);
    stage.fuse(task, l.block[i], next);
    task = next;
  }
  // Blocks of small passes are there for what is copied of each.
  if (tasks(s) == 1 && !s.over_positions && !open_images(s)) return LoopLevel(f, task);
  stage.parallel(task);
  // Halide sets the tasks at the borders apart, and leaves their loops whole. Where it cannot tell how many those are,
  // the rows within a task are better set apart: 117 against 132 us (depthwise 3x3, 64 channels, 112x112, Zen 5).
  if (!all_known(s)) stage.partition(task, Partition::Never);
  return LoopLevel(f, task);
}

void keep_overrun(Func acc, const Stages &s, const Loops &l) {
  for (size_t a = 0; a < s.free.size(); a++)
    if ((s.over_positions || l.block_extent[a]) && s.free[a].known && l.tile_extent[a] > 1) acc.align_extent(s.free[a].var, l.tile_extent[a]);
}

void keep_in_registers(Func acc, const std::vector<Reduced> &red, Stages &s, const Knobs &k, const Loops &l, bool stage) {
  std::vector<Loop> tile, sums;
  for (size_t a = 0; a < s.free.size(); a++)
    if (a == 0 || l.tile_extent[a] > 1) {
      acc.bound_extent(s.free[a].var, l.tile_extent[a]);  // constant trip counts, in tails too
      tile.push_back(s.free[a].var);
    }
  for (size_t i = 0; i < s.sums[0].extent.size(); i++)
    for (auto &r : red)
      if (r.axis == k.get("order", i, int(i))) sums.push_back(r.var);
  acc.reorder_storage(storage_order(s.free));
  Stage update = acc.update(0);
  update.reorder(join(tile, sums));
  for (Stage loops : {Stage(acc), update}) {
    if (l.lanes > 1) loops.vectorize(s.free[0].var, l.lanes);
    for (auto &v : tile) loops.unroll(v);
  }
  for (auto &r : red) {
    const int factor = k.get("unroll", size_t(r.axis), 0);
    if (factor < 0) update.unroll(r.var);
    if (factor > 1) update.unroll(r.var, factor, TailStrategy::GuardWithIf);
  }
  if (stage) {
    Func registers = s.vec.in(acc);
    registers.compute_at(acc, sums[0].rvar);
    registers.vectorize(registers.args()[0], l.lanes).unroll(registers.args()[0]);
  }
}

// Ten sums hide the latency of a multiply-add and its loads. At AVX2, two vectors by six positions instead of three by four:
// 3x3, 64 channels at 56x56: 1,939 against 2,042 us; 1x1, 256 -> 64 channels: 861 against 916 (Zen 5).
int best_tile(const Axis &axis, int most, int beside) {
  if (!axis.known) return std::max(1, most);
  const int extent = units(axis);
  int best = 1;
  double best_score = 0;
  for (int t = 1; t <= std::min(most, extent); t++) {
    const int tiles = (extent + t - 1) / t;
    const double score = double(extent) / (double(tiles) * t) * (t / (t + 0.6)) * std::min(1., t * beside / 10.);
    if (score >= best_score) best = t, best_score = score;
  }
  return best;
}

// Tiles that leave few lanes and few channels to waste and load little for each multiply-add: two vectors by thirteen channels,
// three by eight, four by six. 1x1, 16 -> 96 channels at 112x112, n=8: 1.9 against 2.9 ms for two by eight; 24 -> 144 at 56x56 0.72
// against 0.98; 64 -> 256 4.4 against 4.8. Four vectors that are the whole row leave it to the other side to be read by long lines:
// 256 -> 64 5.2 against 4.8, but 3x3, 3 -> 64 at 224x224, 8.2 against 12.6 ms (Zen 5).
// Of many channels taps only where there are more than a stride, so that the next position reads them again: in a line, 20 taps with stride
// 10, 256 <- 512 channels, 4.1 against 12 ms, but one channel, ten taps with stride 5, 665 against 413 us (Emerald Rapids).
SumTile tile_by_loads(const Stages &s, const Workload &w) {
  const Machine m = machine(w.target);
  const int all = (units(s.free[0]) + m.lanes - 1) / m.lanes;
  const bool taps = s.free.size() > 3;
  SumTile best;
  double best_score = 0;
  for (int v = 1; v <= std::min(all, s.paired ? 1 : 4); v++) {
    if (v == 4 && all < 8 && (!taps || units(s.free[1]) >= 16)) continue;
    const int budget = (m.registers - 4 - 2 * std::max(0, v - 2)) / v;
    SumTile t{v};
    if (taps) {
      const int row = units(s.free[2]), taps_of_tile = row <= budget ? row : divisor(row, budget);
      if (taps_of_tile > row_stride(w) || units(s.free[1]) < 8) t.taps = taps_of_tile;
      if (v > 2 && row > 1 && taps_of_tile == 1) continue;
      t.channels = best_tile(s.free[1], std::max(1, budget / t.taps));
    }
    const double other = t.channels * t.taps, sums = v * other, channels = taps ? units(s.free[1]) : 1;
    const double computed = (all + v - 1) / v * v * double((int(channels) + t.channels - 1) / t.channels * t.channels);
    const double score = all * channels / computed * sums / (sums + 0.5 * (v + other));
    if (score > best_score) best = t, best_score = score;
  }
  return best;
}

int tiles_of_a_task(std::int64_t tiles, std::int64_t tasks, std::int64_t most_tasks) {
  if (tasks <= 1) return int(tiles);
  const std::int64_t most = (tiles + tasks - 1) / tasks, least = most_tasks ? (tiles + most_tasks - 1) / most_tasks : (most + 1) / 2;
  std::int64_t best = most, earliest = tiles + 1;
  for (std::int64_t each = most; each >= least; each--) {
    const std::int64_t first_half = (tiles + each - 1) / each / 2 * each, end = std::max(first_half, tiles - first_half);
    if (end < earliest) best = each, earliest = end;
  }
  return int(best);
}

int channels_of_a_task(const Stages &s, const std::vector<int> &tile, const Workload &w) {
  const int tiles = tiles_along(s, tile, 1), lanes = machine(w.target).lanes;
  if (tiles < 4) return 0;
  const int share = tiles_of_a_task(tiles, tasks(s)) * tile[1];
  // Each task copies its channels with their border, by whole vectors.
  return worth_padding(s, w) && share < lanes ? (lanes + tile[1] - 1) / tile[1] * tile[1] : share;
}

int groups_of_a_task(const Stages &s) {
  const int groups = units(s.free.back());
  if (s.paired || groups < 4 || tasks(s) == 1) return 0;
  // About as many as fill a line of memory, and are worth a task.
  const std::int64_t channels = units(s.free[0]), of_one = std::max<std::int64_t>(1, results(s) / groups * terms(s));
  const std::int64_t want = std::max((15 + channels) / channels, 100'000 / of_one);
  return tiles_of_a_task(groups, std::max<std::int64_t>(4, groups / want));
}

bool reads_border(const Workload &w) {
  const Problem &p = w.problem;
  const bool backwards = w.pass == (p.op == Op::transposed ? PassKind::forward : PassKind::input_gradient);
  for (size_t a = 0; a < size_t(p.rank); a++)
    if (p.pad_lo[a] > 0 || p.pad_hi[a] > 0 || (backwards && (p.kernel[a] > 1 || p.pad_lo[a] || p.pad_hi[a]))) return true;
  return false;
}

bool worth_padding(const Stages &s, const Workload &w) {
  const bool gathered = vectors_lie_apart(s, w) && s.vec_position == 0;
  return s.padded.defined() && (reads_border(w) || (!one_tap(w) && vectors_have_border(s)) || gathered);
}

bool transposes(const Stages &s, const Workload &w) {
  return s.over_positions && s.padded.defined() && w.problem.layout == Layout::channels_first && units(s.free[0]) > 1 &&
         s.vec_position > 0 && !(vectors_have_border(s) && worth_padding(s, w));
}

bool one_tap(const Workload &w) {
  const auto &kernel = w.problem.kernel;
  return std::all_of(kernel.begin(), kernel.begin() + w.problem.rank, [](std::int64_t k) { return k == 1; });
}

bool summed_in_place(const Stages &s, const Workload &w) {
  return s.over_positions && !s.paired && w.problem.layout == Layout::channels_last && s.free.size() > 1 && !reads_border(w) && one_tap(w);
}

bool crowds_cache(int channels, std::int64_t positions) { return positions * (channels & -channels) >= 384 * 1024; }

int unrolled_positions(int row) {
  const int d = divisor(row, 8);
  return d > 1 ? d : 0;
}

int tasks(const Stages &s) {
  std::int64_t work = terms(s);
  for (auto &a : s.free) work *= a.extent;
  if (s.free[0].extent < 8) work = work / s.free[0].extent * 8;  // a short vector takes as long
  return work < 400'000 ? 1 : int(std::min<std::int64_t>(std::max<std::int64_t>(work / 4'000'000, 4), 16));
}

int images_of_a_task(const Stages &s) {
  const std::int64_t of_one = std::max<std::int64_t>(1, results(s) * terms(s));
  return int(std::max<std::int64_t>(1, std::min<std::int64_t>(1024, 100'000 / of_one)));
}

void strips(const Stages &s, const std::vector<int> &tile, std::vector<int> &block, const Workload &w) {
  const std::int64_t sum = terms(s);
  std::int64_t positions = 1;
  for (auto &a : s.free) positions *= a.extent;
  const size_t n_axis = s.free.size() - 2;
  const int n = s.free[n_axis].extent;
  // Where their number is known only when run images are shared out too, of small ones as many to a task as are worth it.
  const bool open_batch = open_images(s) && s.free[n_axis].images, small = tasks(s) == 1;
  if (open_batch && tile[n_axis] == 1) block[n_axis] = small ? images_of_a_task(s) : 1;
  // Of a dense layer whose weights are read from panels, groups of channels.
  if (open_batch && small && tile[n_axis] > 1 && read_from_panels(w)) block[0] = tiles_of_a_task(tiles_along(s, tile, 0), 4) * tile[0];
  if (small) return;
  // Where only images share the weights, each task reads those of some channels, if these are whole tiles.
  if (tile[n_axis] > 1 && (units(s.free[0]) % tile[0] == 0 || read_from_panels(w))) {
    block[0] = tiles_of_a_task(tiles_along(s, tile, 0), tasks(s)) * tile[0];
    return;
  }
  if (n > 1) block[n_axis] = tile[n_axis];
  // A strip holds about 64 Ki elements of result and as many sums at the most; of an image's rows half of that, as they are
  // copied with their border first. 3x3 at 3840x2160: 2.7 against 3.0 ms (Zen 5).
  const bool along_space = vectors_have_border(s);
  std::int64_t wanted = std::max<std::int64_t>(tasks(s) / n, positions / n / ((along_space ? 32 : 64) * 1024));
  // In a line what is copied stays in L2, many channels of it too: 1 <- 256 channels, 10 taps, stride 5, n=8: 9.0 against 13 ms.
  if (along_space && n_axis == 2) wanted = std::max<std::int64_t>(wanted, std::int64_t(units(s.free[0])) * s.sums[0].extent[0] / (32 * 1024));
  if (wanted <= 1) return;
  size_t axis = 0;  // the outermost in space that has many tiles, where plan() cuts it
  for (size_t a = n_axis - 1; a >= 1 && !axis; a--) {
    const bool cut = s.free[a].overrun || !s.free[a].known || divides(s.free[a], tile[a]);
    if (cut && (units(s.free[a]) >= 8 * tile[a] || (a > 1 && units(s.free[a]) >= 4))) axis = a;
  }
  // Strips of rows read all of the weights each, groups of channels all of the other operand.
  // Extents known only when run are then taken for those of networks, where the other operand has some 200,000 elements: 3x3, 512
  // channels at 14x14, 5.2 against 6.2 ms, at 7x7 2.4 against 2.8, 256 at 56x56 as long (Emerald Rapids).
  const bool open = n_axis > 1 && !s.free[1].known;
  const std::int64_t channels = units(s.free[0]), weights = channels * sum, other = open ? 200'000 : positions / channels * s.sums[0].extent[0] * (open_batch ? 8 : 1);
  if (!along_space && s.padded.defined() && !s.paired && other < weights && channels % tile[0] == 0 && channels >= 4 * tile[0]) axis = 0;
  const int tiles = tiles_along(s, tile, axis);
  if (tiles > 1) block[axis] = tiles_of_a_task(tiles, wanted, axis == 0 ? 0 : std::max<std::int64_t>(16, 2 * wanted)) * tile[axis];
}

namespace {

LoopLevel store_tiles(Stage stage, Stages &s, const Knobs &k, Loops &l, Tiles tiles) {
  split(stage, s, k, l, tiles, true);
  std::vector<Loop> store = l.tile;
  int lanes = l.lanes;
  if (s.dense && l.tile_extent[s.dense] > 1) {  // the tile is transposed on its way to memory
    int at = 0;  // among the axes that are tiled
    for (int a = 1; a <= s.dense; a++) at += l.tile_extent[a] > 1;
    std::rotate(store.begin(), store.begin() + at, store.begin() + at + 1);
    for (lanes = l.lanes; l.tile_extent[s.dense] % lanes; lanes--) {}
  }
  stage.reorder(join(join(store, l.residue), l.middle, l.block));
  if (lanes > 1) stage.vectorize(store[0], lanes);
  for (auto &v : join(store, l.residue)) stage.unroll(v);
  return parallel_tasks(s.out, stage, s, l);
}

}  // namespace

LoopLevel store_tiles(Stages &s, const Knobs &k, Loops &l, const Stage *branch) {
  if (branch) return store_tiles(*branch, s, k, l, Tiles::whole);
  // Axes known only when run may be shorter than a tile. Where they are not, the last tile of short sums had better be shifted
  // inwards, than guard each of its loads and stores: 64 channels at 28x28: 3.9 against 4.3 us, of fixed extents 3.7; at
  // 112x112 87 against 91 (Zen 5). And where the first tile of a row cannot meet its other end too, most of its taps need no guards:
  // 3x3, 3 -> 32 channels at 224x224, stride 2, read in place 131 against 148 us (Emerald Rapids).
  const auto must_fit = [&](size_t a) {
    return !s.free[a].known && l.tile_extent[a] > 1 && shifts(s.free[a], Tiles::fitting, l.block_extent[a] != 0);
  };
  const bool rows_in_place = !s.paired && !s.over_positions && s.padded.defined() && k.get("pad", 1) == 0 && s.free.size() > 1 && must_fit(1);
  Expr fits;
  for (size_t a = 0; a < s.free.size() && (s.paired || rows_in_place); a++)
    if (must_fit(a)) {
      const Expr this_one = s.free[a].size >= l.tile_extent[a] + (rows_in_place && a == 1);
      fits = fits.defined() ? fits && this_one : this_one;
    }
  if (fits.defined()) store_tiles(s.out.specialize(fits), s, k, l, Tiles::fitting);
  return store_tiles(Stage(s.out), s, k, l, Tiles::whole);
}

Loop around_tile(const Loops &l) { return (l.residue.empty() ? l.middle : l.residue)[0]; }

LoopLevel around_vectors(const Stages &s, const Loops &l) {
  return LoopLevel(s.out, Var(s.free[0].var.name() + (l.block_extent[0] ? "_in_block" : "_tile")));
}

void copy_operand(Func f, int how, const Loops &l, const LoopLevel &task, Func lines) {
  if (how == 0 || !f.defined()) return;
  if (how == 1 || how == 4) f.compute_at(task);
  else f.compute_root().parallel(f.args()[f.dimensions() - 2]);
  f.vectorize(f.args()[0], l.lanes);
  vectorize_rows(f, l.lanes, lines);
  for (int u = 0; how == 2 && f.dimensions() > 4 && u < f.num_update_definitions(); u++) f.update(u).parallel(f.args()[f.dimensions() - 2]);
}

void vectorize_rows(Func f, int lanes, Func lines) {
  if (!f.has_update_definition()) return;
  if (lines.defined()) {
    const Var c = lines.args()[0], channels(c.name() + "_outer"), channel(c.name() + "_inner");
    const RVar row = f.rvars(0)[0], piece(row.name() + "_piece"), x(row.name() + "_x");
    f.update(0).split(row, piece, x, lanes, TailStrategy::GuardWithIf).split(c, channels, channel, lanes).reorder(x, channel, piece, channels);
    f.update(0).vectorize(x).unroll(channel);
    // One copy of these loops, not one for each part of the image.
    for (size_t a = 3; a < f.args().size(); a++) f.update(0).partition(f.args()[a], Partition::Never);
    lines.compute_at(f, piece).bound_extent(c, lanes).bound_extent(lines.args()[2], lanes).vectorize(c).unroll(lines.args()[2]);
  }
  for (int u = 0; u < f.num_update_definitions(); u++) {
    const RVar along = f.rvars(u)[0];
    const auto extent = as_const_int(f.function().update(u).schedule().rvars()[0].extent);
    const bool zeros = u > 0 && f.rvars(u).size() == 1 && extent && *extent % lanes == 0;
    if (zeros || (u == 0 && !lines.defined())) f.update(u).vectorize(along, lanes, TailStrategy::GuardWithIf);
  }
  f.align_bounds(f.args()[0], lanes);
}

void copy_transposed(Stages &s, const Loops &l, const LoopLevel *block) {
  const std::vector<Var> v = s.vec.args();
  const Var channels = v[0], along = v[size_t(s.vec_position)], tile(channels.name() + "_tile"), piece(along.name() + "_tile");
  Func copy = s.vec.in();
  const Var outermost = v[v.size() - 2];  // in space
  copy.split(channels, tile, channels, l.lanes, TailStrategy::RoundUp).split(along, piece, along, l.lanes, TailStrategy::RoundUp);
  std::vector<VarOrRVar> order = {channels, along, piece, tile};
  for (auto &rest : v)
    if (rest.name() != channels.name() && rest.name() != along.name()) order.push_back(rest);
  copy.reorder(order).vectorize(channels);
  // Positions that lie a multiple of 2 KiB apart would share a set or two of L1: 1x1, 256 -> 512 channels at 56x56, stride 2, 2.1
  // against 2.5 ms (Emerald Rapids).
  if (const int wide = units(s.free[0]); wide % 512 == 0) copy.align_storage(copy.args()[0], wide + l.lanes);
  if (block) copy.compute_at(*block);
  else copy.compute_root().parallel(outermost.name() == along.name() ? piece : outermost);
  std::vector<Var> memory = v;
  memory.erase(memory.begin() + s.vec_position), memory.insert(memory.begin(), along);
  s.vec.compute_at(copy, piece).reorder_storage(memory).vectorize(along, l.lanes);
  if (vectors_have_border(s)) s.padded = Func();
  s.vec = copy;
}

std::vector<int> inner_first(const Stages &s) {
  std::vector<int> axes(s.free.size());
  std::iota(axes.begin(), axes.end(), 0);
  return axes;
}

std::vector<Knob> loop_knobs(const Stages &s, const Workload &w) {
  const int lanes = machine(w.target).lanes;
  const size_t axes = s.free.size();
  std::vector<Knob> k(9);
  k[0] = {"lanes", {lanes}, {1}, {lanes}, false, {std::max(1, lanes / 4)}};
  k[1] = {"tile", {}, {}, {}};
  k[2] = {"block", {}, {}, {}};
  k[3] = {"loops", {}, {}, {}, true};
  for (size_t a = 0; a < axes; a++) {
    const int extent = units(s.free[a]);
    k[1].preset.push_back(a == 0 ? std::min(lanes, extent) : 1);
    k[1].low.push_back(1), k[1].high.push_back(a == 0 ? std::min(8, (extent + lanes - 1) / lanes) * lanes : s.free[a].known ? std::min(extent, 28) : 28);
    k[1].unit.push_back(a == 0 ? lanes : 1);
    k[2].preset.push_back(0), k[2].low.push_back(0), k[2].high.push_back(s.free[a].known ? extent : std::max(extent, 1024));
    k[3].preset.push_back(int((a + 1) % axes)), k[3].high.push_back(extent);
  }
  k[4] = {"order", {}, {}, {}, true};
  k[5] = {"unroll", {}, {}, {}};
  const auto &red = s.sums[0].extent;
  for (size_t i = 0; i < red.size(); i++) {
    k[4].preset.push_back(int(i)), k[4].high.push_back(red[i]);
    // Wholly only where it stays small: a long axis would be unrolled into megabytes.
    k[5].preset.push_back(0), k[5].low.push_back(red[i] <= 16 && s.sums[0].known ? -1 : 0), k[5].high.push_back(8);
  }
  k[6] = {"stage", {1}, {0}, {1}};
  const bool squares_of_padded = vectors_have_border(s) && transposes(s, w);
  k[7] = {"pad", {squares_of_padded ? 0 : 1}, {0}, {squares_of_padded ? 0 : 2}};
  k[8] = {"copy", {0}, {0}, {!s.over_positions || (vectors_have_border(s) && !squares_of_padded) ? 0 : s.vec_position > 0 ? 4 : 2}};
  return k;
}

std::string tile_conflict(const Stages &s, const Knobs &k, const Workload &w) {
  const Loops l = plan(s, k, w);
  std::int64_t vectors = l.tile_extent[0] / std::max(1, l.lanes);
  for (size_t a = 1; a < s.free.size(); a++) vectors *= l.tile_extent[a];
  for (auto &axis : s.free) vectors *= axis.period > 1 ? axis.period : 1;  // residues are unrolled around the tile
  std::int64_t taps = 1;
  for (size_t i = 0; i < s.sums[0].extent.size(); i++) {
    const int factor = k.get("unroll", i, 0);
    taps *= factor < 0 ? s.sums[0].extent[i] : std::max(1, factor);
  }
  const int most = 4 * machine(w.target).registers;
  if (vectors > most && vectors > 1)
    return fmt::format("a tile of {} vectors: expected at most {}, four times the registers", vectors, most);
  if (vectors * taps > 4096) return fmt::format("{} unrolled multiplications: expected at most 4096", vectors * taps);
  return "";
}

void preset(std::vector<Knob> &knobs, const std::string &name, std::vector<int> values) {
  for (auto &k : knobs)
    if (k.name == name)
      for (size_t i = 0; i < k.preset.size() && i < values.size(); i++)
        k.preset[i] = k.permutation ? values[i] : std::min(std::max(values[i], k.low[i]), k.high[i]);
}

}  // namespace convsmith
