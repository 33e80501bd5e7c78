// For a short result and a long reduction: the reduction is cut into blocks that stay in cache; within one, a register
// tile is summed, and then added onto the result. The cut is the problem's, so the same bits come out at any number
// of threads.
//   strips how many strips of blocks are summed apart from each other, where the result alone has too little to share out
//          (1: none); each `block` of a strip is a task
//   cut    how much of each axis of the reduction a block holds (0: all of it)
//   few    up to so many positions, batch included, where their number is known only when run, are summed at once (0: none)
//   copy   as elsewhere, but 4: by squares that are transposed, for each block where all are whole, else once
#include "loops.h"
#include <algorithm>
#include <fmt/format.h>

using namespace Halide;

namespace convsmith {
namespace {

// About `want` of n: the largest divisor of n that is not much smaller, else all of it where that is not much larger, else
// as nearly equal pieces as there are.
int pieces(int n, int want) {
  const int d = divisor(n, want);
  if (2 * d >= std::min(n, want)) return d;
  if (n <= 2 * want) return 0;
  const int count = (n + want - 1) / want;
  return (n + count - 1) / count;
}

// Blocks of about `cut` of n, of which so many strips hold as many each; 0 where there are none.
int pieces_of_strips(int n, int cut, int strips) {
  const auto even = [&](int d) { return n % d == 0 && n / d % strips == 0; };
  for (int d = cut; d > 0 && 2 * d >= cut; d--)
    if (even(d)) return d;
  for (int d = cut + 1; d <= 2 * cut; d++)
    if (even(d)) return d;
  return 0;
}

constexpr int most_strips = 16;

// Whether how many positions an image has is known only when run: they may be many.
bool open_space(const Workload &w) {
  const auto &in = w.problem.in;
  return std::count(in.begin(), in.begin() + w.problem.rank, run_time) > 0;
}

// Whether only how many images there are is.
bool open_batch(const Stages &s, const Workload &w) { return !s.sums[0].known && !open_space(w); }

// The axis of the reduction with most blocks, and how many; the images where their number is known only when run, and one is too little for
// several tasks or has too few blocks.
std::pair<int, int> most_blocks(const Stages &s, const std::vector<int> &cut, const Workload &w) {
  std::pair<int, int> best = {0, 1};
  for (size_t i = 0; i < cut.size(); i++) {
    const int extent = s.sums[0].extent[i], count = cut[i] ? (extent + cut[i] - 1) / cut[i] : 1;
    if (count > best.second) best = {int(i), count};
  }
  if (open_batch(s, w) && (tasks(s) == 1 || best.second < 4)) return {int(cut.size()) - 1, most_strips};
  return best;
}

bool supports(const Stages &s, const Workload &w) {
  if (s.sums.size() != 1 || !s.over_positions || w.target.has_gpu_feature()) return false;
  const std::int64_t sum = terms(s);
  if (s.sums[0].extent.size() <= 1) return false;
  // What fits one block is summed at once by cpu_direct, but for short vectors, which this one rounds up, and for channels whose
  // lines crowd a cache. 1x1, 512 -> 128 channels at 28x28: 667 against 907 us, 512 -> 256 1,353 against 1,746; but 480 -> 128 613
  // against 588 (Emerald Rapids).
  const Machine m = machine(w.target);
  const int e0 = units(s.free[0]);
  // But not of many results, which it writes, adds to and copies: 21 -> 21 channels, 64x64 taps, 49 terms, 8.7 against 67 ms.
  const bool short_vectors = e0 % m.lanes && e0 < 2 * m.lanes && results(s) <= 128 * 1024;
  const bool crowded = m.registers >= 32 && summed_in_place(s, w) && (crowds_cache(e0, sum) || crowds_cache(units(s.free[1]), sum));
  return sum >= 1024 || open_space(w) || (open_batch(s, w) && sum >= 32) || crowded || (sum >= 32 && (s.paired || short_vectors));
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = loop_knobs(s, w);
  const auto &red = s.sums[0].extent;
  const bool known = !open_space(w);  // of an image
  Knob cut{"cut", {}, {}, {}};
  for (size_t i = 0; i < red.size(); i++) {
    cut.low.push_back(0), cut.high.push_back(red[i]);
    cut.preset.push_back(1);
  }
  // A block: whole rows of up to some 512 positions, or a piece of a long row; both operands lie in L2 with room to spare.
  // Channels first and one tap, each channel's positions are read by long lines: 64 -> 256 channels at 56x56 747 against 829 us, 16 -> 96
  // at 112x112 384 against 414 (Emerald Rapids).
  const bool squares = transposes(s, w), by_lines = squares && one_tap(w);
  const int channels_of_both = units(s.free[0]) + (s.free.size() > 1 ? units(s.free[1]) : 0);
  const int want = std::min(by_lines ? 2048 : 512, std::max(128, (by_lines ? 128 : 64) * 1024 / channels_of_both));
  if (red.size() == 2) cut.preset[0] = pieces(red[0], want);
  else cut.preset[0] = 0, cut.preset[1] = pieces(red[1], std::max(1, want / red[0]));

  const Machine m = machine(w.target);
  const size_t axes = s.free.size();
  // Depthwise tiles hold all the taps that they ever will, so that longer blocks cost no cache.
  if (s.paired && red.size() > 2) cut.preset[1] = red[0] * red[1] <= 4096 ? 0 : pieces(red[1], std::max(1, 2048 / red[0]));
  // Open extents may be longer than planned.
  const size_t outer = red.size() > 2 ? 1 : 0;
  if (open_space(w) && cut.preset[outer] == 0) cut.preset[outer] = red[outer];
  std::vector<int> tile(axes, 1), block(axes, 0);
  const int e0 = units(s.free[0]), budget = m.registers - 4;
  auto [vectors, width, row] = tile_by_loads(s, w);
  if (axes > 3) {
    tile[1] = width, tile[2] = row;
    // All taps where they fit, so that a vector is loaded once for all of them: 10 channels from one, 5x5 at 31x31, 2.8 against
    // 3.9 us; 7 from 3, 3x3, 4.5 against 5.9 (Zen 5).
    if (axes > 4 && vectors * tile[1] * tile[2] * units(s.free[3]) <= budget) tile[3] = units(s.free[3]);
    // Depthwise two vectors where the registers hold all taps of both, and one is a line: of a position's many such are not fetched
    // ahead. 3x3, 96 channels at 112x112, stride 2, 199 against 391 us (Emerald Rapids).
    const bool all_taps = tile[2] == units(s.free[2]) && (axes <= 4 || tile[3] == units(s.free[3]));
    if (s.paired && all_taps && m.lanes == 16 && e0 % (2 * m.lanes) == 0 && 2 * tile[1] * tile[2] * tile[3] <= budget) vectors = 2;
  }
  // With open extents the last of few tiles, that lies over the edge, is masked: 1x1, 64 channels at 56x56, 155 against 186 us (Emerald
  // Rapids).
  if (!known && !s.paired && axes > 1 && tiles_along(s, tile, 1) < 8)
    if (const int even = divisor(units(s.free[1]), tile[1]); 2 * even > tile[1]) tile[1] = even;
  const bool many_taps = s.paired && axes > 4 && units(s.free[2]) * units(s.free[3]) >= 25 && w.problem.stride == Problem::Extents{1, 1, 1};
  // Depthwise, both operands are read for every tap, so that the last vector's missing lanes are dear: shorter vectors have none. 3x3 at
  // 56x60, five channels 12.5 against 91 us, twelve 11 against 222, 24 with stride 2 9.3 against 23 (Emerald Rapids).
  int lanes = m.lanes;
  if (s.paired && e0 < m.lanes) lanes = e0;
  else if (s.paired && !many_taps && e0 % m.lanes && m.lanes >= 8 && e0 % (m.lanes / 2) == 0) lanes = m.lanes / 2;
  preset(k, "lanes", {lanes});
  tile[0] = vectors * lanes;
  // Tasks: groups of vectors where both operands are read in place, as what a block loads of them stays in L1 for all of the other
  // channels: 1x1, 128 -> 512 channels at 28x28 674 against 744 us, 512 -> 128 667 against 703 (Emerald Rapids). Else groups, else a
  // few blocks of the other channels, else of the vector axis.
  const bool in_place = summed_in_place(s, w), border = worth_padding(s, w);
  const int many = std::min(tasks(s), 8);
  const std::vector<int> by_loads = tile;
  if (in_place && many > 1 && e0 >= 8 * m.lanes) {
    if (known && tiles_along(s, tile, 0) < 4) tile[0] = 2 * m.lanes, tile[1] = best_tile(s.free[1], budget / 2);
    block[0] = tiles_of_a_task(tiles_along(s, tile, 0), many) * tile[0];
  } else if (const int groups = groups_of_a_task(s)) {
    block[axes - 1] = groups;
  } else if (const int channels = axes > 1 ? channels_of_a_task(s, tile, w) : 0) {
    block[1] = channels;
  } else if (e0 >= 2 * tile[0]) {
    block[0] = tile[0];
  }
  // Or strips of blocks, each with a result of its own, where adding these up costs less than that each task reads an operand anew
  // (one of groups does not, but strips were faster there too: 128 channels in 4 groups, 1x1 at 56x56, 1.2 times).
  // 1x1, 64 -> 256 channels at 56x56, n=8: 5.1 against 11 ms (Zen 5). What is copied with its border is soon read anew: 3x3, 64 channels
  // at 56x56, on two threads, 718 against 870 us (Emerald Rapids); with open extents, whose last block of each strip is short, strips were
  // slower there even than the tasks of channels: 834 against 696.
  const std::int64_t result = results(s);
  std::int64_t positions = 1, free_tasks = 1;
  for (const int e : red) positions *= e;
  for (size_t a = 0; a < axes; a++)
    if (block[a]) free_tasks *= tiles_along(s, block, a);
  const auto [strip_axis, blocks] = most_blocks(s, cut.preset, w);
  const std::int64_t anew = free_tasks * positions * (in_place && block[0] ? units(s.free[1]) : e0);
  int strips = 1;
  // Nor are the images of networks with large results, if their extents are open, long enough: 1x1, 512 -> 256 at 28x28 1.33 against 1.56 ms.
  const bool few = known || result <= 16 * 1024;
  const bool cheap = (known || s.paired || !border) && (border ? 64 : 32) * result < anew;
  if (many > 1 && blocks >= 4 && result <= 128 * 1024 && few && (free_tasks < 4 || cheap)) {
    // Four, of as many blocks each, as every strip's result is stored and read again: on two threads 1x1, 64 -> 128 channels at 56x56
    // 165 against 191 us for six, 256 -> 64 346 against 395 for eight (Emerald Rapids). Eight of results that are small beside that.
    tile = by_loads, std::fill(block.begin(), block.end(), 0);
    int &piece = cut.preset[strip_axis];
    int even = known && many >= 8 && 512 * result <= positions * e0 ? pieces_of_strips(red[strip_axis], piece, 8) : 0;
    strips = even ? 8 : 4;
    if (!even) even = pieces_of_strips(red[strip_axis], piece, 4);
    if (even) piece = even;
    // And groups of channels where the result is large, but not where each copies its few with their border: 3x3x3 stride 2, 32 -> 64
    // channels at 24x40x40, 2.8 against 2.2 ms (Zen 5).
    const int tiles = axes > 1 && !border && result > 32 * 1024 ? tiles_along(s, tile, 1) : 0, groups = many / strips;
    if (groups > 1 && tiles >= 2 * groups) block[1] = tiles_of_a_task(tiles, groups) * tile[1];
  }
  preset(k, "tile", tile);
  preset(k, "block", block);
  if (s.paired || !s.padded.defined()) preset(k, "stage", {0}), preset(k, "pad", {0});
  // Neighbouring positions share what their taps load. 3x3 depthwise, 144 channels at 56x56: 39 against 61 us (Zen 5).
  int taps = 1;
  for (size_t a = 1; a < axes; a++) taps *= tile[a];
  if (s.paired && taps <= budget / 2) preset(k, "unroll", {2});
  if (in_place) {
    preset(k, "unroll", {!known ? 2 : unrolled_positions(cut.preset[0] > 1 ? cut.preset[0] : red[0])});
    preset(k, "stage", {0});
  }
  k.push_back(cut);
  const bool of_images = open_batch(s, w) && strip_axis + 1 == int(red.size());
  if (of_images && (many == 1 || strips > 1)) strips = 8;
  k.push_back({"strips", {strips}, {1}, {most_strips}});
  // Results by the hundred thousand take as long to be added to and copied as the sum of an image of few positions: 3x3, 512 channels at
  // 7x7 2.5 against 4.0 ms, 256 at 14x14 1.38 against 1.59 (Emerald Rapids).
  const bool counted = !s.sums[0].known && s.free[0].known && s.free[s.free.size() - 2].known;
  k.push_back({"few", {counted && result >= 128 * 1024 ? 512 : 0}, {0}, {counted ? 512 : 0}});
  // The last vector of the channels is gathered lane by lane, and all where they lie apart. Copied once it pays where vectors are
  // read again often: 3x3, 61 channels at 13x13, n=8, 374 against 445 us, but 1x1, 97 -> 3 channels, 90 against 43 (Zen 5).
  const bool first = w.problem.layout == Layout::channels_first, tail = e0 % lanes != 0 && e0 > lanes;
  int uses = 1;
  for (size_t a = 1; a < axes; a++) uses *= tiles_along(s, tile, a);
  const int vectors_of_row = (e0 + m.lanes - 1) / m.lanes;
  // Depthwise x is read for every tap, so that its last vector, or the guards of many taps, cost more than a padded copy: 5x5, 40
  // channels at 28x28, 10 against 20 us, 1,152 at 7x7 17 against 24 (Zen 5).
  if (squares) preset(k, "copy", {strips > 1 && std::count(block.begin(), block.end(), 0) == std::ptrdiff_t(axes) ? 4 : 3});
  else if (s.padded.defined() && tail && !s.paired && (known ? uses > 11 * vectors_of_row : uses >= vectors_of_row)) preset(k, "copy", {2});
  if (!border) preset(k, "pad", {0});
  else if (s.paired && !first && (tail || many_taps)) preset(k, "pad", {1});
  else if (tail && !s.paired) preset(k, "pad", {2});
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

// As cpu_direct has them: the result is written row by row, and the copies for each block are made once.
Knobs of_few(const Stages &s, Knobs k) {
  k.set("stage", {0}), k.set("loops", inner_first(s));
  if (k.get("copy", 0) == 4) k.set("copy", {3});
  return k;
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  if (s.few) {
    const Stage branch = s.out.specialize(s.when_few);
    sum_at_once(*s.few, of_few(s, k), w, &branch);
  }
  const bool known = !open_space(w);
  Loops l = plan(s, k, w, Tiles::round_up);
  Func acc = s.sums[0].acc;
  RDom red = s.sums[0].red;

  // acc(free) = sum over strips of sum(free, strip), and that = sum over blocks of part(free, blocks).
  std::vector<int> cuts;
  for (int i = 0; i < red.dimensions(); i++) cuts.push_back(k.get("cut", size_t(i), 0));
  const auto [strip_axis, block_count] = most_blocks(s, cuts, w);
  const int strips = std::min(k.get("strips", 1), block_count);
  const RVar strip_of(red[strip_axis].name() + "_strip");
  const Var strip("strip");
  const auto into_strips = [&](const RVar &o, const Expr &each) {
    const RVar within(o.name() + "_of_strip");
    acc.update(0).split(o, strip_of, within, each, TailStrategy::GuardWithIf);
    return within;
  };
  std::vector<std::pair<RVar, Var>> blocks;
  std::vector<Reduced> inner;
  std::vector<Loop> outer;
  const bool of_images = strips > 1 && open_batch(s, w) && strip_axis + 1 == red.dimensions();
  bool even = known && !of_images;  // with a short last block, Halide takes what a staged operand reads to run over the edge
  for (int i = 0; i < red.dimensions(); i++) {
    const int cut = cuts[size_t(i)];
    RVar o = red[i];
    const bool in_strips = strips > 1 && i == strip_axis;
    if (in_strips && cut == 1) even &= block_count % strips == 0;  // so too with a short last strip of blocks without a loop of their own
    Expr extent = red[i].extent();
    // Where the extent is known only when run the strips are even, and their blocks need not be; of images as long as is worth a task, and
    // another result.
    const int worth = of_images ? std::max(images_of_a_task(s), int((127 + terms(s)) / terms(s))) : 1;
    if (in_strips && (of_images || !known)) extent = max(worth, (extent + strips - 1) / strips), o = into_strips(o, extent);
    // Of rows known only when run a block has as many as hold the positions that it would of the planned ones.
    Expr each = cut;
    const bool by_positions = i == 1 && cut > 0 && cuts[0] == 0 && !as_const_int(red[0].extent());
    if (by_positions) {
      const int positions = int(std::min<std::int64_t>(std::int64_t(cut) * s.sums[0].extent[0], 1 << 30));
      const Expr most = max(1, positions / red[0].extent()), count = max(1, (extent + most - 1) / most);
      each = (extent + count - 1) / count;
    }
    if (cut > 1 || by_positions) {
      RVar in(o.name() + "_in"), out(o.name() + "_block");
      even &= s.sums[0].extent[i] % cut == 0;
      acc.update(0).split(o, out, in, each, TailStrategy::GuardWithIf);
      inner.push_back({i, in}), o = out;
    }
    if (in_strips && known && !of_images) o = into_strips(o, (block_count + strips - 1) / strips);
    if (cut == 0) inner.push_back({i, o});
    else blocks.push_back({o, numbered("part_", i)}), outer.push_back(o);
  }
  Func sum = strips > 1 ? acc.update(0).rfactor(strip_of, strip) : acc;
  Func part = sum.update(0).rfactor(blocks);

  split(Stage(s.out), s, k, l, Tiles::none, true);
  s.out.reorder(join(l.middle, l.block));
  const Var c = s.free[0].var, contiguous = s.free[size_t(s.dense)].var;
  s.out.vectorize(l.block_extent[size_t(s.dense)] ? Var(contiguous.name() + "_in_block") : contiguous, l.lanes, TailStrategy::GuardWithIf);
  const LoopLevel task = parallel_tasks(s.out, Stage(s.out), s, l);
  acc.compute_at(task).reorder_storage(storage_order(s.free)).vectorize(c, l.lanes);

  split(sum.update(0), s, k, l, Tiles::round_up, strips > 1);
  keep_overrun(acc, s, l);
  if (strips > 1) {
    std::vector<Var> storage = storage_order(s.free);
    storage.push_back(strip);
    sum.compute_root().reorder_storage(storage).vectorize(c, l.lanes);
    acc.update(0).reorder(join({}, {storage.begin(), storage.end() - 1}, {strip_of})).vectorize(c, l.lanes);
    l.block.push_back(strip);
  }
  sum.update(0).reorder(join(join(l.tile, l.middle), outer, l.block));
  if (strips > 1) parallel_tasks(sum, sum.update(0), s, l);
  if (l.lanes > 1) sum.update(0).vectorize(l.tile[0].var, l.lanes);
  for (auto &v : l.tile) sum.update(0).unroll(v);

  part.compute_at(sum, l.middle[0].var);
  for (auto &[rvar, var] : blocks) part.bound_extent(var, 1);  // which Halide cannot tell of one behind a guard
  const LoopLevel block(sum, outer[0].rvar);
  const int copy = k.get("copy", 0);
  const bool whole_blocks = even && block_count % strips == 0;  // else what the last one copies would be taken to run over the edge
  if (copy >= 3) copy_transposed(s, l, copy == 4 && whole_blocks ? &block : nullptr);
  keep_in_registers(part, inner, s, k, l, even && k.get("stage", 1));
  copy_operand(s.padded, k.get("pad", 1), l, block);
  if (of_images && cuts.back() == 1 && k.get("pad", 1) == 1 && s.padded.defined()) s.padded.bound_extent(s.padded.args().back(), 1);
  if (copy < 3 && !vectors_have_border(s)) copy_operand(s.vec, copy, l, block);
}

}  // namespace

extern const Schedule cpu_partial_sums{"cpu_partial_sums", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
