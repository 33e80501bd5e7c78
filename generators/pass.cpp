#include "pass.h"
#include "convsmith/error.h"
#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace convsmith {
namespace {

constexpr std::array<const char *, 8> names = {
    "forward",     "input_gradient",                 "weight_gradient", "bias_gradient", "activation_gradient",
    "pack_weight", "pack_weight_for_input_gradient", "train_step"};

bool applies(const Problem &p, PassKind pass) {
  switch (pass) {
    case PassKind::bias_gradient: return p.bias;
    case PassKind::activation_gradient: return p.activation.kind != Activation::Kind::none;
    default: return true;
  }
}

// The first word of the problem that no generator carries yet.
const char *missing_word(const Problem &p) {
  switch (p.op) {
    case Op::transposed: return "op=transposed";
    case Op::local: return "op=local";
    case Op::dense: return "op=dense";
    default: break;
  }
  for (int a = 0; a < p.rank; a++)
    if (p.in[a] == run_time) return "in=?";
  if (p.n == run_time) return "n=?";
  switch (p.type) {
    case Type::f16: return "type=f16";
    case Type::bf16: return "type=bf16";
    case Type::u8s8: return "type=u8s8";
    default: break;
  }
  switch (p.activation.kind) {
    case Activation::Kind::none:
    case Activation::Kind::relu: break;
    case Activation::Kind::relu6: return "activation=relu6";
    case Activation::Kind::leaky_relu: return "activation=leaky_relu";
    case Activation::Kind::sigmoid: return "activation=sigmoid";
    case Activation::Kind::tanh: return "activation=tanh";
    case Activation::Kind::silu: return "activation=silu";
    case Activation::Kind::gelu: return "activation=gelu";
    case Activation::Kind::clamp: return "activation=clamp";
  }
  if (p.residual) return "residual=1";
  if (p.save != Save::none) return "save=pre";
  if (p.precision != Precision::exact) return "precision=fast";
  return nullptr;
}

// A batch of none is for a kernel that takes any batch; one made for it alone could do nothing.
void refuse_empty_batch(const Problem &p) {
  if (p.n == 0)
    throw Error(fmt::format(
        "n=0: expected at least 1 (an empty batch comes with n=?, which is not available yet), in \"{}\"", p.str()));
}

// Generated code indexes with 32 bits, and rounds the last tile of an axis up.
void check_index_limit(const Problem &p) {
  constexpr double most = 1 << 30;
  for (int a = 0; a < p.rank; a++) {
    const double padded = double(p.in[a]) + double(std::max<std::int64_t>(p.pad_lo[a], 0)) +
                          double(std::max<std::int64_t>(p.pad_hi[a], 0));
    const double window = double(p.dilation[a]) * double(std::max<std::int64_t>(p.kernel[a] - 1, 1)) + 1;
    const double reach = padded + window + double(p.stride[a]);
    if (reach > most)
      throw Error(fmt::format("axis {}: padded input, window and stride of {:.0f} elements together; more than 2^30 is "
                              "not available yet, in \"{}\"",
                              "DHW"[3 - p.rank + a], reach, p.str()));
  }
}

}  // namespace

const char *pass_name(PassKind pass) { return names[static_cast<size_t>(pass)]; }

PassKind parse_pass(std::string_view name) {
  std::string list;
  for (size_t i = 0; i < names.size(); i++) {
    if (name == names[i]) return static_cast<PassKind>(i);
    list += (i ? ", " : "") + std::string(names[i]);
  }
  throw Error(fmt::format("pass: expected one of {}, got \"{}\"", list, name));
}

std::vector<PassKind> passes_of(const Problem &p) {
  std::vector<PassKind> passes;
  for (size_t i = 0; i < names.size(); i++) {
    const PassKind pass = static_cast<PassKind>(i);
    // A border that copies makes the input gradient a fold, which is not built yet; see require_available.
    if (pass == PassKind::input_gradient || pass == PassKind::pack_weight_for_input_gradient)
      if (p.border != Border::zero) continue;
    if (applies(p, pass)) passes.push_back(pass);
  }
  return passes;
}

void require_available(const Problem &p, PassKind pass) {
  check_element_limit(p);
  if (const char *word = missing_word(p)) throw Error(fmt::format("{} is not available yet, in \"{}\"", word, p.str()));
  refuse_empty_batch(p);
  check_index_limit(p);
  if (!applies(p, pass))
    throw Error(fmt::format("pass {} expects {}, in \"{}\"", pass_name(pass),
                            pass == PassKind::bias_gradient ? "bias=1" : "an activation", p.str()));
  if (p.border != Border::zero &&
      (pass == PassKind::input_gradient || pass == PassKind::pack_weight_for_input_gradient))
    throw Error(fmt::format("pass {} of a problem whose border is not zero is not available yet, in \"{}\"",
                            pass_name(pass), p.str()));
}

}  // namespace convsmith
