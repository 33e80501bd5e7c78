// The correlation behind a problem, and how its tensors and weights lie in memory.
#pragma once
#include "stages.h"

namespace convsmith {

using Index = std::vector<Halide::Expr>;

/// A number, or an extent known only when run, for which `plan` stands in where loops are planned.
struct Extent {
  int plan;
  Halide::Expr value;
  bool known;
  Extent(int number) : plan(number), value(number), known(true) {}
  Extent(int stand_in, Halide::Expr size) : plan(stand_in), value(std::move(size)), known(false) {}
};

/// Spatial axis d of a Func (0 is innermost) is axis rank-1-d of the problem. A convolution is a correlation whose
/// taps run backwards: dilation -d from lo - (K-1)*d.
struct SpatialAxis {
  Extent in, out;
  int kernel, stride, dilation, lo;
  int pad_lo, pad_hi;  // as the problem has them: negative ones crop
};

/// The correlation from tensors on its side `in` to those on its side `out` that a problem is:
///   correlation, convolution   x is `in`, y is `out`
///   transposed                 x is `out`, y is `in`: its forward pass is the input gradient's gather, and the other
///                              way round
///   local                      as correlation, the weights being each output position's own
///   dense                      of one position: all elements of x, and of y, are channels, as they lie in memory
/// Depthwise is one group whose input is read at the result's own channel.
enum class Side { in, out };
struct Geometry {
  std::vector<SpatialAxis> axes;
  int co, ci, g;
  bool depthwise, unshared;
  Extent n;
  int interleaved = 1;  // channels that lie along the innermost axis, each with weights of its own

  int channels(Side side) const { return side == Side::out || depthwise ? co : ci; }
};
Geometry geometry(const Workload &);
/// The geometry of what a pass gathers. Few channels, each filtered by itself, that lie side by side are one row of x*C + c
/// on both sides: a tap moves by whole positions of C, and the weights repeat every C elements. So no vector along the row
/// is shuffled.
Geometry gathered_geometry(const Workload &);
/// How many channels such a row interleaves; 1 where a pass has none.
int interleaved_channels(const Workload &);
/// After how many elements of such a row weights, and all vectors of them, repeat.
int row_period(int interleaved);
/// The side on which the problem's x (`output` false) or y lies.
Side side_of(const Problem &, bool output);
/// The side whose channels are the vector axis of the weights that a pass reads.
Side vector_side(const Workload &);

/// (c, g, w[, h[, d]], n) on a side.
std::vector<Extent> extents(const Geometry &, Side);
/// (c, g, w[, h[, d]], n) of x or y, each logical axis its own; the same as `extents` but for dense.
std::vector<Extent> tensor_extents(const Workload &, bool output);

/// Too few channels to fill a vector: the innermost spatial axis is the vector axis instead, and the operands change
/// roles.
inline bool along_space(int vector_channels) { return vector_channels < 8; }
/// The share of the lanes that so many channels fill, at the widest vectors there are.
inline double filled(int channels) { return channels / ((channels + 15) / 16 * 16.0); }

/// Of tensors and weights in memory, and of the sums.
Halide::Type tensor_type(const Problem &), weight_type(const Problem &), sum_type(const Problem &);
/// Of master weights, biases and their gradients: f32, but for 8-bit weights s8 and 32-bit biases.
Halide::Type master_type(const Problem &), bias_type(const Problem &);
Halide::Type output_type(const Problem &);

/// t(c, g, w[, h[, d]], n) over logical [N, C, *spatial].
BufferSpec tensor_spec(const Workload &, const std::string &name, bool output);
/// The same as a contraction reads it: in a dense problem all elements of one n are channels; channels may be part of a row.
BufferSpec operand_spec(const Workload &, const std::string &name, bool output);
/// Plain weights (co, ci, g, k...[, position...]), in memory g and co, ci, k, position or, with the vector axis on
/// Side::in, ci first; the innermost position before all of them where it is the vector axis.
BufferSpec plain_weight_spec(const Workload &, const std::string &name, Side of);
/// The weights that a pass reads as the workload wants them: plain, in panels or in fours.
BufferSpec weight_spec(const Workload &, const std::string &name, Side of);
/// One number a logical output channel, as (c, g) of y, and what an index of the result reads of it.
BufferSpec channel_spec(const Workload &, const std::string &name, Halide::Type);
Index channel_index(const Workload &, const Index &at);
BufferSpec scalar_spec(const std::string &name, Halide::Type = Halide::Float(32));

}  // namespace convsmith
