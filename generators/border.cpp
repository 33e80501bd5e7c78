// The input gradient of a correlation whose border copies. With B the border's map from a position of the padded
// input to the one that it copies, and gp the gradient of the padded input,
//
//   dx(i) = sum over the j with B(j) = i of gp(j),   axis by axis, m the input's extent and i counted from its crop:
//     replicate  gp(lo+i) + [i == 0] sum_{t < lo} gp(t)  +  [i == m-1] sum_{t < hi} gp(lo+m+t)
//     reflect    gp(lo+i) + [1 <= i <= lo] gp(lo-i)      +  [m-1-hi <= i < m-1] gp(lo+2(m-1)-i)
//     wrap       gp(lo+i) + [i >= m-lo] gp(lo+i-m)       +  [i < hi] gp(lo+i+m)
//
// gp is the contraction, unchanged; the folds behind it are one pass over memory an axis.
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
  Func f = s.out;
  for (size_t d = 0; d < geo.axes.size(); d++) {
    const SpatialAxis &a = geo.axes[d];
    const int crop = std::max(0, -a.pad_lo), lo = std::max(0, a.pad_lo), hi = std::max(0, a.pad_hi);
    const Expr m = a.in.value - crop - std::max(0, -a.pad_hi), i = v[2 + d] - crop;
    const auto at = [&](Expr j) {
      Index x(v.begin(), v.end());
      x[2 + d] = clamp(j, 0, m + lo + hi - 1);
      return f(x);
    };
    const Expr inner = at(likely(lo + i));
    Expr value = at(lo + i);
    Expr first = 1, last = m - 2;  // of those onto which nothing is folded
    switch (w.problem.border) {
      case Border::replicate:
        for (const bool right : {false, true}) {
          const int count = right ? hi : lo;
          if (!count) continue;
          RDom t(0, count);
          Func edge(std::string(right ? "right_edge" : "left_edge").append(std::to_string(d)));
          std::vector<Var> across = v;
          across.erase(across.begin() + 2 + d);
          Index x(v.begin(), v.end());
          x[2 + d] = t + (right ? lo + m : 0);
          edge(across) = 0.f;
          edge(across) += f(x);
          s.after.push_back(edge);
          value += select(i == (right ? m - 1 : Expr(0)), edge(across), 0.f);
        }
        break;
      case Border::reflect:
        first = lo + 1, last = m - 2 - hi;
        if (lo) value += select(i >= 1 && i <= lo, at(lo - i), 0.f);
        if (hi) value += select(i >= m - 1 - hi && i < m - 1, at(lo + 2 * (m - 1) - i), 0.f);
        break;
      case Border::wrap:
        first = hi, last = m - 1 - lo;
        if (lo) value += select(i >= m - lo, at(lo + i - m), 0.f);
        if (hi) value += select(i < hi, at(lo + i + m), 0.f);
        break;
      case Border::zero: break;
    }
    Func folded(std::string("folded").append(std::to_string(d)));
    folded(v) = select(i < first || i > last, select(i >= 0 && i < m, value, 0.f), likely(inner));
    f = folded;
  }
  Func dx("dx_folded");
  dx(v) = cast(tensor_type(w.problem), f(v));
  s.after.push_back(dx);
  return s;
}

}  // namespace convsmith
