// Each task computes a block of the result in register tiles, each of them reduced from start to end.
//   few    below so many images, where their number is known only when run and each has one position, tiles hold two (0: no such case)
#include "loops.h"
#include <algorithm>
#include <numeric>

using namespace Halide;

namespace convsmith {
namespace {

// Residues of a strided gradient that have sums of their own are unrolled around the tile, and those that no tap reaches: past 64 the code
// grows out of hand.
bool supports(const Stages &s, const Workload &w) {
  return !s.sums.empty() && residue_count(s) <= 64 && !w.target.has_gpu_feature();
}

// What best_tile() is to count for each position: the vectors, where channels fill them, else enough. 97 channels from 3 at
// 31x31, AVX2: 6.1 against 8.3 us (Zen 5).
int beside(const Stages &s, const Machine &m, int vectors) {
  return vectors > 1 && units(s.free[0]) % (vectors * m.lanes) == 0 ? vectors : 10;
}

// The axis whose neighbours share the weights: a row's positions, or where a result has but one the images.
size_t position_axis(const Stages &s) {
  if (s.over_positions) return 1;
  const size_t n_axis = s.free.size() - 2;
  for (size_t a = 1; a < n_axis; a++)
    if (!s.free[a].known || units(s.free[a]) > 1) return 1;
  return n_axis;
}

// How many images a tile holds where it is known only when run how many there are: fewer have loops of their own.
constexpr int most_open_images = 8;

// How many of the registers that operands leave hold sums: of 32, wide tiles keep more vectors beside them.
int sums_of(int vectors, int budget) { return vectors > 3 ? std::min(budget, 24) : budget; }

// How many vectors of channels a tile is best wide, so that few lanes and few positions go to waste and the operands loaded
// (one vector each, and one broadcast a position) do not outnumber the multiply-adds.
int best_vectors(const Stages &s, const Machine &m, int budget, const Workload &w) {
  const int channels = units(s.free[0]), all = (channels + m.lanes - 1) / m.lanes;
  // Short sums are bound by their stores: those of a tile as wide as the result go to memory in a row. 3x3, 3 -> 64 channels at
  // 224x224, n=8: 5.8 against 7.4 ms; 1x1, 16 -> 96 at 112x112 1.3 against 2.3 (Zen 5).
  if (terms(s) <= 32 && all > 2 && all <= 6 && channels % m.lanes == 0 && m.registers >= 32 && !s.over_positions) return all;
  const Axis &axis = s.free[position_axis(s)];
  int best = 1;
  double best_score = 0;
  // Of images three panels are walked side by side: dense, 25,088 -> 1,000 of 8, 7.0 against 9.2 ms (Emerald Rapids).
  const bool images = position_axis(s) != 1 && (open_images(s) || read_from_panels(w));
  const bool three_first = images && (channels % (3 * m.lanes) == 0 || channels % m.lanes);
  // Five only where they are the whole row: 80 -> 80 channels at 28x28, 1x1 57 against 63 to 91 us, 3x3 510 against 630, 1x1 of three groups of
  // 80 173 against 205; at AVX2 five by two against two by five of 40 channels 1.2 to 1.5 times as fast; seven by three positions were no
  // faster (Emerald Rapids).
  for (const int vectors : three_first ? std::vector{3, 2, 1, 5} : std::vector{2, 3, 1, 5}) {
    if (vectors > 1 && vectors * m.lanes > channels) continue;  // nothing may be read past the channels
    if (vectors == 5 && channels != 5 * m.lanes) continue;
    const int sums_at_work = sums_of(vectors, budget);
    const int most = images && !axis.known ? std::min(most_open_images, sums_at_work / vectors) : sums_at_work / vectors;
    const int width = best_tile(axis, most, beside(s, m, vectors)), extent = units(axis);
    const int wide = (all + vectors - 1) / vectors * vectors, long_ = (extent + width - 1) / width * width;
    const double sums = vectors * width;
    const double score = double(all) / wide * (axis.known ? double(extent) / long_ : 1) *
                         std::min(1., sums / (vectors + width)) * std::min(1., sums / 10);
    if (score > best_score + 0.02) best = vectors, best_score = score;
  }
  return best;
}

// A tile along space that no other axis makes larger: as many vectors as keep enough sums at work (ten, or what few registers
// hold), with little of the row's end computed twice. 64 taps in a line, one channel: 16.4 against 19.4 us; two channels, 32
// taps: 12.3 against 20.5; 3x3 stride 2, 3 <- 32 channels at 224x224, input gradient: 121 against 155 (Zen 5).
int lengthened(const Stages &s, const Machine &m, const std::vector<int> &tile, std::int64_t residues) {
  std::int64_t others = 1;
  for (size_t a = 1; a < tile.size(); a++) others *= tile[a];
  const int e0 = units(s.free[0]), had = std::max(1, tile[0] / m.lanes), enough = std::min(10, (m.registers - 4) * 2 / 3);
  if (had * others >= enough) return tile[0];
  // Of open extents each store of a residue may have a guard, and longer tiles take long to compile.
  if (!s.free[0].known) {
    const std::int64_t most = std::min<std::int64_t>(4, 2 * m.registers / (others * residues));
    const std::int64_t least = std::min<std::int64_t>(had, std::max<std::int64_t>(1, 3 * m.registers / (others * residues)));
    return int(std::max(least, std::min<std::int64_t>(most, (enough + others - 1) / others))) * m.lanes;
  }
  int best = had;
  double best_score = 0;
  for (int v = had; v <= 8 && v * m.lanes <= e0 && v * others <= m.registers - 4 && v * others * residues <= 4 * m.registers; v++) {
    const int computed = (e0 + v * m.lanes - 1) / (v * m.lanes) * v * m.lanes;
    const double score = double(e0) / computed * std::min(1., double(v * others) / enough);
    if (score > best_score) best = v, best_score = score;
  }
  return best_score > 0 ? best * m.lanes : tile[0];
}

// Whether a row of taps, unrolled, can drop those in a border of zeros at compile time, so that no padded copy is needed: 3x3,
// 512 channels at 7x7: 703 against 984 us (Zen 5). In one dimension most tiles of a dilated kernel meet the border.
bool drops_taps(const Stages &s, const Workload &w) {
  return s.padded.defined() && !s.over_positions && reads_border(w) && w.problem.border == Border::zero &&
         s.sums[0].extent.size() > 2 && s.sums[0].extent[1] <= 7 && s.free[1].known && s.free[2].known;
}

// Depthwise: how far the taps are unrolled, so that neighbours in a tile share what they load. Of more than some ten the sums leave
// the registers: 5x5, 240 channels at 28x28, 41 against 58 us, stride 2 its gradient 31 against 52; 3x3x3 356 against 422, its
// gradient 412 against 633; in a line 31 taps 83 against 92 (Zen 5).
std::vector<int> few_taps(const std::vector<int> &red) {
  std::vector<int> unroll = {-1};
  for (int taps = 1; unroll.size() < red.size();) {
    taps *= red[unroll.size()];
    unroll.push_back(taps <= 10 ? -1 : unroll.size() == 1 ? (red[1] <= 16 && red.size() > 2 ? -1 : 8) : 0);
  }
  return unroll;
}

// Depthwise: how many positions of its operand a tile reads, of each channel.
std::int64_t positions_read(const Workload &w, const std::vector<int> &tile) {
  const Problem &p = w.problem;
  std::int64_t positions = 1;
  for (int a = 0; a < p.rank; a++) {
    const size_t axis = size_t(p.rank - 1 - a);
    const std::int64_t step = w.pass == PassKind::forward ? p.stride[axis] : 1;
    positions *= (tile[size_t(a) + 1] - 1) * step + (p.kernel[axis] - 1) * p.dilation[axis] + 1;
  }
  return positions;
}

// Sums over positions that have few tiles of channels are shared out along the axis whose tiles two tasks halve most evenly.
void share_evenly(const Stages &s, const std::vector<int> &tile, std::vector<int> &block) {
  double best = 0;
  size_t axis = 0;
  for (const size_t a : {3, 0, 1, 2}) {
    if (a + 1 >= s.free.size()) continue;
    const int tiles = tiles_along(s, tile, a);
    const double even = double(tiles) / ((tiles + 1) / 2 * 2);
    if (tiles > 1 && even > best) best = even, axis = a;
  }
  if (best > 0) block[axis] = tiles_of_a_task(tiles_along(s, tile, axis), tasks(s)) * tile[axis];
}

// What the rules below ask of a kernel.
struct Kernel {
  const Stages &s;
  const Workload &w;
  const Machine m = machine(w.target);
  const size_t axes = s.free.size(), rank = s.sums[0].extent.size() - 1;
  const int e0 = units(s.free[0]);
  const std::int64_t residues = residue_count(s), sum = terms(s);
  // Vectors of positions: images, few channels.
  const bool along_space = vectors_have_border(s) && !s.over_positions;
  // Vectors of channels that go to memory as lines of positions: channels first.
  const bool across_lines = s.dense == 1 && residues == 1 && units(s.free[1]) >= 16 && e0 >= 2 * m.lanes;
  // A weight gradient's channels by its taps.
  const bool sums_taps = s.over_positions && !s.paired && axes > 3 && units(s.free[2]) > 1;
  // Weights that change along the row are loaded for each vector of it, and shared by the tile's rows alone. 5x5, three channels
  // at 1920x1080: 2.4 against 3.7 ms (Zen 5).
  const bool by_rows = along_space && s.free[0].repeat > 1 && sum > 9;
  // Depthwise, of many taps a padded copy is soon worth it: 7x7 at 28x28, 128 channels, 54 against 101 us, in a line 31 taps 43
  // against 83 (Zen 5).
  const bool line = rank == 1, many_taps = s.paired && !s.over_positions && residues == 1 && sum >= (line ? 16 : 40);
};

// Whether rows known only when run are read in place all the same: of few channels, whose loads share their guards, and few taps, beside
// which a copy counts. 3x3, 3 -> 32 channels at 224x224, stride 2, 131 against 152 us, 3 -> 64 1,086 against 1,148; nine taps in a line,
// 4 -> 32, 176 against 223; but 7x7, 3 -> 64, 1.45 against 1.27 ms (Emerald Rapids).
bool few_guards(const Kernel &k) {
  return k.s.padded.defined() && !k.s.over_positions && !k.s.paired && !k.along_space && k.residues == 1 && !k.s.free[1].known &&
         k.e0 % k.m.lanes == 0 && reads_border(k.w) && k.w.problem.border == Border::zero && k.s.sums[0].extent[0] <= 4 && k.sum <= 36;
}

struct Presets {
  std::vector<int> tile, block;
  int lanes = 0;                // of a vector, where not the machine's
  int vectors = 1, sums = 0;    // a tile's, and how many vectors of sums the registers hold
  int left = 0;                 // positions, or channels, that it may take beside its vectors
  bool drops_taps = false;      // rows are read in place, and the taps that meet zeros are left out when compiled
  bool rows_in_place = false;   // an image's rows are read in place
  bool channels_first = false;  // channels are the inner loop of tiles
};

Presets narrowest(const Kernel &k) {
  const auto &s = k.s;
  const Machine &m = k.m;
  Presets p{std::vector<int>(k.axes, 1), std::vector<int>(k.axes, 0)};
  p.sums = m.registers - 4;  // what the operands leave
  p.vectors = !s.paired && k.e0 >= 2 * m.lanes ? 2 : 1;
  if (!s.paired && !k.along_space && k.axes > 1 && k.residues == 1) p.vectors = best_vectors(s, m, p.sums, k.w);
  p.sums = sums_of(p.vectors, p.sums);
  if (k.by_rows) p.vectors = 1;
  // Rows shorter than a vector are two of fewer lanes, the second shifted inwards, rather than pieces of many lengths.
  if (k.along_space && s.free[0].known && k.e0 < m.lanes && k.e0 > 4)
    for (p.lanes = 4; 2 * p.lanes <= k.e0;) p.lanes *= 2;
  p.tile[0] = p.lanes ? p.lanes : std::min(k.e0, p.vectors * m.lanes);
  p.left = p.sums / p.vectors;
  // One tap of one vector takes no more positions than L1 fetches lines at a time: 1x1, 240 -> 40 channels at 28x28 101 against
  // 122 us, 16 <- 96 at 112x112 393 against 420 (Emerald Rapids).
  const bool beside_channels = !s.paired && !s.over_positions && !k.along_space, one_vector = beside_channels && p.vectors == 1;
  const bool open_rows = k.axes > 1 && !s.free[1].known;
  if (one_vector && one_tap(k.w)) p.left = std::min(p.left, 16);
  // Rows known only when run: long tiles seldom fit, and in a short row are but one. 3x3, 16 channels at 32x32 42 against 69 us, 1x1,
  // 64 -> 16 at 56x56 43 against 84; but 3x3, 16 channels at 112x112, 405 against 373 (Emerald Rapids).
  if (one_vector && open_rows) p.left = std::min(p.left, 14);
  // Nor do those of half the sums cost much where a tap is read once, or the weights bound it, and rows of seven positions are whole ones:
  // 1x1, 960 -> 320 channels at 7x7 180 against 339 us, 512 -> 256 at 28x28 as long; 3x3, 512 at 7x7 1.4 against 2.4 ms, at 14x14 5.3
  // against 5.2 (Emerald Rapids).
  const std::int64_t weights = element_count(k.w.problem.weight_shape()) / k.w.problem.groups;
  const bool wide = beside_channels && p.vectors > 1 && k.residues <= 4;
  if (wide && open_rows && (one_tap(k.w) || weights >= 1024 * 1024)) p.left = std::min(p.left, 7);
  // Code grows with the residues of a strided gradient, each of which unrolls the tile.
  if (k.residues > 4) p.left = std::max<std::int64_t>(1, p.left * 4 / k.residues);
  // More so where each element is stored by itself, maybe with a guard: 32 by 7 sums of 4x2 residues take minutes to compile
  // where the extents are open, and 14 s where they are not.
  if (k.residues > 4 && s.dense) {
    p.tile[0] = std::min(k.e0, m.lanes);
    p.left = s.free[1].known ? std::min<std::int64_t>(p.left, std::max<std::int64_t>(1, 256 / (p.tile[0] * k.residues))) : 1;
  }
  return p;
}

// Depthwise: two rows share what they load. In a line, eight sums by two vectors hide the latency of their additions: 9 taps 18.9
// against 20.9 us (Zen 5).
void tile_depthwise(const Kernel &k, Presets &p) {
  if (k.axes <= 3) return;
  const int two = 2 * k.m.lanes;
  const bool rows_of_taps = k.many_taps && k.rank == 2 && k.m.registers >= 32 && units(k.s.free[2]) >= 16;
  const bool one_row = k.line || (k.many_taps && !rows_of_taps);
  if (k.e0 % two == 0 && k.residues == 1 && one_row) p.tile[0] = two;
  p.tile[1] = best_tile(k.s.free[1], 4);
  p.tile[2] = k.m.registers < 32 || one_row ? 1 : best_tile(k.s.free[2], 2);
  if (k.rank < 2 || k.many_taps) return;
  // Channels first, then space, where what a tile reads of all channels stays in L1: one vector of them is a line or two out of a
  // position's many, which are not fetched ahead. 3x3, 96 channels at 112x112, stride 2, 202 against 393 us, 144 at 56x56 129 against
  // 141. Of more channels two vectors, where one would crowd L1: 512 at 14x14 19.6 against 24.9, 192 at 28x28, stride 2, 7.8 against
  // 14.1 (Emerald Rapids).
  const int apart = k.e0 * (k.w.pass == PassKind::forward ? row_stride(k.w) : 1);
  if (4 * k.e0 * (positions_read(k.w, p.tile) + k.sum) <= 32 * 1024) p.channels_first = true;
  else if (k.e0 % two == 0 && apart % 128 == 0) p.tile[0] = two, p.tile[2] = 1;
}

void tile_across_lines(const Kernel &k, Presets &p) {
  const int lanes = k.m.lanes;
  if (k.sum > 32 && one_tap(k.w)) {
    // 1x1, 128 -> 256 channels at 20x20, 191 against 223 us for eight positions (Emerald Rapids).
    const int most = p.sums / 2, even = divisor(units(k.s.free[1]), std::max(1, most));
    p.tile[0] = 2 * lanes, p.tile[1] = even < std::min(8, most) ? best_tile(k.s.free[1], most) : even;
    return;
  }
  // Short sums are soon over, and what counts is that a tile is stored in whole lines, or halves. 3x3, 3 -> 64 channels at 224x224,
  // channels first: 1,128 against 1,525 us (Zen 5).
  const bool lines = k.sum <= 32;
  p.tile[0] = (lines ? 1 : p.vectors) * lanes, p.tile[1] = lines ? lanes : std::max(1, lanes / 2);
}

// Positions beside channels, or beside an image's vectors.
void tile_positions(const Kernel &k, Presets &p) {
  const auto &s = k.s;
  p.tile[1] = best_tile(s.free[1], p.left, k.along_space || k.residues > 1 ? 10 : beside(s, k.m, p.vectors));
  const int left = p.left / p.tile[1];
  // Rows of a strided gradient's tile would each guard their own taps: 66 against 18 GFLOP/s (7x7 stride 2, 3 -> 64
  // channels, Zen 3).
  // Below five positions a tile of several rows, of a padded copy, keeps more sums at work.
  p.drops_taps = drops_taps(s, k.w) && !k.along_space && k.residues == 1 && p.tile[1] >= 5;
  p.rows_in_place = k.along_space && k.residues == 1 && s.padded_dense && k.sum <= 9 && k.rank == 2 && s.free[0].known &&
                    k.e0 >= 40 * p.tile[0] && k.w.problem.type == Type::f32;
  if (k.axes <= 3 || left <= 1 || k.residues > 1) return;
  int rows = p.drops_taps ? 1 : k.along_space ? std::min(k.by_rows ? 16 : 8, left * 2 / 3) : std::min(4, left);
  // Enough sums are at work already: rows that do not divide would only be computed twice.
  if (!k.along_space && p.tile[1] >= 5)
    while (rows > 1 && units(s.free[2]) % rows) rows--;
  p.tile[2] = best_tile(s.free[2], std::max(1, rows));
}

void choose_tile(const Kernel &k, Presets &p) {
  const auto &s = k.s;
  const SumTile by_loads = k.sums_taps ? tile_by_loads(s, k.w) : SumTile{};
  if (s.paired && s.over_positions) {
    for (size_t a = 2; a + 1 < k.axes && a < 4; a++)
      if (units(s.free[a]) <= p.left) p.tile[a] = units(s.free[a]), p.left /= p.tile[a];
  } else if (s.paired) {
    tile_depthwise(k, p);
  } else if (k.across_lines && (k.sum <= 256 || one_tap(k.w))) {
    tile_across_lines(k, p);
  } else if (k.sums_taps && k.e0 % (by_loads.vectors * k.m.lanes) == 0 && units(s.free[1]) % by_loads.channels == 0) {
    // Few channels by the taps of a row are as many sums as many channels, and are shared out evenly. 3x3, 128 channels at 28x28, on
    // two threads 697 against 862 us, on one 1,335 against 1,363 (Emerald Rapids).
    p.tile[0] = by_loads.vectors * k.m.lanes, p.tile[1] = by_loads.channels, p.tile[2] = by_loads.taps;
  } else if (position_axis(s) != 1) {
    // 1x1, 512 -> 512 channels of 64 images: 129 against 399 us; 672 -> 28 of 8: 1.7 against 9.5 (Zen 5). Where channels are no whole
    // tiles, tasks share the images.
    const Axis &images = s.free[k.axes - 2];
    const bool halves = tasks(s) > 1 && k.e0 % p.tile[0] != 0 && !read_from_panels(k.w);
    int most = halves && images.known ? std::min(p.left, units(images) / 2) : p.left;
    if (!images.known) most = k.along_space ? 1 : std::min(most_open_images, p.left);
    p.tile[k.axes - 2] = best_tile(images, most, beside(s, k.m, p.vectors));
  } else if (k.axes > 1) {
    tile_positions(k, p);
  }
  if (k.along_space && !p.lanes) p.tile[0] = lengthened(s, k.m, p.tile, k.residues);
}

// What a task computes.
void choose_block(const Kernel &k, Presets &p) {
  const auto &s = k.s;
  // Images of a group each: as many as lie in L1 with their borders, 16 KiB. 3x3, 384 channels at 14x14, 38 against 62 us for 40 KiB (Emerald
  // Rapids).
  if (k.along_space && units(s.free.back()) > 1) {
    std::int64_t image = units(s.free[0]) + 2 * (p.lanes ? p.lanes : k.m.lanes);
    for (size_t a = 2; a + 2 < k.axes; a++) image *= units(s.free[a]) * row_stride(k.w) + s.sums[0].extent[a] - 1;
    p.block[k.axes - 1] = divisor(units(s.free.back()), int(std::max<std::int64_t>(1, 4096 / image)));
    if (image <= 16 * 1024 && tiles_along(s, p.block, k.axes - 1) >= tasks(s)) return;  // whole ones
  }
  if (!s.over_positions) strips(s, p.tile, p.block, k.w);
  else if (const int groups = groups_of_a_task(s)) p.block[k.axes - 1] = groups;
  else if (const int channels = k.axes > 1 ? channels_of_a_task(s, p.tile, k.w) : 0) p.block[1] = channels;
  else if (tasks(s) > 1) share_evenly(s, p.tile, p.block);
  // With few taps an image's rows are read in place, and a task is one row of tiles: 3x3 at 1920x1080 287 against 378 us,
  // three channels of it 1.6 against 2.3 ms (Zen 5). Of 5x5 the loops at the borders spill, and little is won: 548 against 591;
  // so do rows of few tiles, a part of which are at a border: 256x256 36 against 12 us, 768x1024 351 against 315 (Emerald Rapids).
  if (p.rows_in_place && p.block[2]) p.block[2] = p.tile[2];
  // What a task copies of a small image, border and all, stays in L1: 3x3 at 256x256 12 against 18 us, 128x128 3.1 against 4.7; 5x5 at
  // 256x256 23 against 27 (Emerald Rapids).
  if (k.along_space && k.residues == 1 && !p.rows_in_place && k.rank == 2 && s.sums[0].extent[2] <= 7) {
    const int row = k.e0 * s.sums[0].extent[0], rows = s.free[0].known ? std::max(1, 3072 / row / p.tile[2]) * p.tile[2] : p.tile[2];
    if (row <= 384 && k.e0 * units(s.free[2]) >= 8192 && (!p.block[2] || p.block[2] > rows)) p.block[2] = rows;
  }
}

// With few registers each operand is read more often: the vectors of a tile, which channels that lie a power of two apart keep
// out of L1, are copied side by side, and what they meet for each task. At AVX2, 1x1, 256 -> 1,024 channels at 14x14: 947
// against 1,198 us, 512 -> 128 at 28x28: 892 against 1,043; with AVX-512 502 against 449 (Zen 5).
// Whatever the registers, so are vectors that crowd the cache and are read again for every tap: 3x3, 512 channels at 28x28 25.9
// against 30.2 ms, 256 -> 512 12.5 against 15.9 (Emerald Rapids).
// Returns how many channels of the other operand a task then takes at the least; 0: none are copied.
int copied_panels(const Kernel &k, const Presets &p) {
  const auto &s = k.s;
  if (!s.over_positions || s.paired || k.axes < 2 || !p.block[1] || !s.padded.defined() || vectors_have_border(s)) return 0;
  const int other = units(s.free[1]);
  if (k.m.registers < 32 && k.e0 >= 128 && other >= 64 && k.sum * std::max(k.e0, other) >= 64 * 1024) return 64;
  return k.sums_taps && crowds_cache(k.e0, k.sum) ? 32 : 0;
}

// Whether a task writes its result row by row, not by columns of tiles, whose every store is in a page of its own: where L2 does not hold it and
// the vector operand stays there, of so many channels at a time. 3x3, 512 channels at 7x7, 1.54 against 2.9 ms, 1x1, 2,048 -> 512 1.16
// against 1.56; dense, 25,088 -> 1,000 of 8 images, 12 against 39 ms, 4,096 -> 4,096 of 128 34 against 48, but of all channels at a time 94
// (Emerald Rapids).
bool write_by_rows(const Kernel &k, Presets &p) {
  const auto &s = k.s;
  if (!s.over_positions || s.paired || results(s) < 256 * 1024) return false;
  const std::int64_t positions = s.sums[0].known ? k.sum : std::max<std::int64_t>(k.sum, 128);
  if (positions * k.e0 <= 256 * 1024) return true;
  const int tile = p.tile[0], most = int(128 * 1024 / positions);
  if (k.e0 % tile || most < 4 * tile) return false;
  const int tiles = divisor(k.e0 / tile, most / tile);
  if (tiles < 4) return false;
  p.block[0] = tiles * tile;
  return true;
}

// Rows of channels that lie apart are copied for each strip where together they crowd L2, and more tiles read them than strides leave
// out: 1x1, 256 -> 128 at 28x28, 350 against 357 us, 256 -> 64 at 56x56 812 against 936, 160 -> 64 at 112x112 2.1 against 2.7 ms; but
// 80 -> 64 at 40x40 148 against 134 us, 256 -> 32 with stride 2 at 112x112 1,250 against 750, and at AVX2, whose tiles read them more
// often, 256 -> 64 1.9 against 1.8 ms (Emerald Rapids).
bool copies_strips(const Kernel &k, const Presets &p) {
  if (k.m.registers < 32 || !k.across_lines || !one_tap(k.w) || k.rank < 2 || !p.block[2]) return false;
  const auto &stride = k.w.problem.stride;
  const std::int64_t left_out = stride[0] * stride[1] * stride[2];
  return k.sum * units(k.s.free[1]) * units(k.s.free[2]) >= 160 * 1024 && left_out < 2 * tiles_along(k.s, p.tile, 0);
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  const Kernel k{s, w};
  Presets p = narrowest(k);
  choose_tile(k, p);
  choose_block(k, p);
  const int panels = copied_panels(k, p);
  if (panels) p.block[1] = std::max(p.block[1], (panels + p.tile[1] - 1) / p.tile[1] * p.tile[1]);
  const bool by_rows = !panels && write_by_rows(k, p);

  std::vector<Knob> list = loop_knobs(s, w);
  if (p.lanes) preset(list, "lanes", {p.lanes});
  preset(list, "tile", p.tile);
  preset(list, "block", p.block);
  // The weights of short sums stay near anyway, and a wide result is written in whole rows: 1 -> 256 channels, 10 taps in a line,
  // stride 5, n=8: 872 against 977 us (Zen 5).
  const bool whole_rows = !s.over_positions && !s.paired && !k.along_space && k.sum <= 32 && k.e0 > 6 * k.m.lanes;
  if (p.rows_in_place || p.channels_first || whole_rows || by_rows) {
    preset(list, "loops", inner_first(s));
  }
  // Vectors that lie apart are gathered once, not in each task: 64 -> 10 channels, 3x3 at 28x28, weight gradient, 42 against 55 us
  // (Zen 5).
  const bool guarded = few_guards(k);
  const bool border = (worth_padding(s, w) || copies_strips(k, p)) && (!s.paired || k.many_taps) && !p.drops_taps && !p.rows_in_place && !guarded;
  preset(list, "pad", {!border ? 0 : vectors_lie_apart(s, w) || (!all_known(s) && !s.over_positions && p.block[0]) ? 2 : 1});
  // Of one channel only the loop over a column's taps would be left, which LLVM unrolls too, and the sums spill: 3x3, 1 -> 32 at 112x112, 46
  // against 134 us, 5x5 at 28x28 8.4 against 14.8; but at AVX2 20.5 against 18.2 (Emerald Rapids).
  if (p.drops_taps && (k.rank > 2 || s.sums[0].extent[0] > 1 || k.m.registers < 32)) preset(list, "unroll", {0, -1});
  if (guarded) preset(list, "unroll", {-1});
  if (transposes(s, w)) preset(list, "copy", {3});
  else if (panels) preset(list, "copy", {4}), preset(list, "pad", {1});
  else if (s.over_positions && p.block.back()) preset(list, "copy", {1});  // tasks of groups
  // The residues of open extents may have no elements, and Halide would ask before each load of a vector to be staged: stride 2, 128
  // channels at 56x56, 1,325 against 1,564 us (Emerald Rapids).
  // A vector along a row reads each element once; with a stride a register's worth of it would be mostly what no tap reads: two channels to
  // three, nine taps with stride 2, 23 against 36 us (Emerald Rapids).
  preset(list, "stage", {s.paired || s.over_positions || k.along_space || (!all_known(s) && k.residues > 1) ? 0 : 1});
  for (auto &knob : list)
    if (knob.name == "stage" && k.along_space && row_stride(w) > 8) knob.high = {0};
  // Few channels: rows of the tile share what they load where the taps of a column are unrolled side by side. A 5x5 image
  // filter: 72 against 26 GFLOP/s (Zen 3); 15x15: 238 against 118 (Zen 5). Around them the summed channels, so
  // that a tile's rows are walked for one channel after the other: 3-D, 32 channels to one, 916 against 1,329 us, 64 to 3 at
  // 224x224 1,708 against 1,804 (Zen 5).
  if (k.along_space && k.residues == 1 && k.rank >= 2) {
    preset(list, "order", k.rank == 2 ? std::vector<int>{2, 0, 1} : std::vector<int>{2, 0, 1, 3});
    preset(list, "unroll", {0, 0, -1, 0});
  }
  // Tiles of images alone, not of vectors along space.
  const size_t images = image_axis(s);
  const bool one_position = open_images(s) && !s.paired && !k.along_space && position_axis(s) == images && s.sums.size() == 1 && s.after.empty();
  list.push_back({"few", {one_position ? p.tile[images] : 0}, {0}, {one_position ? 28 : 0}});
  if (s.paired && !s.over_positions) preset(list, "unroll", few_taps(s.sums[0].extent));
  if (summed_in_place(s, w) && s.sums[0].known && !panels) preset(list, "unroll", {unrolled_positions(s.sums[0].extent[0])});
  return list;
}

// Tiles of few images are wide, so that two of them, which may be the same one twice, keep enough sums at work.
Knobs of_few(const Stages &s, Knobs k, const Workload &w) {
  std::vector<int> tile, block;
  for (size_t a = 0; a < s.free.size(); a++) tile.push_back(k.get("tile", a, 1)), block.push_back(k.get("block", a, 0));
  const int channels = units(s.free[0]), lanes = k.get("lanes", machine(w.target).lanes);
  for (int wide = 4 * lanes; wide > tile[0]; wide -= lanes)
    if (wide <= channels && (channels % wide == 0 || s.free[0].repeat > 1 || !block[0])) tile[0] = wide;
  block[0] = (block[0] + tile[0] - 1) / tile[0] * tile[0];
  tile[image_axis(s)] = 2;
  k.set("tile", tile), k.set("block", block);
  return k;
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  if (s.few) {
    const Stage branch = s.out.specialize(s.when_few);
    sum_at_once(*s.few, of_few(s, k, w), w, &branch);
  }
  sum_at_once(s, k, w);
}

}  // namespace

void sum_at_once(Stages &s, const Knobs &k, const Workload &w, const Stage *branch) {
  Loops l = plan(s, k, w);
  const bool transposed = k.get("copy", 0) == 3;
  if (transposed) copy_transposed(s, l);
  const LoopLevel task = store_tiles(s, k, l, branch);
  for (auto &sum : s.sums) {
    sum.acc.compute_at(s.out, around_tile(l).var);
    keep_overrun(sum.acc, s, l);
    std::vector<Reduced> red;
    for (int i = 0; i < sum.red.dimensions(); i++) red.push_back({i, sum.red[i]});
    keep_in_registers(sum.acc, red, s, k, l, k.get("stage", 1));
  }
  copy_operand(s.padded, k.get("pad", 1), l, task, s.lines);
  if (!transposed && !vectors_have_border(s)) copy_operand(s.vec, k.get("copy", 0), l, k.get("copy", 0) == 4 ? around_vectors(s, l) : task);
}

extern const Schedule cpu_direct{"cpu_direct", 1, supports, knobs, tile_conflict, apply};

}  // namespace convsmith
