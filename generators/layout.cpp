#include "layout.h"
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

using namespace Halide;

namespace convsmith {
namespace {

bool sums_positions(const Workload &w) { return w.pass == PassKind::weight_gradient || w.pass == PassKind::train_step; }

// Channels that each have weights of their own are lanes of a vector. Channels first they lie apart, and each is an image of its own, a group
// of one channel, unless its rows fill no vector.
bool is_depthwise(const Workload &w) {
  const Problem &p = w.problem;
  if (p.groups == 1 || p.ic != p.groups || p.oc != p.groups) return false;
  const bool images = p.layout == Layout::channels_first && p.op != Op::local && p.op != Op::dense;
  if (!images || w.target.has_gpu_feature()) return true;
  const int row = p.rank - 1;
  if (p.in[size_t(row)] == run_time) return false;
  // Eight channels fill half a vector, or all of a shorter one: 3x3 at 200x7, n=4, 54 against 66 us. In a line three taps of 16 images of 20
  // positions, weight gradient, 23 against 61 us, of 100 112 against 80 (Emerald Rapids).
  const int least = sums_positions(w) ? (p.rank == 1 ? 48 : 7) : p.groups == 8 ? 8 : 4;
  return std::min(p.in[size_t(row)], p.out(row)) < least;
}

// How many groups a tensor's channels lie in. The gradients of bias and activation read no channel with another: groups mean nothing to them.
int group_count(const Workload &w) {
  const bool elements = w.pass == PassKind::bias_gradient || w.pass == PassKind::activation_gradient;
  return elements || is_depthwise(w) ? 1 : int(w.problem.groups);
}

// Extents known only when run are planned for as these. Sums over positions as those of networks, whose layers have the fewer
// positions the more channels they have: 64 channels at 56x56, 256 at 28x28, depthwise 144 at 64x64.
Problem planned(const Workload &w) {
  Problem p = w.problem;
  if (p.n == run_time) p.n = 1;
  double most = p.rank == 1 ? 16384 : p.rank == 2 ? 128 : 32;
  if (sums_positions(w)) {
    const double positions = (is_depthwise(w) ? 600e3 : 400e3) / std::sqrt(double(p.ic) * double(p.oc));
    most = std::min(most, std::pow(positions, 1. / p.rank));
  }
  for (int a = 0; a < p.rank; a++)
    if (p.in[a] == run_time) {
      const std::int64_t window = p.window(a);
      p.in[a] = std::max(std::int64_t(most), std::min(4 * window, window + (1 << 20)));
      if (p.op != Op::transposed) p.in[a] -= p.pad_lo[a] + p.pad_hi[a] < 0 ? p.pad_lo[a] + p.pad_hi[a] : 0;
    }
  // Nor does anyone learn from one image of a few positions.
  if (w.problem.n == run_time && sums_positions(w)) {
    std::int64_t positions = 1;
    for (int a = 0; a < p.rank; a++) positions *= p.op == Op::transposed ? p.in[a] : p.out(a);
    p.n = std::max<std::int64_t>(1, 16 / std::max<std::int64_t>(1, positions));
  }
  return p;
}

Extent extent(const Workload &w, std::int64_t number, std::int64_t plan, int size) {
  if (number != run_time) return int(number);
  // Without sizes only what hangs on none of them is asked for: weights.
  return {int(plan), w.sizes.empty() ? Expr() : w.sizes.at(size_t(size))};
}

std::int64_t volume(const Problem::Extents &e, int rank) {
  std::int64_t v = 1;
  for (int a = 0; a < rank; a++) v *= e[a];
  return v;
}

}  // namespace

int folded_positions(const Problem &p) {
  const size_t row = size_t(p.rank) - 1;
  const bool patches = p.kernel[row] == p.stride[row] && p.dilation[row] == 1 && p.pad_lo[row] == 0 && p.pad_hi[row] == 0;
  return p.op == Op::correlation && p.type != Type::u8s8 && p.layout == Layout::channels_last && p.groups == 1 && along_space(int(p.ic)) && patches &&
                 p.in[row] != run_time && p.in[row] % p.stride[row] == 0
             ? int(p.stride[row])
             : 1;
}

Geometry geometry(const Workload &w) {
  const Problem &p = w.problem, q = planned(w);
  const bool swapped = p.op == Op::transposed;
  const std::int64_t x_channels = p.ic / p.groups, y_channels = p.oc / p.groups;
  Geometry geo{{},    int(swapped ? x_channels : y_channels), int(swapped ? y_channels : x_channels),
               int(p.groups), is_depthwise(w), p.op == Op::local, extent(w, p.n, q.n, size_n)};
  if (geo.depthwise) geo.co = int(p.oc), geo.ci = geo.g = 1;
  if (p.op == Op::dense) {
    geo.co = int(p.oc * volume(p.dense_out, p.rank)), geo.ci = int(p.ic * volume(p.in, p.rank));
    geo.axes = {{1, 1, 1, 1, 1, 0, 0, 0}};
    return geo;
  }
  for (int a = p.rank - 1; a >= 0; a--) {
    const Extent in = extent(w, p.in[a], q.in[a], size_in + a), out = extent(w, p.out(a), q.out(a), size_out + a);
    SpatialAxis s{swapped ? out : in, swapped ? in : out, int(p.kernel[a]),  int(p.stride[a]), int(p.dilation[a]),
                  int(p.pad_lo[a]),   int(p.pad_lo[a]),   int(p.pad_hi[a])};
    if (p.op == Op::convolution) s.lo -= (s.kernel - 1) * s.dilation, s.dilation = -s.dilation;
    geo.axes.push_back(s);
  }
  if (const int positions = folded_positions(p); positions > 1) {
    SpatialAxis &row = geo.axes[0];
    geo.ci *= positions, row.in = row.in.plan / positions, row.kernel = row.stride = 1;
  }
  return geo;
}

int interleaved_channels(const Workload &w) {
  const Problem &p = w.problem;
  const bool gathers = w.pass == PassKind::forward || (w.pass == PassKind::input_gradient && p.border == Border::zero);
  const size_t row = size_t(p.rank) - 1;
  if (!gathers || p.op == Op::local || p.op == Op::dense || !is_depthwise(w) || !along_space(int(p.oc)) ||
      p.layout != Layout::channels_last || p.stride[row] != 1)
    return 1;
  // Positions are counted in channels then, in 32 bits.
  const std::int64_t reach = p.pad_lo[row] + p.pad_hi[row] + p.dilation[row] * p.kernel[row];
  if (p.oc * reach > 1 << 28) return 1;
  return int(p.oc);
}

int row_period(int interleaved) { return std::lcm(interleaved, 16); }  // whole vectors, the widest too

Geometry gathered_geometry(const Workload &w) {
  Geometry geo = geometry(w);
  const int c = geo.interleaved = interleaved_channels(w);
  if (c == 1) return geo;
  geo.co = 1;
  SpatialAxis &row = geo.axes[0];
  for (Extent *e : {&row.in, &row.out}) *e = e->known ? Extent(e->plan * c) : Extent(e->plan * c, e->value.defined() ? e->value * c : Expr());
  for (int *of : {&row.dilation, &row.lo, &row.pad_lo, &row.pad_hi}) *of *= c;
  return geo;
}

Side side_of(const Problem &p, bool output) { return output == (p.op != Op::transposed) ? Side::out : Side::in; }

Side vector_side(const Workload &w) {
  const bool of_input = w.pass == PassKind::input_gradient || w.pass == PassKind::pack_weight_for_input_gradient;
  return side_of(w.problem, !of_input);
}

std::vector<Extent> extents(const Geometry &geo, Side side) {
  std::vector<Extent> e = {geo.channels(side), geo.g};
  for (auto &a : geo.axes) e.push_back(side == Side::out ? a.out : a.in);
  e.push_back(geo.n);
  return e;
}

std::vector<Extent> tensor_extents(const Workload &w, bool output) {
  const Problem &p = w.problem, q = planned(w);
  const int channels = int(output ? p.oc : p.ic), groups = group_count(w);
  std::vector<Extent> e = {channels / groups, groups};
  for (int a = p.rank - 1; a >= 0; a--)
    e.push_back(output ? extent(w, p.out(a), q.out(a), size_out + a) : extent(w, p.in[a], q.in[a], size_in + a));
  e.push_back(extent(w, p.n, q.n, size_n));
  return e;
}

Halide::Type tensor_type(const Problem &p) {
  switch (p.type) {
    case Type::f16: return Float(16);
    case Type::bf16: return BFloat(16);
    case Type::u8s8: return UInt(8);
    default: return Float(32);
  }
}
Halide::Type weight_type(const Problem &p) { return p.type == Type::u8s8 ? Int(8) : tensor_type(p); }
Halide::Type sum_type(const Problem &p) { return p.type == Type::u8s8 ? Int(32) : Float(32); }
Halide::Type master_type(const Problem &p) { return p.type == Type::u8s8 ? Int(8) : Float(32); }
Halide::Type bias_type(const Problem &p) { return sum_type(p); }
Halide::Type output_type(const Problem &p) {
  if (p.type != Type::u8s8) return tensor_type(p);
  switch (p.out_type) {
    case OutType::u8: return UInt(8);
    case OutType::s8: return Int(8);
    case OutType::i32: return Int(32);
    default: return Float(32);
  }
}

BufferSpec tensor_spec(const Workload &w, const std::string &name, bool output) {
  const Problem &p = w.problem;
  BufferSpec t{name, output ? p.output_shape() : p.input_shape(), {}, {}, 0, output ? output_type(p) : tensor_type(p), {}};
  const int channels = int(output ? p.oc : p.ic), groups = group_count(w);
  t.dims = {{1, channels / groups}, {1, groups, channels / groups}};
  t.sizes = {size_n, -1};
  for (int a = 0; a < p.rank; a++) t.sizes.push_back((output ? size_out : size_in) + a);
  for (int a = p.rank + 1; a >= 2; a--) t.dims.push_back({a, int(t.shape[size_t(a)])}), t.memory.push_back(a);
  t.dims.push_back({0, int(p.n)});
  // The innermost two axes are dense; rows, planes and batches may lie further apart.
  if (p.layout == Layout::channels_first) t.memory.push_back(1), t.fixed = 1;
  else t.memory.insert(t.memory.begin(), 1), t.fixed = 2;
  t.memory.push_back(0);
  return t;
}

BufferSpec operand_spec(const Workload &w, const std::string &name, bool output) {
  BufferSpec t = tensor_spec(w, name, output);
  if (const int c = interleaved_channels(w); c > 1) t.dims[0] = {1, 1}, t.dims[2] = {1, t.dims[2].extent == run_time ? int(run_time) : t.dims[2].extent * c, 1, c};
  if (const int positions = folded_positions(w.problem); positions > 1 && !output)
    t.dims[0].extent *= positions, t.dims[2].extent /= positions, t.dims[2].multiple = positions;
  if (w.problem.op != Op::dense) return t;
  const int elements = int(element_count({t.shape.begin() + 1, t.shape.end()}));
  t.dims = {{t.memory[0], elements}, {1, 1}, {2, 1}, {0, int(w.problem.n)}};
  t.fixed = int(t.memory.size()) - 1;
  return t;
}

BufferSpec plain_weight_spec(const Workload &w, const std::string &name, Side of) {
  const Problem &p = w.problem;
  const Geometry geo = geometry(w);
  BufferSpec b{name, p.weight_shape(), {}, {}, 0, weight_type(p), {}};
  if (p.op == Op::dense) {
    // Both sides in their tensors' own order of memory.
    const auto order = [&](int first) {
      std::vector<int> axes = tensor_spec(w, "", true).memory;
      axes.pop_back();  // the batch
      for (int &a : axes) a += first - 1;
      return axes;
    };
    std::vector<int> co = order(0), ci = order(p.rank + 1);
    b.dims = {{co[0], geo.co}, {ci[0], geo.ci}, {co[0], 1, geo.co}, {0, 1}};
    b.memory = of == Side::out ? co : ci;
    b.memory.insert(b.memory.end(), (of == Side::out ? ci : co).begin(), (of == Side::out ? ci : co).end());
    b.fixed = int(b.memory.size());
    return b;
  }
  const int co = geo.unshared ? p.rank : 0, ci = co + 1;
  b.dims = {{co, geo.co}, {ci, geo.ci}, {co, geo.g, geo.co}};
  const bool swapped = of == Side::in && !geo.depthwise;
  b.memory = swapped ? std::vector<int>{ci, co} : std::vector<int>{co, ci};
  for (int a = p.rank - 1; a >= 0; a--)
    b.dims.push_back({ci + 1 + a, geo.axes[size_t(p.rank - 1 - a)].kernel}), b.memory.push_back(ci + 1 + a);
  if (folded_positions(p) > 1 && swapped) std::swap(b.memory[1], b.memory[2]);  // the row's taps beside the channels
  for (int a = p.rank - 1; a >= 0 && geo.unshared; a--) b.dims.push_back({a, int(p.out(a))}), b.memory.push_back(a);
  if (geo.unshared && along_space(geo.channels(of))) {
    const auto innermost = std::find(b.memory.begin(), b.memory.end(), p.rank - 1);
    std::rotate(b.memory.begin(), innermost, innermost + 1);
  }
  b.fixed = int(b.memory.size());
  return b;
}

BufferSpec weight_spec(const Workload &w, const std::string &name, Side of) {
  const Geometry geo = geometry(w);
  if (geo.depthwise) of = Side::out;
  if (!w.panel && !w.quad) return plain_weight_spec(w, name, of);
  const int vector = geo.channels(of), other = of == Side::out ? geo.ci : geo.co;
  std::vector<int> e = {w.panel, other};
  if (w.quad) e = {w.quad, vector, (other + w.quad - 1) / w.quad};
  for (auto &a : geo.axes) e.push_back(a.kernel);
  if (!w.quad) e.push_back((vector + w.panel - 1) / w.panel);
  e.push_back(geo.g);
  BufferSpec packed{name, {e.rbegin(), e.rend()}, {}, {}, int(e.size()), weight_type(w.problem), {}};
  for (int d = 0; d < packed.fixed; d++)
    packed.memory.push_back(packed.fixed - 1 - d), packed.dims.push_back({packed.fixed - 1 - d, e[size_t(d)]});
  return packed;
}

BufferSpec channel_spec(const Workload &w, const std::string &name, Halide::Type type) {
  const Problem &p = w.problem;
  const int groups = group_count(w), within = int(p.oc) / groups;
  return {name, p.bias_shape(), {0}, {{0, within}, {0, groups, within}}, 1, type, {}};
}

Index channel_index(const Workload &w, const Index &at) {
  const Problem &p = w.problem;
  // Of a result, the third index is the row's; of weights the first is the channel itself.
  if (const int c = interleaved_channels(w); c > 1 && at.size() > 2) return {at[2] % row_period(c), at[1]};
  if (p.op != Op::dense) return {at[0], at[1]};
  const int channels = int(p.oc), positions = int(volume(p.dense_out, p.rank));
  return {p.layout == Layout::channels_last ? at[0] % channels : at[0] / positions, 0};
}

BufferSpec scalar_spec(const std::string &name, Halide::Type type) { return {name, {1}, {0}, {{0, 1}}, 1, type, {}}; }

std::string size_name(const Problem &p, int size) {
  if (size == size_n) return "n";
  const int axis = (size - size_in) % 3;
  return fmt::format("{}_{}", size < size_out ? "in" : "out", "dhw"[3 - p.rank + axis]);
}

std::vector<int> open_sizes(const Problem &p) {
  std::vector<int> sizes;
  if (p.n == run_time) sizes.push_back(size_n);
  for (int a = 0; a < p.rank; a++)
    if (p.in[a] == run_time) sizes.push_back(size_in + a);
  return sizes;
}

std::vector<int> run_time_sizes(const Workload &w) {
  std::vector<bool> found(size_count, false);
  for (auto &b : find_operator(w).buffers(w))
    for (size_t a = 0; a < b.sizes.size(); a++)
      if (b.sizes[a] >= 0 && b.shape[a] == run_time) found[size_t(b.sizes[a])] = true;
  std::vector<int> sizes;
  for (int s = 0; s < size_count; s++)
    if (found[size_t(s)] && !(s >= size_out && found[size_t(s - size_out + size_in)])) sizes.push_back(s);
  return sizes;
}

void set_sizes(Workload &w, const std::function<Expr(int size)> &number) {
  const Problem &p = w.problem;
  w.sizes.assign(size_count, Expr());
  for (const int size : run_time_sizes(w)) w.sizes[size_t(size)] = number(size);
  for (int a = 0; a < p.rank; a++) {
    const Expr in = w.sizes[size_t(size_in + a)];
    if (!in.defined()) continue;
    const int window = int(p.window(a)), pads = int(p.pad_lo[a] + p.pad_hi[a]), stride = int(p.stride[a]);
    w.sizes[size_t(size_out + a)] = p.op == Op::transposed ? (in - 1) * stride + (window - pads + int(p.out_pad[a]))
                                    : stride == 1          ? in + (pads - window + 1)
                                                           : (in + (pads - window)) / stride + 1;
  }
}

}  // namespace convsmith
