// Borders: a tensor as the sums read it, in place or copied with its border, and the input gradient through a border that copies.
#include "contraction.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

// Dimension 0 of an operand is contiguous where it is staged.
template<class T> std::vector<T> space_first(std::vector<T> v, bool yes) {
  if (yes) std::rotate(v.begin(), v.begin() + 2, v.begin() + 3);
  return v;
}

// What a negative padding leaves of an axis.
Range uncropped(const SpatialAxis &a) {
  const int lo = std::max(0, -a.pad_lo), hi = std::max(0, -a.pad_hi);
  return {lo, a.in.value - (lo + hi)};
}

// Of m positions along an axis the one that an element of the border copies, `t` >= 0 of its kind lying between it and the inside.
Expr copied(Border border, bool right, const Expr &t, const Expr &m) {
  switch (border) {
    case Border::reflect: return right ? m - 2 - t : t + 1;
    case Border::wrap: return right ? t : m - 1 - t;
    default: return right ? m - 1 : Expr(0);
  }
}

// The index that a border makes of one along an axis of x*C + c: within [0, extent).
Expr from_border(Border border, const Expr &e, int channels, const Expr &extent) {
  const Expr m = extent / channels, last = extent - 1;
  if (border == Border::replicate && channels == 1) return clamp(likely(e), 0, last);
  const Expr x = channels == 1 ? e : (e - e % channels) / channels, c = channels == 1 ? 0 : e % channels;
  const auto of = [&](bool right) { return copied(border, right, right ? x - m : -1 - x, m) * channels + c; };
  return select(e < 0 || e > last, clamp(select(e < 0, of(false), of(true)), 0, last), clamp(likely(e), 0, last));
}

// How far past the two ends of a tensor's axis (0: its row) its windows, or those of the gradient, reach.
std::pair<int, int> reach(const Workload &w, const Geometry &geo, Side side, size_t axis = 0) {
  const SpatialAxis &a = geo.axes[axis];
  if (side == Side::in) return {std::max(0, a.pad_lo), std::max(0, a.pad_hi)};
  if (w.pass == PassKind::weight_gradient) return {0, 0};
  const int window = (a.kernel - 1) * std::abs(a.dilation), out_pad = int(w.problem.out_pad[size_t(w.problem.rank) - 1 - axis]) * (axis == 0 ? geo.interleaved : 1);
  return {std::max(0, window + a.stride - 1 - a.pad_lo) / a.stride, std::max(0, window + std::max(a.stride - 1, out_pad) - a.pad_hi) / a.stride};
}

}  // namespace

Expr Operand::at(Expr c, const Expr &g, Index spatial, const Expr &n) const {
  if (row > 1) c = spatial[0] * row + c, spatial[0] = 0;
  return f(space_first(tensor_index(c, g, spatial, n), x_first));
}

Operand with_border(const Workload &w, const Geometry &geo, const std::string &name, const Func &f, Side side, bool x_first,
                    const Expr &beyond, bool fill) {
  const Problem &p = w.problem;
  const std::vector<Var> v = f.args();
  const std::vector<Extent> whole = extents(geo, side);
  Region inside = from_zero(whole);
  const Border border = side == Side::out ? Border::zero : p.border;
  // A transposed problem's negative padding makes its output larger; nothing reads what that adds.
  for (size_t d = 0; d < geo.axes.size() && side == Side::in && p.op != Op::transposed; d++) inside[2 + d] = uncropped(geo.axes[d]);
  const auto read = [&](Expr value) -> Expr {
    if (!is_quantised(w)) return cast(sum_type(p), value);
    return w.offset ? reinterpret<int8_t>(value ^ cast<uint8_t>(128)) : value;
  };
  const SpatialAxis &along = geo.axes[0];
  // Channels that fill no vectors are copied with those beside them, where rows are dense: channels last.
  const int channels = geo.channels(side);
  Operand to{Func(name), x_first, fill && !x_first && geo.g == 1 && p.layout == Layout::channels_last && channels % 16 != 0 ? channels : 1};
  fill = fill && (x_first || to.row > 1);

  // A select for each end of each axis, so that Halide can set apart the loops that meet none of them where extents are
  // known only when run; BoundaryConditions joins them into one, and divides by extents.
  const auto bordered = [&](const Index &index, const std::vector<bool> &without) {
    Index at;
    for (size_t d = 0; d < v.size(); d++) {
      const bool space = d >= 2 && d + 1 < v.size();
      const Expr i = index[d] - inside[d].min;
      if (without[d]) at.push_back(index[d]);
      else if (!space || border == Border::zero) at.push_back(inside[d].min + clamp(likely(i), 0, inside[d].extent - 1));
      else at.push_back(inside[d].min + from_border(border, i, d == 2 ? geo.interleaved : 1, inside[d].extent));
    }
    Expr value = f(at);
    // No tile reads past a group or a batch; with extents known only when run Halide would keep their selects in the hot loop.
    for (size_t d = 0; d < v.size() && border == Border::zero; d++) {
      if (d == 1 || d + 1 == v.size() || without[d]) continue;
      // Where no window reaches past an end, only sums past the result's own end read there, and those are dropped. A sum over positions
      // may read zeros there as terms.
      const bool open = d >= 2 && w.pass != PassKind::weight_gradient && !whole[d].known;
      const auto [left, right] = open ? reach(w, geo, side, d - 2) : std::pair(1, 1);
      if (left) value = select(index[d] < inside[d].min, cast(f.type(), beyond), likely(value));
      if (right) value = select(index[d] > inside[d].min + inside[d].extent - 1, cast(f.type(), beyond), likely(value));
    }
    return read(value);
  };
  std::vector<bool> without(v.size(), false);
  Index i(v.begin(), v.end());
  if (!fill) {
    to.f(space_first(v, x_first)) = bordered(i, without);
    return to;
  }
  // Rows first; then the zeros at both their ends, so far out as tiles that overrun them read; then any copies there.
  const int c = to.row * geo.interleaved;  // elements of a position
  const RDom row(inside[2].min * to.row, inside[2].extent * to.row, "row");
  const Expr first = row.x.min(), end = first + row.x.extent();
  const size_t x = to.row > 1 ? 0 : 2;  // the dimension of rows
  const auto element = [&](const Expr &e) {
    Index at(v.begin(), v.end());
    at[x] = e;
    return space_first(at, x_first);
  };
  without[2] = true, i[2] = row;
  if (to.row > 1) without[0] = true, i[0] = row % to.row, i[2] = row / to.row;
  Expr value = bordered(i, without);
  to.f(space_first(v, x_first)) = undef(value.type());
  if (x_first && p.layout == Layout::channels_last && channels % 16 == 0) {
    // Squares of these are transposed in registers; past the row's end its last position is read.
    Index at(v.begin(), v.end());
    at[2] = clamp(v[2], row.x.min(), row.x.min() + row.x.extent() - 1);
    to.lines = Func(name + "_lines");
    to.lines(v) = bordered(at, without);
    at[2] = row;
    value = to.lines(at);
  }
  to.f(element(row)) = value;
  const auto [left, right] = reach(w, geo, side);
  const int overrun = w.fill_both || (whole[2].known && geo.interleaved == 1) ? 0 : 32 * geo.interleaved;
  const Expr zero = read(cast(f.type(), beyond));
  if (right + overrun) to.f(element(end + RDom(0, ((right + overrun) * to.row + 15) / 16 * 16, "behind"))) = zero;  // whole vectors
  if (left) to.f(element(first - 1 - RDom(0, left * to.row, "before"))) = zero;
  const Expr m = row.x.extent() / c;
  for (const bool at_end : {false, true}) {
    const int positions = border == Border::zero ? 0 : std::max(0, at_end ? along.pad_hi : along.pad_lo) / geo.interleaved;
    if (positions == 0) continue;
    const RDom edge(0, c, 0, positions, at_end ? "right" : "left");
    to.f(element(first + (at_end ? m + edge.y : -1 - edge.y) * c + edge.x)) = to.f(element(first + copied(border, at_end, edge.y, m) * c + edge.x));
  }
  // Of a sum whose rows are whole vectors, also elements that no window reads.
  if (const int more = positions_added(w, geo)) {
    const int step = side == Side::in ? along.stride : 1, window = side == Side::in ? std::max(0, (along.kernel - 1) * along.dilation) - along.lo : 0;
    to.f(element((along.out.value - 1) * step + window + 1 + RDom(0, (more * step + 15) / 16 * 16, "past"))) = zero;
  }
  return to;
}

int positions_added(const Workload &w, const Geometry &geo) {
  if (!w.fill_both || geo.unshared) return 0;
  const Extent &row = geo.axes[0].out;
  if (!row.known) return w.position_lanes - 1;
  // Read lane by lane where it is short: rows of 17, three channels, stride 8, 9.4 against 15.9 us (Emerald Rapids).
  const int last = row.plan % w.position_lanes;
  return 2 * last >= w.position_lanes ? w.position_lanes - last : 0;
}

Operand unbordered(const Workload &w, const Geometry &geo, const std::string &name, const Func &f, Side side) {
  const std::vector<Var> v = f.args();
  Index at(v.begin(), v.end());
  at[0] = clamp(v[0], 0, geo.channels(side) - 1), at[1] = clamp(v[1], 0, geo.g - 1);
  Operand in{Func(name), false};
  in.f(v) = cast(sum_type(w.problem), f(at));
  return in;
}

// The input gradient of a correlation whose border copies. With B the border's map from a position of the padded
// input to the one that it copies, and gp the gradient of the padded input,
//
//   dx(i) = sum over the j with B(j) = i of gp(j),   axis by axis, m the input's extent and i counted from its crop:
//     replicate  gp(lo+i) + [i == 0] sum_{t < lo} gp(t)  +  [i == m-1] sum_{t < hi} gp(lo+m+t)
//     reflect    gp(lo+i) + [1 <= i <= lo] gp(lo-i)      +  [m-1-hi <= i < m-1] gp(lo+2(m-1)-i)
//     wrap       gp(lo+i) + [i >= m-lo] gp(lo+i-m)       +  [i < hi] gp(lo+i+m)
//
// gp is the contraction, unchanged; its border is added onto what it copies, in place, and what is inside becomes dx.
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
  Func gp = s.result();
  const std::vector<Var> v = gp.args();
  Index inside(v.begin(), v.end());
  Expr cropped;
  for (size_t d = 0; d < geo.axes.size(); d++) {
    const SpatialAxis &a = geo.axes[d];
    const int lo = std::max(0, a.pad_lo), hi = std::max(0, a.pad_hi);
    const Range inside_crop = uncropped(a);
    const Expr m = inside_crop.extent;
    const auto at = [&](const Expr &position) {
      Index x(v.begin(), v.end());
      x[2 + d] = position;
      return x;
    };
    for (const bool right : {false, true}) {
      if (!(right ? hi : lo)) continue;
      const RDom t(0, right ? hi : lo, right ? "right" : "left");
      gp(at(lo + copied(w.problem.border, right, t, m))) += gp(at(right ? lo + m + t : lo - 1 - t));
    }
    inside[2 + d] = v[2 + d] - inside_crop.min + lo;
    if (a.pad_lo >= 0 && a.pad_hi >= 0) continue;
    inside[2 + d] = clamp(inside[2 + d], lo, lo + m - 1);
    const Expr outside = v[2 + d] < inside_crop.min || v[2 + d] >= inside_crop.min + m;
    cropped = cropped.defined() ? cropped || outside : outside;
  }
  const Expr value = cast(tensor_type(w.problem), gp(inside));
  Func dx("dx_folded");
  dx(v) = cropped.defined() ? select(cropped, cast(value.type(), 0), value) : value;
  s.after.push_back(dx);
  return s;
}

}  // namespace convsmith
