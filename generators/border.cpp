// The input gradient of a correlation whose border copies. With B the border's map from a position of the padded
// input to the one that it copies, and gp the gradient of the padded input,
//
//   dx(i) = sum over the j with B(j) = i of gp(j),   axis by axis, m the input's extent and i counted from its crop:
//     replicate  gp(lo+i) + [i == 0] sum_{t < lo} gp(t)  +  [i == m-1] sum_{t < hi} gp(lo+m+t)
//     reflect    gp(lo+i) + [1 <= i <= lo] gp(lo-i)      +  [m-1-hi <= i < m-1] gp(lo+2(m-1)-i)
//     wrap       gp(lo+i) + [i >= m-lo] gp(lo+i-m)       +  [i < hi] gp(lo+i+m)
//
// gp is the contraction, unchanged; its border is added onto what it copies, in place, and what is inside becomes dx.
#include "contraction.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {

Stages folded_gradient(const Workload &w, const Geometry &geo, Func dy, Func weight) {
  Geometry whole = geo;  // takes the padded tensor as its input
  for (auto &a : whole.axes) {
    const int more = a.pad_lo + a.pad_hi;  // a crop counts here too
    a.in = a.in.known ? Extent(a.in.plan + more) : Extent(a.in.plan + more, a.in.value + more);
    a.lo -= a.pad_lo, a.pad_lo = a.pad_hi = 0;
  }
  const auto keep = [](Expr sum, const Index &) { return std::vector<Expr>{sum}; };
  Stages s = gather(w, whole, Side::in, dy, weight, keep);
  s.dense = 0;  // gp's order in memory is ours
  const std::vector<Var> v = s.out.args();
  Index inside(v.begin(), v.end());
  Expr cropped;
  for (size_t d = 0; d < geo.axes.size(); d++) {
    const SpatialAxis &a = geo.axes[d];
    const int crop = std::max(0, -a.pad_lo), lo = std::max(0, a.pad_lo), hi = std::max(0, a.pad_hi);
    const Expr m = a.in.value - crop - std::max(0, -a.pad_hi);
    const auto at = [&](const Expr &position) {
      Index x(v.begin(), v.end());
      x[2 + d] = position;
      return x;
    };
    for (const bool right : {false, true}) {
      if (!(right ? hi : lo)) continue;
      const RDom t(0, right ? hi : lo, right ? "right" : "left");
      s.out(at(lo + copied(w.problem.border, right, t, m))) += s.out(at(right ? lo + m + t : lo - 1 - t));
    }
    inside[2 + d] = v[2 + d] - crop + lo;
    if (a.pad_lo >= 0 && a.pad_hi >= 0) continue;
    inside[2 + d] = clamp(inside[2 + d], lo, lo + m - 1);
    const Expr outside = v[2 + d] < crop || v[2 + d] >= crop + m;
    cropped = cropped.defined() ? cropped || outside : outside;
  }
  const Expr value = cast(tensor_type(w.problem), s.out(inside));
  Func dx("dx_folded");
  dx(v) = cropped.defined() ? select(cropped, cast(value.type(), 0), value) : value;
  s.after.push_back(dx);
  return s;
}

}  // namespace convsmith
