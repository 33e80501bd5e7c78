#include "contraction.h"
#include <algorithm>
#include <cmath>
#include <numeric>

using namespace Halide;

namespace convsmith {

Index tensor_index(Expr c, Expr g, const Index &spatial, Expr n) {
  Index i = {c, g};
  i.insert(i.end(), spatial.begin(), spatial.end());
  i.push_back(n);
  return i;
}

Region from_zero(const std::vector<int> &extents) {
  Region r;
  for (int e : extents) r.push_back({0, e});
  return r;
}

Region from_zero(const std::vector<Extent> &extents) {
  Region r;
  for (auto &e : extents) r.push_back({0, e.value});
  return r;
}

Finish rounded_to(Halide::Type type) {
  return [type](Expr sum, const Index &) { return std::vector<Expr>{cast(type, sum)}; };
}

namespace {

std::vector<int> plans(const std::vector<Extent> &extents) {
  std::vector<int> p;
  for (auto &e : extents) p.push_back(e.plan);
  return p;
}

bool all_known(const std::vector<Extent> &extents) {
  return std::all_of(extents.begin(), extents.end(), [](const Extent &e) { return e.known; });
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

// Of the input gradient too, where an index tells the residues apart: with step as above those that some tap reaches are those of j*dilation,
// j < firsts being their first tap. At the inputs v*stride + (j*dilation) % stride - lo tap j + t*step, t < count, as far as it is one, reads
// element v + base(j) + t*move.
struct WalkedTaps {
  const SpatialAxis &a;
  int g = std::gcd(a.stride, a.dilation), step = a.stride / g;
  int firsts = std::min(step, a.kernel), count = (a.kernel + step - 1) / step, move = -step * a.dilation / a.stride;

  bool all() const { return firsts + (count - 1) * step == a.kernel; }  // whether each j has `count` of them
  Expr base(const Expr &j) const { return a.dilation == 1 ? Expr(0) : -(j * a.dilation / a.stride); }
  // The j of an input, at the residue m = (input + lo) % stride; past firsts, or where g does not divide m, there is none.
  Expr first(const Expr &m) const {
    const Expr units = g == 1 ? m : m / g;
    const int unit = a.dilation / g;
    if ((unit - 1) % step == 0) return units;
    if ((unit + 1) % step == 0) return (step - units) % step;
    std::int64_t inverse = 1;  // of unit, modulo step
    while ((inverse * unit - 1) % step) inverse++;
    return cast<int>(cast<std::int64_t>(units) * Expr(inverse) % Expr(std::int64_t(step)));
  }
  // How many v the inputs are at.
  Extent extent() const {
    const int least = int(std::floor(double(a.lo) / a.stride));
    const int plan = int(std::floor((a.in.plan - 1. + a.lo) / a.stride)) - least + 1;
    return a.in.known ? Extent(plan) : Extent(plan, (a.in.value + (a.lo - 1)) / a.stride - (least - 1));
  }
};

// Where both hold; the first may be undefined yet.
Expr and_also(const Expr &a, const Expr &b) { return a.defined() ? a && b : b; }

// The same taps from last to first.
Taps reversed(const Taps &t) {
  return {t.first + (t.count - 1) * t.step, -t.step, t.count, t.scale, -t.move, t.base + (t.count - 1) * t.move};
}

}  // namespace

Func filter_of(const Workload &w, const Geometry &geo, Func buffer, Side of, bool position_first) {
  const size_t rank = geo.axes.size();
  std::vector<Var> v = {Var("wc"), Var("wr"), Var("wg")};
  for (size_t d = 0; d < rank; d++) v.push_back(numbered("k", int(d)));
  for (size_t d = 0; d < rank && geo.unshared; d++) v.push_back(numbered("o", int(d)));
  Index at;
  if (w.quad) {
    at = {v[1] % w.quad, v[0], v[1] / w.quad};
    at.insert(at.end(), v.begin() + 3, v.end());
    at.push_back(v[2]);
  } else if (w.panel) {
    at = {v[0] % w.panel, v[1]};
    at.insert(at.end(), v.begin() + 3, v.end());
    // Past the last panel a tile reads that one again, for channels that it does not store.
    const int channels = geo.channels(of), panels = (channels + w.panel - 1) / w.panel;
    at.push_back(channels % w.panel ? min(v[0] / w.panel, panels - 1) : v[0] / w.panel), at.push_back(v[2]);
  } else {
    at.assign(v.begin(), v.end());
    if (of == Side::in && !geo.depthwise) std::swap(at[0], at[1]);
    // A gradient reads past the positions, where dy is zero.
    for (size_t d = 0; d < rank && geo.unshared && of == Side::in; d++)
      at[3 + rank + d] = clamp(at[3 + rank + d], 0, geo.axes[d].out.value - 1);
  }
  if (position_first) std::rotate(v.begin(), v.begin() + 3 + rank, v.begin() + 4 + rank);
  Func f("weight_in");
  f(v) = is_quantised(w) ? Expr(buffer(at)) : cast(sum_type(w.problem), buffer(at));
  return f;
}

Func along_row(const Func &of_channel, int interleaved) {
  const std::vector<Var> v = of_channel.args();
  Index at(v.begin(), v.end());
  at[0] = v[0] % interleaved;
  Func row(of_channel.name() + "_row");
  row(v) = of_channel(at);
  return row;
}

namespace {

bool dense_floats(const Workload &w, const Geometry &geo) {
  return !geo.depthwise && !geo.unshared && !is_quantised(w) && !w.target.has_gpu_feature();
}

// Dense, on a processor, in floats, and of one tap, so that nothing is read again by another.
bool one_tap(const Workload &w, const Geometry &geo) {
  return dense_floats(w, geo) && std::all_of(geo.axes.begin(), geo.axes.end(), [](const SpatialAxis &a) { return a.kernel == 1; });
}

bool strided(const Geometry &geo) {
  return std::any_of(geo.axes.begin(), geo.axes.end(), [](const SpatialAxis &a) { return a.stride > 1; });
}

// Channels first: rows are the vectors where the sum is so short that transposing its result on its way out would cost much. 3x3,
// 3 -> 64 channels at 224x224: 1.17 against 2.11 ms, at 20x20 15 against 32 us, 4 -> 64 at 112x112 0.41 against 0.60 ms; 8 -> 64 0.80
// against 0.94, but at AVX2 8 -> 32 at 28x28 53 against 49 us (Emerald Rapids). One tap meets no other:
// 1x1, 16 -> 96 at 112x112 180 against 313 us, but 256 -> 64 450 against 406. Or where they fill lanes better than the channels:
// 96 -> 24 at 56x56 65 against 102, its gradient 65 against 108 (Zen 5).
bool rows_are_vectors(const Workload &w, const Geometry &geo, int result_channels, int summed_channels) {
  const Extent &row = geo.axes[0].out;
  if (w.problem.layout != Layout::channels_first || !dense_floats(w, geo) || strided(geo) || !row.known) return false;
  if (one_tap(w, geo)) return row.plan >= 28 && (summed_channels <= 64 || filled(row.plan) > 1.1 * filled(result_channels));
  std::int64_t terms = summed_channels;
  for (auto &a : geo.axes) terms *= a.kernel;
  return row.plan >= 8 && terms <= 64;
}

// Channels last, one tap: rows would be gathered element by element, and no other tap reads them again, so that a short vector of
// channels is better. 1x1, 32 -> 3 channels at 24x40x40: 179 against 276 us (Zen 5).
bool channels_gather_less(const Workload &w, const Geometry &geo, int result_channels, int summed_channels) {
  return w.problem.layout == Layout::channels_last && one_tap(w, geo) && result_channels > 1 && summed_channels >= 8;
}

}  // namespace

Stages gather(const Workload &w, const Geometry &geo, Side result, Func from, Func weight, const Finish &finish,
              Expr beyond) {
  const Problem &p = w.problem;
  const bool gradient = result == Side::in;
  const size_t rank = geo.axes.size();
  const int result_channels = geo.channels(result), summed_channels = geo.depthwise ? 1 : gradient ? geo.co : geo.ci;
  const bool along = (along_space(result_channels) && !channels_gather_less(w, geo, result_channels, summed_channels)) ||
                     rows_are_vectors(w, geo, result_channels, summed_channels);
  const bool x_first = !w.quad && (along || p.layout == Layout::channels_first);
  Var c("c"), g("g"), n("n");

  Stages s;
  const Side source = gradient ? Side::out : Side::in;
  const Operand operand = with_border(w, geo, "padded", from, source, x_first, beyond, w.fill);
  s.padded = operand.f, s.lines = operand.lines;
  s.padded_dense = x_first == (p.layout == Layout::channels_first || geo.channels(source) * geo.g == 1);
  const bool position_first = geo.unshared && along;
  Func filter = filter_of(w, geo, weight, result, position_first);
  if (geo.interleaved > 1) filter = along_row(filter, geo.interleaved), s.before.push_back(filter);
  s.free = {{c, result_channels}};
  // A tile that is shifted inwards would gather its weights from two panels: 3x3, 512 -> 264 channels at 14x14, 4.3 against 6.4 ms, in a line
  // 1,024 -> 129 3.6 against 10.6 (Emerald Rapids).
  if (w.panel && result_channels % w.panel && !along && !w.target.has_gpu_feature()) s.free[0].repeat = w.panel;
  std::vector<int> periods;
  std::vector<WalkedTaps> walks;
  std::int64_t residues = 1, reached_residues = 1;
  for (size_t d = 0; d < rank; d++) {
    const SpatialAxis &a = geo.axes[d];
    const Extent &extent = gradient ? a.in : a.out;
    // With the stride past the extent each position is a residue of its own.
    periods.push_back(!gradient ? 1 : extent.known ? std::min(a.stride, extent.plan) : a.stride);
    walks.push_back({a});
    residues = std::min<std::int64_t>(residues * periods[d], 1 << 20);
    const int firsts = !gradient ? 1 : periods[d] > 1 ? walks[d].firsts : std::min(1, gradient_taps(a, 0).count);
    reached_residues = std::min<std::int64_t>(reached_residues * firsts, 1 << 20);
  }
  // Few residues have a sum each, which unroll a tile of the result. Many, which would make the code long, are an index of one tensor of
  // sums, which are then put in order: 4x4 with stride 4, 128 -> 64 channels, 412 against 438 us; but 3x3 with stride 3, 64 channels, 228
  // against 190, and 4x4 of three channels, whose rows are vectors, 1,240 against 440 (Emerald Rapids).
  const int few = along || w.target.has_gpu_feature() ? 16 : 9;
  const bool walked = reached_residues > few || (reached_residues > 0 && residues > 64);
  Index v, sum_at, first;  // the position, where its residue's sum holds it, and the residue's first tap
  std::vector<Var> firsts;
  std::vector<Axis> walked_axes;
  for (size_t d = 0; d < rank; d++) {
    const SpatialAxis &a = geo.axes[d];
    const Var x = numbered("s", int(d));
    const bool walk = walked && periods[d] > 1;
    const Extent extent = walk ? walks[d].extent() : gradient ? a.in : a.out;
    s.free.push_back({x, extent.plan, walk ? 1 : periods[d], gradient || !geo.unshared, extent.known, extent.value, false, 1, d == 0 ? geo.interleaved : 1});
    v.push_back(x), first.push_back(0);
    sum_at.push_back(walk ? (x + a.lo) / a.stride : periods[d] == 1 ? Expr(x) : x / periods[d]);
    if (!walk) continue;
    firsts.push_back(numbered("j", int(d))), first[d] = firsts.back();
    walked_axes.push_back({firsts.back(), walks[d].firsts});
  }
  s.free.insert(s.free.end(), walked_axes.begin(), walked_axes.end());

  // With a border of zeros, rows of taps in it add nothing; any other border is read.
  const bool trim = w.trim && (gradient || p.border == Border::zero) && !is_quantised(w);
  const Halide::Type type = sum_type(p);
  // One sum over so many taps of each axis, the tap and the position that it reads being made of the tap's number. Some may be none.
  struct Tap {
    Expr kernel, read, none = {};
  };
  const auto add_sum = [&](const std::vector<int> &taps, const std::function<Tap(size_t, const Expr &)> &tap_of, const Expr &image) {
    const std::string number = std::to_string(s.sums.size());
    // Fours are whole: the packed weights are zero past the last channel.
    std::vector<int> domain = {w.quad ? (summed_channels + w.quad - 1) / w.quad * w.quad : summed_channels};
    domain.insert(domain.end(), taps.begin(), taps.end());
    RDom r(from_zero(domain), "r" + number);
    Index read, tap = {geo.interleaved > 1 ? v[0] % row_period(geo.interleaved) : Expr(c), r[0], g};
    for (size_t d = 0; d < rank; d++) {
      const SpatialAxis &a = geo.axes[d];
      const Tap t = tap_of(d, r[int(d) + 1]);
      tap.push_back(t.kernel), read.push_back(t.read);
      if (t.none.defined()) r.where(!t.none);
      // Of one tap there is no loop whose ends Halide could move: the operand's border has the zeros.
      if (trim && d > 0 && taps[d] > 1) r.where(read[d] >= 0 && read[d] < (gradient ? a.out : a.in).value);
    }
    for (size_t d = 0; d < rank && geo.unshared; d++) tap.push_back(gradient ? read[d] : v[d]);
    if (position_first) std::rotate(tap.begin(), tap.begin() + 3 + rank, tap.begin() + 4 + rank);
    Func acc("acc" + number);
    const Expr summed = geo.depthwise ? Expr(c) : Expr(r[0]);
    Index at = tensor_index(c, g, v, n);
    at.insert(at.end(), firsts.begin(), firsts.end());
    acc(at) = cast(type, 0);
    acc(at) += cast(type, filter(tap)) * cast(type, operand.at(summed, g, read, image));
    s.sums.push_back({acc, r, domain});
    return walked ? acc(at) : acc(tensor_index(c, g, sum_at, n));
  };
  const auto fixed_tap = [&](const Taps &t, const Expr &x, const Expr &number) {
    return Tap{t.first + number * t.step, x * t.scale + number * t.move + t.base};
  };
  Expr value;
  if (walked) {
    std::vector<int> counts;
    for (size_t d = 0; d < rank; d++) counts.push_back(periods[d] > 1 ? walks[d].count : gradient_taps(geo.axes[d], 0).count);
    value = add_sum(counts, [&](size_t d, const Expr &number) {
      if (periods[d] == 1) return fixed_tap(gradient_taps(geo.axes[d], 0), v[d], number);
      const WalkedTaps &t = walks[d];
      const Expr k = first[d] + number * t.step, read = v[d] + t.base(first[d]) + number * t.move;
      return t.all() ? Tap{k, read} : Tap{min(k, t.a.kernel - 1), read, k >= t.a.kernel};
    }, n);
  } else {
    // Of each axis, the residues that some tap reaches. A stride past the kernel leaves most without.
    std::vector<std::vector<std::pair<int, Taps>>> reached(rank);
    bool all_reached = true;
    size_t combinations = 1;
    for (size_t d = 0; d < rank; d++) {
      for (int m = 0; m < periods[d]; m++)
        if (const Taps t = gradient ? gradient_taps(geo.axes[d], m) : forward_taps(geo.axes[d]); t.count > 0)
          reached[d].push_back({m, along && t.move < 0 ? reversed(t) : t});  // rows walked forwards, as LLVM has it faster
      all_reached &= int(reached[d].size()) == periods[d];
      combinations *= reached[d].size();
    }
    if (!all_reached) value = cast(type, 0);
    for (size_t m = 0; m < combinations; m++) {
      std::vector<Taps> taps;
      std::vector<int> counts;
      Expr here;
      size_t rest = m;
      for (size_t d = 0; d < rank; d++) {
        const auto &[residue, t] = reached[d][rest % reached[d].size()];
        rest /= reached[d].size();
        taps.push_back(t), counts.push_back(t.count);
        if (periods[d] == 1) continue;
        here = and_also(here, v[d] % periods[d] == residue);
      }
      // Selects, not mux(), and of each sum where it is used: Halide then skips those that a residue does not use.
      const auto tap_of = [&](size_t d, const Expr &number) { return fixed_tap(taps[d], v[d], number); };
      Expr sum = add_sum(counts, tap_of, n);
      if (w.few > 0) {  // whose last tile reads the last image again
        s.when_few = geo.n.value < w.few;
        sum = select(s.when_few, add_sum(counts, tap_of, min(n, geo.n.value - 1)), sum);
      }
      value = here.defined() ? select(here, sum, value.defined() ? value : cast(type, 0)) : sum;
    }
  }
  // Unshared weights are used again along n only.
  s.free.insert(geo.unshared ? s.free.begin() + 1 : s.free.end(), Axis{n, geo.n.plan, 1, false, geo.n.known, geo.n.value, true});
  s.free.push_back({g, geo.g});

  if (walked) {
    Index at = tensor_index(c, g, v, n), from = tensor_index(c, g, sum_at, n);
    at.insert(at.end(), firsts.begin(), firsts.end());
    s.out = Func("walked");
    s.out(at) = value;
    Expr reached;  // by some tap
    for (size_t d = 0; d < rank; d++) {
      if (periods[d] == 1) continue;
      const WalkedTaps &t = walks[d];
      const Expr m = (v[d] + t.a.lo) % t.a.stride, j = t.first(m);
      from.push_back(t.firsts < t.step || t.g > 1 ? clamp(j, 0, t.firsts - 1) : j);
      if (t.g > 1) reached = and_also(reached, m % t.g == 0);
      if (t.firsts < t.step) reached = and_also(reached, j < t.firsts);
    }
    value = reached.defined() ? select(reached, s.out(from), cast(type, 0)) : s.out(from);
  }
  Func out(gradient ? "dx_out" : "y_out");
  (walked ? s.after.emplace_back(out) : s.out = out);
  const Index at = tensor_index(c, g, v, n);
  const std::vector<Expr> values = finish(value, at);
  if (values.size() == 1) out(at) = values[0];
  else out(at) = Tuple(values);

  s.vec = filter, s.bcast = s.padded, s.paired = (geo.depthwise && !along) || position_first;
  const size_t space = geo.unshared ? 2 : 1;
  if (along) {
    std::rotate(s.free.begin(), s.free.begin() + space, s.free.begin() + space + 1);
    if (!geo.unshared) std::swap(s.vec, s.bcast);
  }
  s.dense = p.layout == Layout::channels_first && !along && !walked ? int(space) : 0;
  if (w.few > 0) {
    s.few = std::make_shared<Stages>(s);
    s.few->sums = {s.sums.back()}, s.sums.pop_back();
    for (size_t a = 0; a < s.free.size(); a++)
      if (s.free[a].images) s.free[a].least = w.few, s.few->free[a].overrun = true;
  }
  return s;
}

Stages weight_gradient(const Workload &w, const Geometry &geo, Func x, Func dy, const Finish &finish) {
  const Problem &p = w.problem;
  const size_t rank = geo.axes.size();
  Var co("co"), ci("ci"), g("g");
  std::vector<Extent> domain;
  for (auto &a : geo.axes)
    if (!geo.unshared) domain.push_back(a.out);
  domain.push_back(geo.n);
  Region region = from_zero(domain);
  if (positions_added(w, geo)) region[0].extent = (region[0].extent + w.position_lanes - 1) / w.position_lanes * w.position_lanes;
  // Unshared weights of few channels have the innermost position as the vector axis, along which both operands move.
  const bool along = geo.unshared && along_space(geo.co);
  // The channels that fill lanes better are the vector axis: 96 -> 24, 1x1, 76 against 112 us (Zen 5). Where they lie apart dy's are
  // transposed faster, as x is read by rows; of one tap those that are fewer: 1x1, 64 -> 256 at 56x56, 740 against 1,050 us (Emerald
  // Rapids).
  const bool apart = p.layout == Layout::channels_first;
  const bool fewer = apart && one_tap(w, geo) && !strided(geo) && 2 * geo.ci <= geo.co && filled(geo.ci) >= filled(geo.co);
  const bool x_moves = fewer || (!geo.depthwise && !geo.unshared && filled(geo.ci) > (apart ? 1.5 : 1.2) * filled(geo.co));
  // Copied by rows, not by channels, where these are few, or lie apart and are not loaded as vectors.
  const bool x_first = along || w.position_lanes > 0 || (!geo.unshared && !geo.depthwise && geo.axes[0].in.known &&
                                 (along_space(geo.ci) || (apart && !x_moves)));

  const bool dy_x_first = along || w.fill_both;
  Index at = {co, ci, g};
  std::vector<Axis> kernel, position;
  for (size_t d = 0; d < rank; d++) {
    const SpatialAxis &a = geo.axes[d];
    kernel.push_back({numbered("k", int(d)), a.kernel, 1, true}), position.push_back({numbered("o", int(d)), a.out.plan, 1, true, a.out.known});
    at.push_back(kernel[d].var);
  }
  for (auto &a : position)
    if (geo.unshared) at.push_back(a.var);

  const auto contract = [&] {
    Stages s;
    RDom r(region, "r");
    const RVar n = r[int(domain.size()) - 1];
    const Operand x_padded = with_border(w, geo, "x_padded", x, Side::in, x_first, 0.f, w.fill);
    // With open extents a border, even of zeros that nothing reads, would be asked for lane by lane at the end of each row: 5x5, one
    // channel at 252x252, 38 against 168 us (Emerald Rapids).
    const Operand dy_padded = w.position_lanes > 0 && !w.fill_both
                                  ? unbordered(w, geo, "dy_in", dy, Side::out)
                                  : with_border(w, geo, "dy_padded", dy, Side::out, dy_x_first, 0.f, w.fill_both);
    Index o, i;
    for (size_t d = 0; d < rank; d++) {
      const SpatialAxis &a = geo.axes[d];
      o.push_back(geo.unshared ? Expr(position[d].var) : Expr(r[int(d)]));
      i.push_back(o[d] * a.stride + kernel[d].var * a.dilation - a.lo);
      if (w.trim && d > 0 && p.border == Border::zero && !geo.unshared) r.where(i[d] >= 0 && i[d] < a.in.value);
    }
    Func acc("acc");
    acc(at) = 0.f;
    acc(at) += dy_padded.at(co, g, o, n) * x_padded.at(geo.depthwise ? co : ci, g, i, n);
    s.sums = {{acc, r, plans(domain), all_known(domain)}};
    s.padded = x_padded.f, s.lines = x_padded.lines;
    s.vec = dy_padded.f, s.bcast = s.padded;
    s.paired = geo.depthwise || along, s.over_positions = true;
    s.vec_position = dy_x_first ? 0 : 2, s.bcast_position = x_first ? 0 : 2;
    if (x_moves) std::swap(s.vec, s.bcast), std::swap(s.vec_position, s.bcast_position);
    s.free = {{co, geo.co, 1, true}, {ci, geo.ci, 1, true}};
    if (x_moves) std::swap(s.free[0], s.free[1]), s.dense = 1;
    s.free.insert(s.free.end(), kernel.begin(), kernel.end());
    if (geo.unshared) s.free.insert(along ? s.free.begin() : s.free.end(), position.begin(), position.end());
    s.free.push_back({g, geo.g});
    return s;
  };
  Stages s = contract();
  Expr sum = s.sums[0].acc(at);
  if (w.few > 0) {
    s.few = std::make_shared<Stages>(contract());
    Expr positions = 1;
    for (auto &e : domain) positions *= e.value;
    s.when_few = positions <= w.few;
    sum = select(s.when_few, s.few->sums[0].acc(at), sum);
  }
  Func dw("dw_out");
  dw(at) = finish(sum, at)[0];
  s.out = dw;
  if (s.few) s.few->out = dw;
  return s;
}

}  // namespace convsmith
