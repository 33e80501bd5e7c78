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

// What a pass needs that a problem does not have; empty where it applies.
std::string unmet(const Problem &p, PassKind pass) {
  using Kind = Activation::Kind;
  if (p.type == Type::u8s8 && pass != PassKind::forward && pass != PassKind::pack_weight)
    return "a type with gradients, got type=u8s8";
  switch (pass) {
    case PassKind::bias_gradient: return p.bias ? "" : "bias=1";
    case PassKind::activation_gradient: {
      const Kind k = p.activation.kind;
      if (k == Kind::none) return "an activation";
      // The output of the others tells the slope.
      const bool needs_pre = k == Kind::silu || k == Kind::gelu || (k == Kind::leaky_relu && p.activation.a < 0);
      return needs_pre && p.save != Save::pre ? "save=pre with this activation" : "";
    }
    default: return "";
  }
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
    // A copy with its border holds that much beside each position, of every channel.
    const double beside = (reach - double(p.in[a])) * double(std::max(p.ic, p.oc));
    if (beside > most / 2)
      throw Error(fmt::format("axis {}: padding, window and stride of {:.0f} elements of all channels together; more than 2^29 is "
                              "not available yet, in \"{}\"",
                              "DHW"[3 - p.rank + a], beside, p.str()));
  }
}

// Words that the grammar knows but that make no sense together.
void check_quantised(const Problem &p) {
  if (p.type != Type::u8s8) return;
  const auto kind = p.activation.kind;
  if (p.save == Save::pre)
    throw Error(fmt::format("save=pre: expected none for type=u8s8, which has no gradients, in \"{}\"", p.str()));
  if (p.out_type == OutType::i32 && kind != Activation::Kind::none && kind != Activation::Kind::relu)
    throw Error(fmt::format("activation: expected none or relu for out_type=i32, a result of whole numbers, in \"{}\"", p.str()));
}

// |sum (x - x_zero) (w - w_zero)| <= 255 * 255 a product, and a bias of as much as one of them, must fit 32 bits.
void check_sum_limit(const Problem &p) {
  if (p.type != Type::u8s8) return;
  constexpr std::int64_t most = ((std::int64_t{1} << 31) - 1) / (255 * 255) - 1;
  std::int64_t products = p.ic / p.groups;
  for (int a = 0; a < p.rank; a++) products *= p.op == Op::dense ? p.in[a] : p.kernel[a];
  if (products > most)
    throw Error(fmt::format("type=u8s8: {} products a sum may pass 32 bits; more than {} is not available yet, in \"{}\"",
                            products, most, p.str()));
}

}  // namespace

const char *pass_name(PassKind pass) { return names[static_cast<size_t>(pass)]; }

bool is_packing(PassKind p) { return p == PassKind::pack_weight || p == PassKind::pack_weight_for_input_gradient; }

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
  for (size_t i = 0; i < names.size(); i++)
    if (unmet(p, static_cast<PassKind>(i)).empty()) passes.push_back(static_cast<PassKind>(i));
  return passes;
}

void require_available(const Problem &p, PassKind pass) {
  check_element_limit(p);
  if (p.precision != Precision::exact)
    throw Error(fmt::format("precision=fast is not available yet, in \"{}\"", p.str()));
  check_index_limit(p);
  check_quantised(p);
  check_sum_limit(p);
  if (const std::string need = unmet(p, pass); !need.empty())
    throw Error(fmt::format("pass {} expects {}, in \"{}\"", pass_name(pass), need, p.str()));
}

Shape sizes_at(const Problem &open, const Problem &fixed) {
  Shape sizes;
  if (open.n == run_time) sizes.push_back(fixed.n);
  for (size_t a = 0; a < size_t(open.rank); a++)
    if (open.in[a] == run_time) sizes.push_back(fixed.in[a]);
  return sizes;
}

}  // namespace convsmith
