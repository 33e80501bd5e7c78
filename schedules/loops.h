// Loops over the free axes at three levels: register tile, middle, block. Shared by the CPU schedules.
//
//   lanes  of a vector                                             (preset: the target's)
//   tile   how much of each axis one register tile holds           (preset: one vector of axis 0, 1 of the others)
//   block  how much of each axis one task holds                    (0: all of it; so too where tiles do not divide an
//          axis past which nothing may be read)
//   loops  the axes of the middle loops, innermost first           (preset 1,2,..,0)
//   order  the axes of the reduction, innermost first              (preset 0,1,2,..)
//   unroll of each axis of the reduction by a factor; -1: wholly   (preset 0)
//   stage  1: the vector operand is loaded into registers before it is used
//   pad    the operand with a border is 0: read in place, 1: copied with its border by each task, 2: copied once
//   copy   the vector operand of a sum over positions, where it is not the one with a border, likewise; 3: copied once by squares
//          that are transposed, as that one is too where it has none that is read; 4: for each tile of the vector axis
#pragma once
#include "schedule.h"

namespace convsmith {

using Loop = Halide::VarOrRVar;

/// What a schedule may know of the machine.
struct Machine {
  int lanes;      // f32 in a vector
  int registers;  // vector registers
};
Machine machine(const Halide::Target &);

struct Loops {
  int lanes;
  std::vector<int> tile_extent, block_extent;      // one a free axis, in units of its period
  std::vector<Loop> tile, residue, middle, block;  // innermost first
};

/// Extent of a free axis in units of its period.
int units(const Axis &);
/// Whether the extents of all free axes are known before it is run.
bool all_known(const Stages &);
/// How many tiles lie along a free axis, the last maybe short.
int tiles_along(const Stages &, const std::vector<int> &tile, size_t axis);
/// How many products a sum adds.
std::int64_t terms(const Stages &);
/// Of a pass that gathers, the free axis along the batch; else past them.
size_t image_axis(const Stages &);
/// Whether how many images a pass that gathers makes is known only when run.
bool open_images(const Stages &);
/// The stride along rows.
int row_stride(const Workload &);
/// Whether the operand with a border is the one loaded as vectors.
bool vectors_have_border(const Stages &);
/// Whether it is, and its channels, which are the lanes, lie apart.
bool vectors_lie_apart(const Stages &, const Workload &);
/// Of a strided gradient, over all axes: how many sums there are beside each other. Many are not told from 2^20.
std::int64_t residue_count(const Stages &);
/// How many results there are, those past the ends of strided axes too.
std::int64_t results(const Stages &);
/// The axes' variables: a Func stored in this order is dense along the vector axis.
std::vector<Halide::Var> storage_order(const std::vector<Axis> &);
/// The largest divisor of n that is at most `most`.
int divisor(int n, int most);

/// How the last tile of an axis is computed where it is short: whole, shifted inwards over its neighbour in the same
/// task; whole, its stores guarded, where the neighbour may be another task's, or the axis shorter than a tile; as `whole`,
/// where no axis known only when run is shorter; rounded up past the end.
enum class Tiles { none, whole, fitting, round_up };
Loops plan(const Stages &, const Knobs &, const Workload &, Tiles = Tiles::whole);

void split(Halide::Stage, const Stages &, const Knobs &, Loops &, Tiles, bool blocks);

/// Fuses the block loops into one parallel loop; root where a single task does it all.
Halide::LoopLevel parallel_tasks(Halide::Func, Halide::Stage, const Stages &, const Loops &);

/// A loop of a reduction, and which of its axes it walks along.
struct Reduced {
  int axis;
  Halide::RVar var;
};

/// Has the copies of what `acc` reads hold what its last tiles read past the ends, too: for the sums that are dropped these would multiply
/// what memory happens to hold, of which numbers too small to be normal take some hundred cycles. 120 channels in five groups, 3x3 with
/// stride 2 at 28x28, 0.14 against 1.7 ms (Emerald Rapids). Where an axis of a pass that gathers is not blocked its last tile is shifted
/// inwards instead, and where it is open the last tile is one of many.
void keep_overrun(Halide::Func acc, const Stages &, const Loops &);

/// Keeps one tile of `acc` in registers for the whole of its reduction.
void keep_in_registers(Halide::Func acc, const std::vector<Reduced> &red, Stages &, const Knobs &, const Loops &,
                       bool stage);

/// The tile along an axis that wastes least, of at most `most`: full tiles count fully, small ones a little less, and in
/// proportion those that leave fewer than ten sums at work, of which `beside` are on each element of the axis.
int best_tile(const Axis &, int most, int beside = 10);
/// Vectors by channels by taps of a row, for a sum over positions.
struct SumTile {
  int vectors = 1, channels = 1, taps = 1;
};
SumTile tile_by_loads(const Stages &, const Workload &);
/// Whether any window reaches past an end. Without padding only those of a pass that gathers backwards do, of more than one tap.
bool reads_border(const Workload &);
/// Whether the operand with a border is better copied with it: where it has one, and where it is loaded as vectors for several taps,
/// as the last would be made lane by lane, or whose channels lie apart and are not copied by squares. 5x5 at 1080x1920, no padding:
/// 0.56 against 1.4 ms (Zen 5).
bool worth_padding(const Stages &, const Workload &);
/// Whether the vectors of a sum over positions are better copied by squares: where their channels lie apart, and none of
/// their border is read.
bool transposes(const Stages &, const Workload &);
/// Whether the kernel has but one tap.
bool one_tap(const Workload &);
/// Whether a sum over positions reads both operands where they lie, their channels side by side: one tap, no border.
bool summed_in_place(const Stages &, const Workload &);
/// Whether the lines that hold one vector of f32 at each of so many positions crowd the few sets of L2 that channels map them to: the
/// power of two in the distance of two positions, times these, is 1.5 MiB or more, whose lines 1 or 2 MiB of sixteen ways do not keep.
bool crowds_cache(int channels, std::int64_t positions);
/// By how many positions a row of so many is unrolled where a sum is `summed_in_place`; 0 where none divides it. Several positions'
/// loads are under way at once, and a stride of kilobytes is no pattern that is fetched ahead in vain. 1x1, 528 -> 128 channels at
/// 28x28: 639 against 745 us, 1,024 -> 256 at 14x14 705 against 858 (Emerald Rapids).
int unrolled_positions(int row);
/// How many tasks a problem is worth: of about four million multiply-adds each (a short vector's take as long as eight), so that a
/// thread that wakes up late costs little, but at most sixteen, as each reads its operands anew. The problem alone decides.
int tasks(const Stages &);
/// How many of so many tiles each of about so many tasks takes, or of up to `most_tasks` (0: about twice as many), so that two threads
/// end nearly together. 3x3, 97 channels at 13x13, on two threads: 69 against 85 us (Zen 5); 1x1, 256 -> 128 at 14x14 38 against 42
/// (Emerald Rapids).
int tiles_of_a_task(std::int64_t tiles, std::int64_t tasks, std::int64_t most_tasks = 0);
/// How many images a task takes where their number is known only when run, and one is too little: some 100,000 multiply-adds.
int images_of_a_task(const Stages &);
/// Tasks of a sum over positions: how many channels of the other operand each takes; 0 where they are too few to share out.
int channels_of_a_task(const Stages &, const std::vector<int> &tile, const Workload &);
/// Tasks of a sum over positions: how many groups each takes; 0 where these, or their work, are too little to be shared out. They share
/// nothing, so that each task copies what it reads of its own, whose positions lie far apart, and which then stays near. 256 channels in 16
/// groups, 3x3 at 28x28, 460 against 670 us, in 32 groups with stride 2 at 56x56 0.82 against 1.55 ms (Emerald Rapids).
int groups_of_a_task(const Stages &);
/// Tasks of a pass that gathers: batches, strips of the outermost large axis, or groups of channels where the weights are
/// larger than what they are applied to.
void strips(const Stages &, const std::vector<int> &tile, std::vector<int> &block, const Workload &);

/// `out` in tiles, their vectors and blocks, or where it is `branch` a specialization of it: the level of a task.
Halide::LoopLevel store_tiles(Stages &, const Knobs &, Loops &, const Halide::Stage *branch = nullptr);
/// What cpu_direct does: each tile's sums are made whole, in registers, on their way to `out`, or to a specialization of it.
void sum_at_once(Stages &, const Knobs &, const Workload &, const Halide::Stage *branch = nullptr);
/// The innermost loop around a tile, where its sums are computed.
Loop around_tile(const Loops &);

/// The loop over the vector axis's tiles.
Halide::LoopLevel around_vectors(const Stages &, const Loops &);
/// An operand that is 0: read in place, 1: copied by each task, 2: copied once, 4: copied for each tile of the vector axis.
void copy_operand(Halide::Func, int how, const Loops &, const Halide::LoopLevel &task, Halide::Func lines = {});
/// The updates of an operand that is copied by them (Workload::fill). Across the channels of `lines` by squares that are transposed in
/// registers: 3x3, 64 -> 3 channels at 224x224, 2.6 against 3.7 ms (Emerald Rapids).
void vectorize_rows(Halide::Func, int lanes, Halide::Func lines = {});
/// A vector operand whose positions lie side by side copied, border and all, with its channels side by side, once or for each block: by
/// squares, so that every line read is used whole.
void copy_transposed(Stages &, const Loops &, const Halide::LoopLevel *block = nullptr);

std::vector<Loop> join(std::vector<Loop>, const std::vector<Loop> &, const std::vector<Loop> & = {});

/// The knob `loops` where the axes follow each other: a task is walked as its result lies in memory.
std::vector<int> inner_first(const Stages &);
/// The knobs above, with neutral presets.
std::vector<Knob> loop_knobs(const Stages &, const Workload &);
/// Refuses tiles that no register file could hold: more than four times the registers.
std::string tile_conflict(const Stages &, const Knobs &, const Workload &);
/// Sets the preset of a knob in a list.
void preset(std::vector<Knob> &, const std::string &name, std::vector<int> values);

}  // namespace convsmith
