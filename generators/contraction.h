// Shared by the files of generators/: the axes, the layouts and the two contractions that every operator maps onto.
#pragma once
#include "stages.h"
#include <functional>

namespace convsmith {

using Index = std::vector<Halide::Expr>;

/// Spatial axis d of a Func (0 is innermost) is axis rank-1-d of the problem. A convolution is a correlation whose
/// taps run backwards: dilation -d from lo - (K-1)*d.
struct SpatialAxis {
  int in, out, kernel, stride, dilation, lo, hi;
};
std::vector<SpatialAxis> spatial_axes(const Problem &);

/// Channels within a group, and groups. Depthwise is one group whose input is read at the result's own channel.
struct Channels {
  int co, ci, g;
  bool depthwise;
};
Channels channels(const Problem &);

/// t(c, g, w[, h[, d]], n)
Index tensor_index(Halide::Expr c, Halide::Expr g, const Index &spatial, Halide::Expr n);
std::vector<int> tensor_extents(const Problem &, bool output);
BufferSpec tensor_spec(const Problem &, const std::string &name, bool output);

/// Plain weights (co, ci, g, kw[, kh[, kd]]), in memory kd, kh, kw, then ci, g, co or, `transposed`, g, co, ci.
BufferSpec plain_weight_spec(const Problem &, const std::string &name, bool transposed);
/// The weights of forward, or of the input gradient, as the workload wants them: plain or in panels.
BufferSpec weight_spec(const Workload &, const std::string &name, bool transposed);
/// [OC] as (c, g)
BufferSpec channel_spec(const Problem &, const std::string &name);
BufferSpec scalar_spec(const std::string &name);

Halide::Region from_zero(const std::vector<int> &extents);

/// The epilogue: (the sum, the index of the result) -> the result.
using Finish = std::function<Halide::Expr(Halide::Expr, const Index &)>;
Finish plain();

/// y(co,g,o,n)   = finish(sum over ci,k of weight(co,ci,g,k) * x(ci, g, o*s + k*dil - lo, n))
/// dx(ci,g,i,n)  = finish(sum over co,k of weight(co,ci,g,k) * dy(co, g, (i + lo - k*dil)/s, n)), over the taps k for
/// which s divides; `gradient` chooses. A strided gradient has one sum a residue of i modulo s.
Stages gather(const Workload &, bool gradient, Halide::Func in, Halide::Func weight, const Finish &);

/// dw(co,ci,g,k) = finish(sum over o,n of dy(co,g,o,n) * x(ci, g, o*s + k*dil - lo, n))
Stages weight_gradient(const Workload &, Halide::Func x, Halide::Func dy, const Finish &);

/// bias(oc) added, then the activation: inputs after the weights.
Finish epilogue(const Problem &, const std::vector<Halide::Func> &extra);
/// d activation / d pre-activation, times d: zero at a kink.
Halide::Expr activation_slope(const Problem &, Halide::Expr value);

}  // namespace convsmith
