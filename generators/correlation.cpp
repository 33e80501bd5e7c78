// The passes of every operator as contractions of the correlation behind it: forward and the gradients of input and
// weight.
#include "contraction.h"

using namespace Halide;

namespace convsmith {
namespace {

std::vector<BufferSpec> buffers(const Workload &w) {
  const Problem &p = w.problem;
  switch (w.pass) {
    case PassKind::input_gradient:
      return {operand_spec(w, "dy", true), weight_spec(w, "weight", vector_side(w)), operand_spec(w, "dx", false)};
    case PassKind::weight_gradient: {
      BufferSpec dweight = plain_weight_spec(w, "dweight", side_of(p, true));
      dweight.type = master_type(p);
      return {operand_spec(w, "x", false), operand_spec(w, "dy", true), dweight};
    }
    default: {
      std::vector<BufferSpec> b = {operand_spec(w, "x", false), weight_spec(w, "weight", vector_side(w))};
      if (p.type == Type::u8s8)
        for (auto &q : quantised_inputs(w)) b.push_back(q);
      if (p.bias) b.push_back(channel_spec(w, "bias", bias_type(p)));
      if (p.residual) b.push_back(operand_spec(w, "residual", true));
      b.push_back(operand_spec(w, "y", true));
      if (p.save == Save::pre) b.push_back(operand_spec(w, "pre", true));
      return b;
    }
  }
}

Stages build(const Workload &w, const std::vector<Func> &in) {
  const Problem &p = w.problem;
  const Geometry geo = gathered_geometry(w);
  switch (w.pass) {
    case PassKind::input_gradient: {
      if (p.border != Border::zero) return folded_gradient(w, geo, in[0], in[1]);
      return gather(w, geo, side_of(p, false), in[0], in[1], rounded_to(tensor_type(p)));
    }
    case PassKind::weight_gradient: {
      const bool x_is_in = side_of(p, false) == Side::in;
      return weight_gradient(w, geo, in[x_is_in ? 0 : 1], in[x_is_in ? 1 : 0], rounded_to(master_type(p)));
    }
    default: {
      std::vector<Func> inputs = in, rows;
      const std::vector<BufferSpec> specs = buffers(w);
      for (size_t i = 2; i < in.size() && geo.interleaved > 1; i++)
        if (specs[i].shape == p.bias_shape()) rows.push_back(inputs[i] = along_row(in[i], geo.interleaved));
      Stages s = p.type == Type::u8s8 ? quantised_forward(w, geo, inputs)
                                      : gather(w, geo, side_of(p, true), in[0], in[1], epilogue(w, {inputs.begin() + 2, inputs.end()}));
      s.before.insert(s.before.begin(), rows.begin(), rows.end());
      return s;
    }
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
    default: return correlation;
  }
}

int output_count(const Workload &w) {
  if (w.pass == PassKind::forward) return w.problem.save == Save::pre ? 2 : 1;
  return w.pass != PassKind::train_step ? 1 : w.problem.bias ? 3 : 2;
}

}  // namespace convsmith
