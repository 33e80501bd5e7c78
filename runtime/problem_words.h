// The words of the problem text, which parse and str share.
#pragma once
#include <iterator>
#include "convsmith/problem.h"

namespace convsmith::problem_words {

/// In the order of the canonical text, as `keys` is.
enum class Key {
  op,
  n,
  ic,
  oc,
  groups,
  in,
  kernel,
  out,
  stride,
  dilation,
  pad,
  out_pad,
  border,
  type,
  out_type,
  scale,
  layout,
  bias,
  activation,
  residual,
  save,
  precision
};
inline constexpr std::string_view keys[] = {"op",         "n",        "ic",       "oc",       "groups", "in",
                                            "kernel",     "out",      "stride",   "dilation", "pad",    "out_pad",
                                            "border",     "type",     "out_type", "scale",    "layout", "bias",
                                            "activation", "residual", "save",     "precision"};
inline constexpr std::size_t key_count = std::size(keys);
static_assert(key_count == static_cast<std::size_t>(Key::precision) + 1);

inline std::string name(Key key) { return std::string(keys[static_cast<std::size_t>(key)]); }

template<class E>
struct Word {
  std::string_view text;
  E value;
};

inline constexpr Word<Op> ops[] = {{"correlation", Op::correlation},
                                   {"convolution", Op::convolution},
                                   {"transposed", Op::transposed},
                                   {"local", Op::local},
                                   {"dense", Op::dense}};
inline constexpr Word<Border> borders[] = {
    {"zero", Border::zero}, {"replicate", Border::replicate}, {"reflect", Border::reflect}, {"wrap", Border::wrap}};
inline constexpr Word<Type> types[] = {
    {"f32", Type::f32}, {"f16", Type::f16}, {"bf16", Type::bf16}, {"u8s8", Type::u8s8}};
inline constexpr Word<OutType> out_types[] = {
    {"f32", OutType::f32}, {"u8", OutType::u8}, {"s8", OutType::s8}, {"i32", OutType::i32}};
inline constexpr Word<Scale> scales[] = {{"tensor", Scale::tensor}, {"channel", Scale::channel}};
inline constexpr Word<Layout> layouts[] = {{"channels_last", Layout::channels_last},
                                           {"channels_first", Layout::channels_first}};
inline constexpr Word<bool> switches[] = {{"0", false}, {"1", true}};
inline constexpr Word<Save> saves[] = {{"none", Save::none}, {"pre", Save::pre}};
inline constexpr Word<Precision> precisions[] = {{"exact", Precision::exact}, {"fast", Precision::fast}};

using Kind = Activation::Kind;
inline constexpr Word<Kind> activations[] = {
    {"none", Kind::none},       {"relu", Kind::relu}, {"relu6", Kind::relu6}, {"leaky_relu", Kind::leaky_relu},
    {"sigmoid", Kind::sigmoid}, {"tanh", Kind::tanh}, {"silu", Kind::silu},   {"gelu", Kind::gelu},
    {"clamp", Kind::clamp}};

inline std::size_t parameter_count(Kind kind) { return kind == Kind::clamp ? 2 : kind == Kind::leaky_relu ? 1 : 0; }

template<class E, std::size_t N>
std::string name(const Word<E> (&words)[N], E value) {
  for (const Word<E> &word : words) {
    if (word.value == value) return std::string(word.text);
  }
  return "unnamed";
}

/// "P", or "LO:HI" where the ends differ.
inline std::string pad_text(std::int64_t lo, std::int64_t hi) {
  return lo == hi ? std::to_string(lo) : std::to_string(lo) + ":" + std::to_string(hi);
}

}  // namespace convsmith::problem_words
