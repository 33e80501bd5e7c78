// A problem: one cross-correlation and its extents. Plain data; no Halide.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

enum class Op { correlation, convolution, transposed, local, dense };
enum class Border { zero, replicate, reflect, wrap };
enum class Type { f32, f16, bf16, u8s8 };
enum class OutType { f32, u8, s8, i32 };
enum class Scale { tensor, channel };
enum class Layout { channels_last, channels_first };
enum class Save { none, pre };
enum class Precision { exact, fast };

/// `a` is the slope of leaky_relu or the low end of clamp, `b` the high end of clamp.
struct Activation {
  enum class Kind { none, relu, relu6, leaky_relu, sigmoid, tanh, silu, gelu, clamp };
  Kind kind = Kind::none;
  float a = 0, b = 0;
  bool operator==(const Activation &o) const { return kind == o.kind && a == o.a && b == o.b; }
};

/// An extent known only when the kernel runs: `?` in the text.
inline constexpr std::int64_t run_time = -1;

using Shape = std::vector<std::int64_t>;

/// y(n,oc,o) = bias(oc) + sum over ic,k of weight(oc,ic,k) * x(n, ic, o*stride + k*dilation - pad_lo), and its kin.
/// Extents are in elements; axes are D, H, W in that order: entry 0 is the outermost of the `rank` in use.
struct Problem {
  using Extents = std::array<std::int64_t, 3>;

  Op op = Op::correlation;
  int rank = 0;
  std::int64_t n = 1, ic = 1, oc = 1, groups = 1;
  Extents in{1, 1, 1}, kernel{1, 1, 1}, dense_out{1, 1, 1};
  Extents stride{1, 1, 1}, dilation{1, 1, 1}, pad_lo{0, 0, 0}, pad_hi{0, 0, 0}, out_pad{0, 0, 0};
  Border border = Border::zero;
  Type type = Type::f32;
  OutType out_type = OutType::f32;
  Scale scale = Scale::tensor;
  Layout layout = Layout::channels_last;
  bool bias = false;
  Activation activation;
  bool residual = false;
  Save save = Save::none;
  Precision precision = Precision::exact;

  /// Reads `key=value` words in any order. Throws Error, naming the word and the form expected, where the text is
  /// not a problem, an output extent is below 1, or a product of extents passes 2^63.
  static Problem parse(std::string_view text);
  /// The canonical text: the table's order, defaults left out, equal axes collapsed, shortest round-trip numbers.
  std::string str() const;

  /// Extent of the output along an axis; run_time where the input's is.
  std::int64_t out(int axis) const;
  /// How far the window reaches along an axis: dilation*(kernel-1) + 1.
  std::int64_t window(int axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
  /// [N, C, *spatial] of x and of y; weights and bias as in files: [OC, IC/groups, *kernel] and [OC]
  /// (transposed [IC, OC/groups, *kernel]; local [*out, OC, IC/groups, *kernel]; dense [OC, *out, IC, *in]).
  Shape input_shape() const;
  Shape output_shape() const;
  Shape weight_shape() const;
  Shape bias_shape() const;

  bool operator==(const Problem &other) const { return str() == other.str(); }
};

/// Elements of a shape. Throws Error past 2^63-1; an extent of run_time counts as 1.
std::int64_t element_count(const Shape &);
/// Throws Error where x, y, the weights or the bias have 2^bits elements or more; an extent of run_time counts as 1.
/// Problem::parse refuses only what passes 2^63-1, so whoever makes a kernel calls this first.
void check_element_limit(const Problem &, int bits = 31);
/// "2x3x8x8", as messages print it; "?" for an extent known only when run.
std::string shape_text(const Shape &);

}  // namespace convsmith
