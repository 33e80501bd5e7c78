// Forward of 8-bit operands against 64-bit integers: with scales that are powers of two every step but the last rounding
// is exact, so that ties are checked too; with others the result may be the neighbour where it lies that near a tie.
#include <algorithm>
#include "activations.h"
#include "checker.h"
#include "convsmith/npy.h"

namespace convsmith {
namespace {

// The largest magnitude that a bounded activation gives; 0: none.
double range_of(const Activation &a) {
  using Kind = Activation::Kind;
  switch (a.kind) {
    case Kind::sigmoid:
    case Kind::tanh: return 1;
    case Kind::relu6: return 6;
    case Kind::clamp: return std::max(std::abs(double(a.a)), std::abs(double(a.b)));
    default: return 0;
  }
}

}  // namespace

void Checker::check_quantised(bool powers_of_two) {
  Tensor weight(p_.weight_shape(), CONVSMITH_S8);
  for (std::int64_t i = 0; i < weight.elements(); i++) weight.data<std::int8_t>()[i] = std::int8_t(integer(-128, 127));
  if (!kernel_.weight.empty()) weight = read_npy(kernel_.weight, CONVSMITH_S8);
  if (const auto pass = find("pack_weight")) check_packing(*pass, weight);
  const auto pass = find("forward");
  if (!pass) return;

  const bool per_channel = p_.scale == Scale::channel, scaled = p_.out_type != OutType::i32;
  const bool narrow = p_.out_type == OutType::u8 || p_.out_type == OutType::s8;
  const std::int64_t low = p_.out_type == OutType::u8 ? 0 : -128;
  const Shape own = {per_channel ? p_.oc : 1};
  const auto integers = [&](const Shape &shape, convsmith_type type, std::int64_t from, std::int64_t to) {
    Tensor t(shape);
    for (std::int64_t i = 0; i < t.elements(); i++) t.data<float>()[i] = float(integer(from, to));
    return t.as(type);
  };
  // Scales for which results spread over the narrow types, and sums over where a bounded activation is steep.
  const double spread = std::sqrt(double(terms_forward())) * 128 * 64, range = range_of(p_.activation);
  const double about_w = range > 0 ? 16 * 4 / spread : 1.0 / 8, about_y = range > 0 ? range / 128 : spread / 128 / 128;
  const auto scales = [&](const Shape &shape, double about) {
    Tensor t(shape);
    for (std::int64_t i = 0; i < t.elements(); i++)
      t.data<float>()[i] = powers_of_two ? std::ldexp(1.0f, std::ilogb(about) + int(integer(-1, 1))) : float(about * (0.5 + uniform()));
    return t;
  };
  const bool symmetric = powers_of_two && integer(0, 1) == 1;
  const Tensor x = integers(p_.input_shape(), CONVSMITH_U8, 0, 255);
  const Tensor x_zero = integers({1}, CONVSMITH_I32, 0, 255);
  const Tensor w_zero = symmetric ? Tensor(own, CONVSMITH_I32) : integers(own, CONVSMITH_I32, -128, 127);
  const Tensor x_scale = scales({1}, 1.0 / 16), w_scale = scales(own, about_w), y_scale = scales({1}, about_y);
  const Tensor y_zero = integers({1}, CONVSMITH_I32, low, low + 255);
  const Tensor bias = p_.bias ? integers(p_.bias_shape(), CONVSMITH_I32, -1000, 1000) : Tensor();
  Tensor residual;
  if (p_.residual) {
    residual = p_.out_type == OutType::f32 ? random_tensor(p_.output_shape(), powers_of_two, false)
               : narrow                    ? integers(p_.output_shape(), p_.out_type == OutType::u8 ? CONVSMITH_U8 : CONVSMITH_S8, low, low + 255)
                                           : integers(p_.output_shape(), CONVSMITH_I32, -1000, 1000);
  }

  Arguments arguments = {{"x", ordered(*pass, "x", x)}, {"y", make(*pass, "y")}, {"x_zero", x_zero}, {"w_zero", w_zero}};
  if (kernel_.weight.empty()) arguments.push_back({"weight", packed(*pass, weight)});
  if (scaled) arguments.push_back({"x_scale", x_scale}), arguments.push_back({"w_scale", w_scale});
  if (narrow) arguments.push_back({"y_scale", y_scale}), arguments.push_back({"y_zero", y_zero});
  if (p_.bias) arguments.push_back({"bias", bias});
  if (p_.residual) arguments.push_back({"residual", ordered(*pass, "residual", residual)});
  pass->run(arguments);

  // Differences from the zero points, over which a border of zeros is zero.
  Operands<std::int64_t> o{dense<std::int64_t>(x), dense<std::int64_t>(weight), dense<std::int64_t>(bias), {}, {}};
  const auto zeros = dense<std::int64_t>(w_zero);
  for (auto &v : o.x) v -= x_zero.data<std::int32_t>()[0];
  const Shape ws = p_.weight_shape();
  std::int64_t within = 1;  // weights of one output channel in a row, and how many rows of channels
  const size_t oc_axis = p_.op == Op::local ? size_t(p_.rank) : p_.op == Op::transposed ? 1 : 0;
  for (size_t a = oc_axis + 1; a < ws.size(); a++) within *= ws[a];
  for (size_t i = 0; i < o.weight.size(); i++) {
    std::int64_t oc = std::int64_t(i) / within % ws[oc_axis];
    if (p_.op == Op::transposed) oc += std::int64_t(i) / within / ws[1] / (p_.ic / p_.groups) * (p_.oc / p_.groups);
    o.weight[i] -= zeros[per_channel ? size_t(oc) : 0];
  }
  const Reference<std::int64_t> ref(p_, o);
  const auto extra = dense<double>(residual), w_scales = dense<double>(w_scale);
  const double xs = x_scale.data<float>()[0], ys = y_scale.data<float>()[0];
  const double yz = y_zero.data<std::int32_t>()[0];
  std::int64_t positions = 1;
  for (int a = 0; a < p_.rank; a++) positions *= p_.out(a);
  const std::vector<double> got = dense<double>(arguments[1].second);
  compare("forward", arguments[1].second, terms_forward(), [&](std::int64_t i) {
    const double sum = double(ref.y(i).sum), added = p_.residual ? extra[size_t(i)] : 0;
    if (!scaled) return Want{activated(p_.activation, sum + added), 0, true};
    const double scale = double(float(xs * w_scales[per_channel ? size_t(i / positions % p_.oc) : 0]));
    const double real = sum * scale, pre = real + (narrow ? (added - yz) * ys * p_.residual : added);
    // Each of: the sum to f32, its scaling, the residual's scaling and addition.
    const bool exact_pre = powers_of_two && std::abs(sum) < double(1 << 24) && !p_.residual;
    const double pre_error = exact_pre ? 0 : 4 * u * (std::abs(real) + std::abs(pre) + std::abs(pre - real));
    const double value = activated(p_.activation, pre);
    const double error = steepness(p_.activation) * pre_error + value_error(p_.activation, pre, exponential_);
    const bool exact = exact_pre && is_exact(p_.activation) && p_.activation.kind != Activation::Kind::leaky_relu;
    if (!narrow) return Want{exact ? double(float(value)) : value, error, exact};
    const double steps = value / ys, off = exact && powers_of_two ? 0 : error / ys + 4 * u * std::abs(steps);
    const auto rounded = [&](double v) { return std::clamp(std::nearbyint(v) + yz, double(low), double(low + 255)); };
    const double first = rounded(steps - off), last = rounded(steps + off);
    if (first == last) return Want{first, 0, true};
    const double have = got[size_t(i)];  // one of a few neighbours
    return Want{std::clamp(have, first, last), 0, true};
  });
}

}  // namespace convsmith
