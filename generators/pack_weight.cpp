// Weights in any order of memory -> the order that a pass reads: w(c,...) = from(c,...), zero beyond the last channel
// of a panel.
#include "contraction.h"

using namespace Halide;

namespace convsmith {
namespace {

bool for_input_gradient(const Workload &w) { return w.pass == PassKind::pack_weight_for_input_gradient; }

std::vector<BufferSpec> buffers(const Workload &w) {
  BufferSpec from = plain_weight_spec(w.problem, "from", false);
  // By default the order of files, OC outermost; no stride is fixed.
  from.memory.clear(), from.fixed = 0;
  for (int a = int(from.shape.size()) - 1; a >= 0; a--) from.memory.push_back(a);
  return {from, weight_spec(w, "weight", for_input_gradient(w))};
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const BufferSpec packed = buffers(w)[1];
  const Channels ch = channels(w.problem);
  const bool transposed = for_input_gradient(w) && !ch.depthwise;
  Stages s;
  std::vector<Var> v;
  for (size_t d = 0; d < packed.dims.size(); d++) {
    v.push_back(numbered("w", d));
    s.free.push_back({v[d], packed.dims[d].extent});
  }
  s.out = Func("packed");
  if (!w.panel) {
    s.out(v) = in[0](v);
    if (transposed) std::swap(s.free[0], s.free[1]);
    return s;
  }
  const int vec = transposed ? ch.ci : ch.co;
  const size_t rank = w.problem.rank;
  const Expr c = v[0] + v[2 + rank] * w.panel, inside = clamp(c, 0, vec - 1);
  Index from = {inside, v[1], v[3 + rank]};
  if (transposed) std::swap(from[0], from[1]);
  from.insert(from.end(), v.begin() + 2, v.begin() + 2 + rank);
  s.out(v) = select(c < vec, in[0](from), 0.f);
  return s;
}

}  // namespace

const Operator pack_weight{"pack_weight", buffers, build};

}  // namespace convsmith
