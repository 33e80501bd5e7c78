// Shared by the files of generators/: the correlation that each operator is, and the two contractions of it.
#pragma once
#include "layout.h"
#include <functional>

namespace convsmith {

Index tensor_index(Halide::Expr c, Halide::Expr g, const Index &spatial, Halide::Expr n);
Halide::Region from_zero(const std::vector<int> &extents);
Halide::Region from_zero(const std::vector<Extent> &extents);

inline bool is_quantised(const Workload &w) { return w.problem.type == Type::u8s8; }

/// The epilogue: (the sum, the index of the result) -> the result and what is stored beside it.
using Finish = std::function<std::vector<Halide::Expr>(Halide::Expr, const Index &)>;
/// The sum itself, rounded to a type.
Finish rounded_to(Halide::Type);

/// A tensor on one side of the correlation as the sums read it: in the type of the sums (8 bits stay 8 bits), with its
/// border. Dimension 0 is x where `x_first`, else the channel, or with `row` channels of them x*row + channel, x then being 0.
struct Operand {
  Halide::Func f;
  bool x_first;
  int row = 1;
  Halide::Func lines = {};  // Stages::lines

  Halide::Expr at(Halide::Expr c, const Halide::Expr &g, Index spatial, const Halide::Expr &n) const;
};
/// `beyond` is the value of a border of zeros. A negative padding crops before the border applies. `fill`: the operand is
/// copied, and updates write whole rows, then zeros at both their ends, then the border that copies.
Operand with_border(const Workload &, const Geometry &, const std::string &name, const Halide::Func &, Side, bool x_first,
                    const Halide::Expr &beyond, bool fill = false);
/// How many positions at most a weight gradient's rows are longer than the tensor's, so that they are whole vectors of positions: where both
/// operands are copied, with zeros behind, and the last vector is not short.
int positions_added(const Workload &, const Geometry &);
/// A tensor that is read in place and only inside, but for channels and groups past the last.
Operand unbordered(const Workload &, const Geometry &, const std::string &name, const Halide::Func &, Side);
/// Weights as weight(vector channel, other channel, g, k...[, position...]) in the type of the sums, however they lie;
/// the position first where `position_first`. `of` is the side whose channels are the vector axis.
Halide::Func filter_of(const Workload &, const Geometry &, Halide::Func, Side of, bool position_first = false);

/// Numbers of each channel, channel first, over a period of a row that interleaves the channels.
Halide::Func along_row(const Halide::Func &, int interleaved);

/// y(co,g,o,n)   = finish(sum over ci,k of weight(co,ci,g,k) * x(ci, g, o*s + k*dil - lo, n))             Side::out
/// dx(ci,g,i,n)  = finish(sum over co,k of weight(co,ci,g,k) * dy(co, g, (i + lo - k*dil)/s, n)), over the taps k for
/// which s divides                                                                                        Side::in
/// A strided gradient has one sum a residue of i modulo s. Unshared weights have a further index, the position o.
Stages gather(const Workload &, const Geometry &, Side result, Halide::Func from, Halide::Func weight, const Finish &,
              Halide::Expr beyond = 0);
/// The gradient of x through a border that copies: that of the padded tensor, each copy added to what it copies.
Stages folded_gradient(const Workload &, const Geometry &, Halide::Func dy, Halide::Func weight);

/// dw(co,ci,g,k) = finish(sum over o,n of dy(co,g,o,n) * x(ci, g, o*s + k*dil - lo, n)); unshared weights keep o.
Stages weight_gradient(const Workload &, const Geometry &, Halide::Func x, Halide::Func dy, const Finish &);

/// What follows the sums of a forward pass: bias, residual, activation, from the inputs after the weights.
Finish epilogue(const Workload &, const std::vector<Halide::Func> &extra);
/// The sum with bias and residual: what the activation is applied to.
Halide::Expr pre_activation(const Workload &, Halide::Expr sum, const Index &at, const std::vector<Halide::Func> &extra);
Halide::Expr activated(const Workload &, Halide::Expr pre);
/// d activation / d pre-activation, at a kink that of its flatter side, from the pre-activation or from the output.
Halide::Expr slope_from_pre(const Workload &, Halide::Expr pre);
Halide::Expr slope_from_output(const Problem &, Halide::Expr y);

/// The forward pass of 8-bit operands: x, the weights, quantised_inputs, then as for `epilogue`.
std::vector<BufferSpec> quantised_inputs(const Workload &);
Stages quantised_forward(const Workload &, const Geometry &, const std::vector<Halide::Func> &in);

}  // namespace convsmith
