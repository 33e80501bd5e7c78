// Loops over the free axes on a GPU: the register tile of a thread, the threads of a block, the grid.
//
//   tile    how much of each axis a thread holds in registers         (preset: 4 and 4 of the first two; 2 and 2 where few threads
//           have long sums, 1 and 8 where sums share little)
//   thread  how many threads of a block lie along each axis; at most three axes have more than one
//   chunk   how much of each axis of the reduction lies in shared memory at a time, both operands (0: all of it);
//           -1 first: nothing is staged, and each thread reads memory by itself, with CUDA in fours where they lie side by side
//   order   the axes of the reduction, innermost first               (preset 0,1,2,..)
//   unroll  of the innermost loop of the reduction, where it divides it; as much of an operand is loaded at once
//
// A tile at the end of an axis is shifted inwards: an element may be computed twice, with the same bits.
#pragma once
#include "loops.h"

namespace convsmith {

/// The least that devices of an API have.
struct Device {
  int threads;  // of a block
  int shared;   // bytes of a block
};
Device device(const Halide::Target &);

/// One kernel: `store`, which is written to memory, from `sums`, one a residue.
struct GpuKernel {
  struct Part {
    Halide::Func acc;
    std::vector<Reduced> red;  // innermost first
    std::vector<int> extent;   // of each
    bool even = true;          // no guard within them
    std::vector<Halide::Func> fours;  // operands to be loaded in vectors of four, from memory
  };
  Halide::Func store;
  std::vector<Axis> free;
  std::vector<Part> sums;
  Halide::Func vec, bcast;  // staged in shared memory where the knob chunk says so
  int dense = 0;            // the axis of free that is contiguous in memory
  bool vectors = false;     // vectors may be read with any stride
  bool stores_vectors = true;
};
void schedule_kernel(GpuKernel &, const Knobs &);
/// With CUDA. OpenCL and Vulkan have no vectors of the widths that Halide loads for a stride of three.
bool reads_vectors(const Halide::Target &);
/// OpenCL and Vulkan have no bf16, and f16 as extensions that a device may lack, and Halide's PTX has no bf16: there they are the
/// integers that hold their bits, converted by arithmetic. Halide makes no OpenCL of the vectors of conditions in that.
bool floats_as_bits(const Workload &);

/// Those of a Func's variables that a stage walks along as such: -1 is its pure definition.
std::vector<Halide::Var> pure_axes(const Halide::Func &, int update);
/// One thread an element of every stage of a Func, or of some, sums being its own.
void schedule_elements(Halide::Func, int first = -1, int last = 1 << 20);

/// The operands of a sum that a thread loads four elements at a time into registers, as the knobs have it: those whose first
/// dimension it reads in whole fours.
std::vector<Halide::Func> in_fours(const Stages &, const Sum &, const Knobs &, const Workload &);
/// Whether with such a tile each thread best reads both operands by itself, in whole fours: no chunk, no barriers. With few
/// threads the loads would be waited for; with one tap and a long sum shared memory is read more often than that. 3x3, 64 -> 64 at
/// 56x56 and n=8, weight gradient: 90 against 291 us; stride 2 of 128, input gradient: 163 against 260; 1x1, 64 -> 256, forward 32
/// against 48, but its weight gradient 72 against 54; 3x3 of 512 at 7x7, forward 260 against 186 (H200).
bool best_in_fours(const Stages &, const Workload &, const std::vector<int> &tile);
/// tile, thread, chunk, order and unroll for the axes of a reduction.
std::vector<Knob> gpu_knobs(const Stages &, const Workload &);
/// Presets of chunk and unroll, those of the other knobs being set: the largest chunk that shared memory holds, where the
/// results of a block are many enough to read each operand often.
void preset_chunks(std::vector<Knob> &, const Stages &, const Workload &);
/// Refuses blocks that no device need have threads, registers or shared memory for.
std::string gpu_conflict(const Stages &, const Knobs &, const Workload &);

}  // namespace convsmith
