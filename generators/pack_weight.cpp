// Weights in any order of memory -> the type and order that a pass reads: w(c,...) = from(c,...), zero beyond the last
// channel of a panel or of a four.
#include "contraction.h"
#include <algorithm>

using namespace Halide;

namespace convsmith {
namespace {

// The master weights, by default in the order of files; no stride is fixed. Every axis is a dimension of its own, the
// innermost first.
BufferSpec from_spec(const Workload &w) {
  BufferSpec from{"from", w.problem.weight_shape(), {}, {}, 0, master_type(w.problem), {}};
  for (int a = int(from.shape.size()) - 1; a >= 0; a--)
    from.memory.push_back(a), from.dims.push_back({a, int(from.shape[size_t(a)])});
  return from;
}

std::vector<BufferSpec> buffers(const Workload &w) { return {from_spec(w), weight_spec(w, "weight", vector_side(w))}; }

// Where weight(co, ci, g, k...[, position...]) stands in a file.
Index in_file(const Workload &w, const Geometry &geo, const Index &at) {
  const Problem &p = w.problem;
  Index file;  // axes outermost first, turned round at the end
  if (p.op == Op::dense) {
    const auto unflattened = [&](Expr i, const Problem::Extents &extents, int channels) {
      Index axes;
      if (p.layout == Layout::channels_last) axes.push_back(i % channels), i = i / channels;
      Index spatial;
      for (int a = p.rank - 1; a >= 0; a--)
        spatial.insert(spatial.begin(), i % int(extents[a])), i = i / int(extents[a]);
      if (p.layout == Layout::channels_first) axes.push_back(i);
      axes.insert(axes.end(), spatial.begin(), spatial.end());
      return axes;
    };
    file = unflattened(at[0], p.dense_out, int(p.oc));
    const Index in = unflattened(at[1], p.in, int(p.ic));
    file.insert(file.end(), in.begin(), in.end());
  } else {
    const size_t rank = geo.axes.size();
    for (size_t d = rank; d-- > 0 && geo.unshared;) file.push_back(at[3 + rank + d]);
    const int positions = folded_positions(p), channels = geo.ci / positions;
    file.push_back(at[0] + at[2] * geo.co), file.push_back(positions > 1 ? at[1] % channels : at[1]);
    for (size_t d = rank; d-- > 0;) file.push_back(positions > 1 && d == 0 ? at[1] / channels : at[3 + d]);
  }
  std::reverse(file.begin(), file.end());
  return file;
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const BufferSpec packed = buffers(w)[1];
  const Geometry geo = geometry(w);
  const Side of = geo.depthwise ? Side::out : vector_side(w);
  const size_t rank = geo.axes.size();
  Stages s;
  std::vector<Var> v;
  for (size_t d = 0; d < packed.dims.size(); d++) {
    v.push_back(numbered("w", int(d)));
    s.free.push_back({v[d], packed.dims[d].extent});
  }
  s.out = Func("packed");
  const Halide::Type type = weight_type(w.problem);
  if (!w.panel && !w.quad) {
    s.out(v) = cast(type, in[0](in_file(w, geo, {v.begin(), v.end()})));
    // The innermost in memory is the vector axis.
    const int innermost = packed.memory[0];
    for (size_t d = 0; d < packed.dims.size(); d++)
      if (packed.dims[d].axis == innermost && packed.dims[d].extent > 1) {
        std::swap(s.free[0], s.free[d]);
        break;
      }
    return s;
  }
  const int vector = geo.channels(of), other = of == Side::out ? geo.ci : geo.co;
  const Expr c = w.quad ? Expr(v[1]) : v[0] + v[2 + rank] * w.panel, r = w.quad ? v[0] + v[2] * w.quad : Expr(v[1]);
  Index at = {clamp(c, 0, vector - 1), clamp(r, 0, other - 1), v[3 + rank]};
  if (of == Side::in) std::swap(at[0], at[1]);
  for (size_t d = 0; d < rank; d++) at.push_back(v[(w.quad ? 3 : 2) + d]);
  s.out(v) = select(c < vector && r < other, cast(type, in[0](in_file(w, geo, at))), cast(type, 0));
  return s;
}

}  // namespace

const Operator pack_weight{"pack_weight", buffers, build};

}  // namespace convsmith
