// For a result of few channels and a long reduction: the lanes of a vector are neighbours in space. Strips of rows are
// summed apart from each other, each in register tiles of vectors, and a tile's lanes are added up at its end. The
// strips are the problem's, so the same bits come out at any number of threads.
//   rows   of a strip that are summed side by side, so that taps of neighbouring rows share what they load
//   stage  1: the operand with the channels of free[0] is copied, its positions side by side, as the other one is; 0: it is
//          read in place, where its positions lie side by side already
//   strip  rows of the reduction that one task sums (of a reduction along one axis: elements)
#include "loops.h"
#include <algorithm>
#include <fmt/format.h>

using namespace Halide;

namespace convsmith {
namespace {

// Which axis of the reduction is cut into strips: rows, or the only one in space.
int cut_axis(const Stages &s) { return s.sums[0].extent.size() > 2 ? 1 : 0; }

// Whether each channel is summed with one other alone, and there are several such pairs.
bool images(const Stages &s) { return units(s.free[0]) == 1 && units(s.free[1]) == 1 && units(s.free.back()) > 1; }

bool supports(const Stages &s, const Workload &w) {
  if (s.sums.size() != 1 || !s.over_positions || !s.padded.defined() || w.target.has_gpu_feature()) return false;
  const int lanes = machine(w.target).lanes;
  const std::int64_t sum = terms(s);
  // Channels fill less of a vector than positions do; but copying their rows so that they do must pay.
  const int channels = units(s.free[0]), row = s.sums[0].extent[0];
  // Along a line with strides the last vector of each strip is read lane by lane: ten taps with stride 5 to one channel 3.9 against 6.0 us,
  // but to four 7.9 against 6.5, to eight 17.8 against 6.5 (Emerald Rapids).
  const bool pays = s.sums[0].known && (row % lanes == 0 || channels <= 2);
  if (cut_axis(s) == 0 && !pays && row_stride(w) > 1) return false;
  // Images of a group each have no other vectors than short ones.
  if (images(s) && s.sums[0].known && (cut_axis(s) ? row >= 4 : row >= lanes)) return true;
  // Of one tap a group's few channels share too little to be copied: 64 in 16 groups, 1x1 at 28x28, 53 against 31 us (Emerald Rapids).
  if (units(s.free.back()) > 1 && one_tap(w)) return false;
  return s.sums[0].extent.size() > 1 && row >= lanes && sum >= 256 && channels * 2 <= lanes && (channels * 4 <= lanes || row >= 4 * lanes);
}

// How much of a free axis one tile holds.
int tile_of(const Stages &s, const Knobs &k, size_t a) { return std::min(k.get("tile", a, 1), units(s.free[a])); }

// How long so many strips of a line are that end together, in whole vectors. Of a strip that ends early all vectors are walked, lane by lane:
// nine taps over 15,992 positions, in strips of 15,984 119 us, in one 8.8; ten taps with stride 5, 53 against 3.9 (Emerald Rapids).
template<class T>
T even_strip(const T &positions, const T &strips, int lanes) {
  return ((positions + strips - 1) / strips + lanes - 1) / lanes * lanes;
}

std::vector<Knob> knobs(const Stages &s, const Workload &w) {
  std::vector<Knob> k = loop_knobs(s, w);
  std::erase_if(k, [](const Knob &knob) { return knob.name == "order" || knob.name == "copy" || knob.name == "unroll" || knob.name == "pad" || knob.name == "block"; });
  const auto &red = s.sums[0].extent;
  const Machine m = machine(w.target);
  const size_t axes = s.free.size();
  // A tile of several channels by several taps or channels of the other operand.
  std::vector<int> tile(axes, 1);
  int left = m.registers - 6;
  const auto take = [&](size_t axis, int most) {
    tile[axis] = best_tile(s.free[axis], std::max(1, std::min(most, left)));
    left /= tile[axis];
  };
  if (int lanes = 4; images(s) && s.sums[0].known && red[0] < m.lanes) {
    while (lanes < red[0]) lanes *= 2;
    preset(k, "lanes", {lanes});
  }
  take(0, s.paired ? 1 : 5);  // a channel of its own shares nothing
  if (axes > 3) take(2, 8), take(1, left);
  if (axes > 4) take(3, left);
  for (auto &knob : k)
    if (knob.name == "tile") knob.low[0] = 1, knob.high[0] = std::min(28, units(s.free[0]));
  preset(k, "tile", tile);
  // Rows of any length of one channel too where they have strides: their last vectors would be read lane by lane, 3x3 with stride 2 at
  // 112x112 4.2 against 11.0 us (Emerald Rapids).
  preset(k, "stage", {units(s.free[0]) > 1 || units(s.free.back()) > 1 || (row_stride(w) > 1 && !s.sums[0].known)});
  // About 16 Ki elements of each operand, and at least four strips where there are as many rows.
  const int row = cut_axis(s) ? red[0] : 1, rows = red[size_t(cut_axis(s))];
  int strip = std::max(1, std::min(rows, 16 * 1024 / std::max(1, row * std::max(units(s.free[0]), units(s.free[1])))));
  if (cut_axis(s) && !s.sums[0].known) strip = std::min(strip, 32);  // several, of few rows too
  if (cut_axis(s) == 0) strip = even_strip(rows, (rows + strip - 1) / strip, m.lanes);
  else if (rows >= 2 && strip % 2 && !(images(s) && strip == rows)) strip += strip < rows ? 1 : -1;
  strip = std::min(strip, rows);
  k.push_back({"rows", {cut_axis(s) == 1 && strip % 2 == 0 ? 2 : 1}, {1}, {4}});
  k.push_back({"strip", {strip}, {1}, {rows}});
  return k;
}

std::string conflict(const Stages &s, const Knobs &k, const Workload &w) {
  std::int64_t vectors = 1;
  for (size_t a = 0; a < s.free.size(); a++) vectors *= tile_of(s, k, a);
  const int most = 4 * machine(w.target).registers;
  if (vectors > most) return fmt::format("a tile of {} vectors: expected at most {}, four times the registers", vectors, most);
  return "";
}

void apply(Stages &s, const Knobs &k, const Workload &w) {
  const int lanes = k.get("lanes", machine(w.target).lanes), cut = cut_axis(s);
  Func acc = s.sums[0].acc;
  const RDom red = s.sums[0].red;
  const std::string row_name = red[0].name();

  // acc(free) = sum over strips of strips(strip, n, free), and that = sum over lanes of part(lane, strip, n, free).
  const RVar strip(red[cut].name() + "_strip"), in_strip(red[cut].name() + "_in_strip"), vector(row_name + "_vector"),
      lane(row_name + "_lane");
  const Var strip_index("strip"), n("strip_n"), lane_index("lane");
  Expr strip_length = k.get("strip", 1);
  if (cut == 0 && !s.sums[0].known) {
    const Expr positions = red[0].extent();
    strip_length = even_strip(positions, max(1, (positions + strip_length - 1) / strip_length), lanes);
  }
  acc.update(0).split(red[cut], strip, in_strip, strip_length, TailStrategy::GuardWithIf);
  std::vector<std::pair<RVar, Var>> outer = {{strip, strip_index}};
  const int last = red.dimensions() - 1;
  outer.push_back({red[last], n});
  Func strips = acc.update(0).rfactor(outer);
  strips.update(0).split(cut == 0 ? in_strip : RVar(red[0]), vector, lane, lanes, TailStrategy::GuardWithIf);
  Func part = strips.update(0).rfactor(lane, lane_index);

  std::vector<Loop> tile, rest, order;
  std::vector<Var> storage = {lane_index};
  strips.compute_root();
  acc.compute_root();
  for (size_t a = 0; a < s.free.size(); a++) {
    const Var v = s.free[a].var;
    storage.push_back(v);
    const int extent = tile_of(s, k, a);
    if (extent == 1) {
      rest.push_back(v);
      continue;
    }
    const Var outside(v.name() + "_tile"), inside(v.name() + "_in_tile");
    strips.update(0).split(v, outside, inside, extent, TailStrategy::RoundUp);
    tile.push_back(inside), rest.push_back(outside);
    part.bound_extent(v, extent);
  }
  // Groups share nothing: each task copies what one of them reads.
  const size_t groups = rest.size() - 1;
  for (size_t a = 0; a < rest.size(); a++)
    if (const size_t axis = size_t(k.get("loops", a, int((a + 1) % rest.size()))); axis != groups) order.push_back(rest[axis]);
  const Var task("strip_task"), task_of_group("strip_of_group");
  strips.update(0).reorder(join({Loop(lane)}, tile, join(order, {Loop(strip_index), Loop(n), rest[groups]})));
  // A row that may be shorter than a vector would have its lanes added up by locked instructions, one by one. 5x5, one channel at
  // 256x256: 21.4 against 25.0 us (Zen 5).
  if (s.sums[0].known || w.fill_both) strips.update(0).atomic().vectorize(lane);
  for (auto &v : tile) strips.update(0).unroll(v.var);
  strips.update(0).fuse(strip_index, n, task_of_group).fuse(task_of_group, rest[groups].var, task);
  if (units(s.free.back()) == 1 || tasks(s) > 1) strips.update(0).parallel(task);

  part.compute_at(strips, order[0].var);
  part.reorder_storage(storage);
  const RVar rows(red[cut].name() + "_side_by_side"), row(red[cut].name() + "_rows");
  const int side_by_side = cut ? k.get("rows", 1) : 1;
  std::vector<Loop> sums = {vector};
  if (side_by_side > 1) part.update(0).split(in_strip, row, rows, side_by_side, TailStrategy::GuardWithIf);
  for (int i = 1; i < last; i++) sums.push_back(i == cut ? Loop(side_by_side > 1 ? row : in_strip) : Loop(red[i]));
  std::vector<Loop> taps;
  for (size_t a = 0; a < s.free.size(); a++)
    if (tile_of(s, k, a) > 1) taps.push_back(s.free[a].var);
  std::vector<Loop> inner = {lane_index};
  if (side_by_side > 1) inner.push_back(rows), part.update(0).unroll(rows);
  std::reverse(taps.begin(), taps.end());
  part.update(0).reorder(join(inner, taps, sums));
  for (Stage loops : {Stage(part), part.update(0)}) {
    loops.vectorize(lane_index);
    for (auto &v : taps) loops.unroll(v.var);
  }
  // Either of the two may have the border; that one is always copied.
  for (auto [f, position] : {std::pair(s.vec, s.vec_position), std::pair(s.bcast, s.bcast_position)}) {
    if (f.name() != s.padded.name() && !k.get("stage", 1)) continue;
    std::vector<Var> memory = f.args();
    const Var along = memory[size_t(position)];
    memory.erase(memory.begin() + position), memory.insert(memory.begin(), along);
    f.compute_at(strips, task).reorder_storage(memory).vectorize(along, lanes);
    vectorize_rows(f, lanes, f.name() == s.padded.name() ? s.lines : Func());
  }
}

}  // namespace

extern const Schedule cpu_lane_sums{"cpu_lane_sums", 1, supports, knobs, conflict, apply};

}  // namespace convsmith
