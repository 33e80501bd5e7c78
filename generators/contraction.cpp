#include "contraction.h"
#include <algorithm>
#include <numeric>

using namespace Halide;

namespace convsmith {

std::vector<SpatialAxis> spatial_axes(const Problem &p) {
  std::vector<SpatialAxis> axes;
  for (int a = p.rank - 1; a >= 0; a--) {
    SpatialAxis s{int(p.in[a]),     int(p.out(a)),      int(p.kernel[a]), int(p.stride[a]),
                  int(p.dilation[a]), int(p.pad_lo[a]), int(p.pad_hi[a])};
    if (p.op == Op::convolution) s.lo -= (s.kernel - 1) * s.dilation, s.dilation = -s.dilation;
    axes.push_back(s);
  }
  return axes;
}

Channels channels(const Problem &p) {
  if (p.groups > 1 && p.ic == p.groups && p.oc == p.groups) return {int(p.oc), 1, 1, true};
  return {int(p.oc / p.groups), int(p.ic / p.groups), int(p.groups), false};
}

Index tensor_index(Expr c, Expr g, const Index &spatial, Expr n) {
  Index i = {c, g};
  i.insert(i.end(), spatial.begin(), spatial.end());
  i.push_back(n);
  return i;
}

std::vector<int> tensor_extents(const Problem &p, bool output) {
  const Channels ch = channels(p);
  std::vector<int> e = {output || ch.depthwise ? ch.co : ch.ci, ch.g};
  for (auto &s : spatial_axes(p)) e.push_back(output ? s.out : s.in);
  e.push_back(int(p.n));
  return e;
}

BufferSpec tensor_spec(const Problem &p, const std::string &name, bool output) {
  BufferSpec t{name, output ? p.output_shape() : p.input_shape(), {}, {}, 0};
  const auto extents = tensor_extents(p, output);
  t.dims = {{1, extents[0]}, {1, extents[1], extents[0]}};
  for (int d = 0; d < p.rank; d++) t.dims.push_back({p.rank + 1 - d, extents[2 + d]});
  t.dims.push_back({0, extents.back()});
  for (int d = 0; d < p.rank; d++) t.memory.push_back(p.rank + 1 - d);
  // The innermost two axes are dense; rows, planes and batches may lie further apart.
  if (p.layout == Layout::channels_first) t.memory.push_back(1), t.fixed = 1;
  else t.memory.insert(t.memory.begin(), 1), t.fixed = 2;
  t.memory.push_back(0);
  return t;
}

BufferSpec plain_weight_spec(const Problem &p, const std::string &name, bool transposed) {
  const Channels ch = channels(p);
  BufferSpec w{name, p.weight_shape(), {}, {{0, ch.co}, {1, ch.ci}, {0, ch.g, ch.co}}, 0};
  for (int d = 0; d < p.rank; d++) w.dims.push_back({p.rank + 1 - d, int(p.kernel[p.rank - 1 - d])});
  if (transposed) w.memory = {1, 0};
  else w.memory = {0, 1};
  for (int d = 0; d < p.rank; d++) w.memory.push_back(p.rank + 1 - d);
  w.fixed = int(w.memory.size());
  return w;
}

BufferSpec weight_spec(const Workload &w, const std::string &name, bool transposed) {
  const Problem &p = w.problem;
  const Channels ch = channels(p);
  if (ch.depthwise) transposed = false;
  if (!w.panel) return plain_weight_spec(p, name, transposed);
  const int vec = transposed ? ch.ci : ch.co, other = transposed ? ch.co : ch.ci;
  std::vector<int> extents = {w.panel, other};
  for (auto &a : spatial_axes(p)) extents.push_back(a.kernel);
  extents.push_back((vec + w.panel - 1) / w.panel), extents.push_back(ch.g);
  BufferSpec packed{name, {extents.rbegin(), extents.rend()}, {}, {}, int(extents.size())};
  for (int d = 0; d < packed.fixed; d++)
    packed.memory.push_back(packed.fixed - 1 - d), packed.dims.push_back({packed.fixed - 1 - d, extents[d]});
  return packed;
}

BufferSpec channel_spec(const Problem &p, const std::string &name) {
  const Channels ch = channels(p);
  return {name, p.bias_shape(), {0}, {{0, ch.co}, {0, ch.g, ch.co}}, 1};
}

BufferSpec scalar_spec(const std::string &name) { return {name, {1}, {0}, {{0, 1}}, 1}; }

Region from_zero(const std::vector<int> &extents) {
  Region r;
  for (int e : extents) r.push_back({0, e});
  return r;
}

Finish plain() {
  return [](Expr sum, const Index &) { return sum; };
}

namespace {

// Too few channels to fill a vector: the innermost spatial axis is the vector axis instead, and the operands change
// roles.
bool along_space(int vector_channels) { return vector_channels < 8; }

// Dimension 0 of an operand is contiguous where it is staged.
template<class T> std::vector<T> space_first(std::vector<T> v, bool yes) {
  if (yes) std::rotate(v.begin(), v.begin() + 2, v.begin() + 3);
  return v;
}

// A tensor as the sums read it, with its border. Negative padding crops before the border applies.
Func padded(const std::string &name, Func f, const Problem &p, bool output, bool x_first) {
  const auto axes = spatial_axes(p);
  const std::vector<Var> v = f.args();
  Region inside = from_zero(tensor_extents(p, output));
  const bool zero = output || p.border == Border::zero;
  for (int d = 0; d < p.rank && !output; d++) {
    const int a = p.rank - 1 - d;
    const int crop_lo = std::max(0, -int(p.pad_lo[a])), crop_hi = std::max(0, -int(p.pad_hi[a]));
    inside[2 + d] = {crop_lo, axes[d].in - crop_lo - crop_hi};
  }
  Func b;
  if (zero) {
    b = BoundaryConditions::constant_exterior(f, 0.f, inside);
  } else {
    // The channels have no border, but a vectorised copy reads past their end.
    Region channels(inside.size(), {Expr(), Expr()});
    channels[0] = inside[0];
    inside[0] = inside[1] = inside.back() = {Expr(), Expr()};
    b = BoundaryConditions::repeat_edge(f, channels);
    b = p.border == Border::replicate ? BoundaryConditions::repeat_edge(b, inside)
        : p.border == Border::reflect ? BoundaryConditions::mirror_interior(b, inside)
                                      : BoundaryConditions::repeat_image(b, inside);
  }
  Func out(name);
  out(space_first(v, x_first)) = b(v);
  return out;
}

// Weights as weight(vector channel, other channel, g, k...), whether they arrive plain or in panels
// (vector channel % panel, other channel, k..., vector channel / panel, g).
Func weights(const Workload &w, Func buffer, bool transposed) {
  std::vector<Var> v = {Var("wc"), Var("wr"), Var("wg")};
  for (int d = 0; d < w.problem.rank; d++) v.push_back(numbered("k", d));
  Index at;
  if (w.panel) {
    at = {v[0] % w.panel, v[1]};
    at.insert(at.end(), v.begin() + 3, v.end());
    at.push_back(v[0] / w.panel), at.push_back(v[2]);
  } else {
    at.assign(v.begin(), v.end());
    if (transposed && !channels(w.problem).depthwise) std::swap(at[0], at[1]);
  }
  Func f("weight_in");
  f(v) = buffer(at);
  return f;
}

// The taps that reach one output of an axis. Tap t < count is kernel element first + t*step; for the output
// v*period + residue it reads element v*scale + t*move + base.
struct Taps {
  int first, step, count, scale, move, base;
};

Taps forward_taps(const SpatialAxis &a) { return {0, 1, a.kernel, a.stride, a.dilation, -a.lo}; }

// Of the input gradient, at the inputs i with i % stride == residue: those k with (i + lo - k*dil) % stride == 0.
Taps gradient_taps(const SpatialAxis &a, int residue) {
  const int step = a.stride / std::gcd(a.stride, a.dilation);
  for (int first = 0; first < std::min(step, a.kernel); first++) {
    const int at = residue + a.lo - first * a.dilation;
    if (at % a.stride == 0)
      return {first, step, (a.kernel - first + step - 1) / step, 1, -step * a.dilation / a.stride, at / a.stride};
  }
  return {0, 1, 0, 1, 0, 0};  // none: the gradient is zero there
}

}  // namespace

Stages gather(const Workload &w, bool gradient, Func in, Func weight, const Finish &finish) {
  const Problem &p = w.problem;
  const auto axes = spatial_axes(p);
  const Channels ch = channels(p);
  const int result_channels = gradient && !ch.depthwise ? ch.ci : ch.co;
  const int summed_channels = gradient && !ch.depthwise ? ch.co : ch.ci;
  const bool along = along_space(result_channels), x_first = along || p.layout == Layout::channels_first;
  Var c("c"), g("g"), n("n");

  Stages s;
  s.padded = padded("padded", in, p, gradient, x_first);
  const Func filter = weights(w, weight, gradient);
  s.free = {{c, result_channels}};
  Index v, sum_at;  // the position, and where its residue's sum holds it
  // Of each axis, the residues that some tap reaches. A stride past the kernel leaves most without.
  std::vector<std::vector<std::pair<int, Taps>>> reached(p.rank);
  bool all_reached = true;
  for (int d = 0; d < p.rank; d++) {
    const Var x = numbered("s", d);
    const int extent = gradient ? axes[d].in : axes[d].out, period = gradient ? std::min(axes[d].stride, extent) : 1;
    // With the stride past the extent each position is a residue of its own.
    for (int m = 0; m < period; m++)
      if (const Taps t = gradient ? gradient_taps(axes[d], m) : forward_taps(axes[d]); t.count > 0)
        reached[d].push_back({m, t});
    all_reached &= int(reached[d].size()) == period;
    s.free.push_back({x, extent, period, true});
    v.push_back(x), sum_at.push_back(period == 1 ? Expr(x) : x / period);
  }
  s.free.push_back({n, int(p.n)}), s.free.push_back({g, ch.g});

  // With a border of zeros, rows of taps in it add nothing; any other border is read.
  const bool trim = w.trim && (gradient || p.border == Border::zero);
  size_t combinations = 1;
  for (auto &r : reached) combinations *= r.size();
  Expr value = all_reached ? Expr() : Expr(0.f);
  for (size_t m = 0; m < combinations; m++) {
    std::vector<Taps> t;
    std::vector<int> domain = {summed_channels};
    Expr here;
    size_t rest = m;
    for (int d = 0; d < p.rank; d++) {
      const auto &[residue, taps] = reached[d][rest % reached[d].size()];
      rest /= reached[d].size();
      t.push_back(taps);
      domain.push_back(taps.count);
      if (s.free[1 + d].period == 1) continue;
      const Expr on = v[d] % s.free[1 + d].period == residue;
      here = here.defined() ? here && on : on;
    }
    RDom r(from_zero(domain), std::string("r").append(std::to_string(m)));
    Index read, tap = {c, r[0], g};
    for (int d = 0; d < p.rank; d++) {
      tap.push_back(t[d].first + r[d + 1] * t[d].step);
      read.push_back(v[d] * t[d].scale + r[d + 1] * t[d].move + t[d].base);
      if (trim && d > 0) r.where(read[d] >= 0 && read[d] < (gradient ? axes[d].out : axes[d].in));
    }
    Func acc(std::string("acc").append(std::to_string(m)));
    const Expr summed = ch.depthwise ? Expr(c) : Expr(r[0]);
    acc(tensor_index(c, g, v, n)) = 0.f;
    acc(tensor_index(c, g, v, n)) += filter(tap) * s.padded(space_first(tensor_index(summed, g, read, n), x_first));
    s.sums.push_back({acc, r, domain});
    // Selects, not mux(): Halide then skips the sums that a residue does not use.
    const Expr sum = acc(tensor_index(c, g, sum_at, n));
    value = value.defined() ? select(here, sum, value) : sum;
  }
  s.out = Func(gradient ? "dx_out" : "y_out");
  const Index at = tensor_index(c, g, v, n);
  s.out(at) = finish(value, at);

  s.vec = filter, s.bcast = s.padded, s.depthwise = ch.depthwise;
  if (along) std::swap(s.free[0], s.free[1]), std::swap(s.vec, s.bcast);
  const bool first = p.layout == Layout::channels_first;
  s.dense = first && !along ? 1 : 0;
  return s;
}

Stages weight_gradient(const Workload &w, Func x, Func dy, const Finish &finish) {
  const Problem &p = w.problem;
  const auto axes = spatial_axes(p);
  const Channels ch = channels(p);
  Var co("co"), ci("ci"), g("g");
  std::vector<int> domain;
  for (auto &a : axes) domain.push_back(a.out);
  domain.push_back(int(p.n));
  RDom r(from_zero(domain), "r");

  Stages s;
  s.bcast = s.padded = padded("x_padded", x, p, false, false);
  s.vec = padded("dy_padded", dy, p, true, false);
  Index o, i, at = {co, ci, g};
  std::vector<Axis> kernel;
  for (int d = 0; d < p.rank; d++) {
    const Var v = numbered("k", d);
    kernel.push_back({v, axes[d].kernel, 1, true});
    at.push_back(v), o.push_back(r[d]);
    i.push_back(o[d] * axes[d].stride + v * axes[d].dilation - axes[d].lo);
    if (w.trim && d > 0 && p.border == Border::zero) r.where(i[d] >= 0 && i[d] < axes[d].in);
  }
  Func acc("acc"), dw("dw_out");
  acc(at) = 0.f;
  acc(at) += s.vec(tensor_index(co, g, o, r[p.rank])) *
             s.bcast(tensor_index(ch.depthwise ? co : ci, g, i, r[p.rank]));
  dw(at) = finish(acc(at), at);

  s.out = dw, s.sums = {{acc, r, domain}};
  s.depthwise = ch.depthwise, s.over_positions = true;
  s.free = {{co, ch.co, 1, true}, {ci, ch.ci, 1, true}};
  s.free.insert(s.free.end(), kernel.begin(), kernel.end());
  s.free.push_back({g, ch.g});
  return s;
}

}  // namespace convsmith
