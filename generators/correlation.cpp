// Correlation, and convolution, whose taps run backwards: forward and the gradients of input and weight.
#include "contraction.h"
#include "convsmith/error.h"

using namespace Halide;

namespace convsmith {
namespace {

std::vector<BufferSpec> buffers(const Workload &w) {
  const Problem &p = w.problem;
  switch (w.pass) {
    case PassKind::input_gradient:
      return {tensor_spec(p, "dy", true), weight_spec(w, "weight", true), tensor_spec(p, "dx", false)};
    case PassKind::weight_gradient:
      return {tensor_spec(p, "x", false), tensor_spec(p, "dy", true), plain_weight_spec(p, "dweight", false)};
    default: {
      std::vector<BufferSpec> b = {tensor_spec(p, "x", false), weight_spec(w, "weight", false)};
      if (p.bias) b.push_back(channel_spec(p, "bias"));
      b.push_back(tensor_spec(p, "y", true));
      return b;
    }
  }
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  switch (w.pass) {
    case PassKind::input_gradient: return gather(w, true, in[0], in[1], plain());
    case PassKind::weight_gradient: return weight_gradient(w, in[0], in[1], plain());
    default: return gather(w, false, in[0], in[1], epilogue(w.problem, {in.begin() + 2, in.end()}));
  }
}

}  // namespace

const Operator correlation{"correlation", buffers, build};

const Operator &find_operator(const Workload &w) {
  switch (w.pass) {
    case PassKind::bias_gradient: return bias_gradient;
    case PassKind::activation_gradient: return activation_gradient;
    case PassKind::pack_weight:
    case PassKind::pack_weight_for_input_gradient: return pack_weight;
    case PassKind::train_step: return train_step;
    default: break;
  }
  if (w.problem.op == Op::correlation || w.problem.op == Op::convolution) return correlation;
  throw Error("no operator carries " + w.problem.str());
}

int output_count(const Workload &w) {
  return w.pass != PassKind::train_step ? 1 : w.problem.bias ? 3 : 2;
}

}  // namespace convsmith
