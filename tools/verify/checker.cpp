#include "checker.h"
#include <fmt/format.h>
#include <algorithm>
#include "convsmith/half.h"
#include "convsmith/npy.h"

namespace convsmith {
namespace {

constexpr double exact_limit = 1 << 24;  // integers below it, and their sums, are exact in f32

convsmith_type stored_type(Type type) {
  switch (type) {
    case Type::f16: return CONVSMITH_F16;
    case Type::bf16: return CONVSMITH_BF16;
    case Type::u8s8: return CONVSMITH_U8;
    default: return CONVSMITH_F32;
  }
}

}  // namespace

Checker::Checker(const Library &library, const KernelRequest &kernel, const Problem &p, std::uint64_t seed,
                 std::int64_t most_products)
    : library_(library), kernel_(kernel), p_(p), sizes_(sizes_at(kernel.problem, p)), type_(stored_type(p.type)),
      exponential_(library.level() == "vulkan" ? Exponential::vulkan : Exponential::few_units), seed_(seed), most_products_(most_products),
      random_(seed) {}

std::vector<PassFigures> Checker::run() {
  for (const Pass &pass : library_.passes())
    if (pass.kernel() == kernel_.name) figures_.push_back({pass.name()});
  // With each term at most range^2: the widest range of integers that stays exact.
  const std::int64_t k = std::max({terms_forward(), terms_input(), terms_weight()});
  const double limit = type_ == CONVSMITH_F16 ? 60'000 : exact_limit - 16;
  range_ = std::clamp<std::int64_t>(std::int64_t(std::sqrt(limit / double(k))), 0, 8);
  if (p_.type == Type::u8s8) {
    check_quantised(true);
    check_quantised(false);
    return figures_;
  }
  if (range_ > 0 && kernel_.weight.empty()) check_floats<std::int64_t>(true);
  check_floats<double>(false);
  return figures_;
}

PassFigures &Checker::figures(const std::string &pass) {
  for (auto &f : figures_)
    if (f.pass == pass) return f;
  throw CheckFailed("no pass " + pass);
}

std::int64_t Checker::terms_forward() const {
  std::int64_t t = p_.ic / p_.groups;
  for (int a = 0; a < p_.rank; a++) t *= p_.op == Op::dense ? p_.in[a] : p_.kernel[a];
  return t + 2;
}

std::int64_t Checker::terms_input() const {
  std::int64_t t = p_.oc / p_.groups * (p_.border == Border::zero ? 1 : 4);
  for (int a = 0; a < p_.rank; a++) t *= p_.op == Op::dense ? p_.dense_out[a] : p_.kernel[a];
  return t;
}

std::int64_t Checker::terms_weight() const {
  std::int64_t t = std::max<std::int64_t>(p_.n, 1);
  for (int a = 0; a < p_.rank && p_.op != Op::local && p_.op != Op::dense; a++) t *= p_.out(a);
  return t;
}

double Checker::uniform() { return double(random_() >> 11) * 0x1p-53; }

std::int64_t Checker::integer(std::int64_t low, std::int64_t high) {
  return low + std::int64_t(random_() % std::uint64_t(high - low + 1));
}

Tensor Checker::random_tensor(const Shape &shape, bool integers, bool rounded) {
  Tensor t(shape);
  float *data = t.data<float>();
  for (std::int64_t i = 0; i < t.elements(); i++) data[i] = integers ? float(integer(-range_, range_)) : float(uniform() * 2 - 1);
  return rounded && !integers ? t.as(type_).as(CONVSMITH_F32) : t;
}

Tensor Checker::make(const Pass &pass, std::string_view argument) const {
  const Tensor t(pass.describe(argument, sizes_));
  t.fill(77);  // what a pass leaves out must not pass for its zeros
  return t;
}

Tensor Checker::ordered(const Pass &pass, std::string_view argument, const Tensor &from) const {
  const Tensor t = make(pass, argument);
  t.copy_from(from.as(t.type()));
  return t;
}

Tensor Checker::packed(const Pass &pass, const Tensor &weight) const {
  const auto pack = find(pass.name() == "input_gradient" ? "pack_weight_for_input_gradient" : "pack_weight");
  if (!pack) return ordered(pass, "weight", weight);
  const Tensor to = make(*pack, "weight");
  (*pack)({{"from", weight}, {"weight", to}});
  return to;
}

void Checker::fail(const std::string &pass, const std::string &what) const {
  throw CheckFailed(fmt::format("{} of \"{}\" at level {}: {} (seed {})", pass, p_.str(), library_.level(), what, seed_));
}

std::vector<std::int64_t> Checker::sample(std::int64_t elements, std::int64_t terms) {
  std::vector<std::int64_t> list;
  const std::int64_t most = std::max<std::int64_t>(64, most_products_ / std::max<std::int64_t>(1, terms));
  if (elements <= most) {
    for (std::int64_t i = 0; i < elements; i++) list.push_back(i);
    return list;
  }
  list = {0, elements - 1};
  while (std::int64_t(list.size()) < most) list.push_back(std::int64_t(random_() % std::uint64_t(elements)));
  return list;
}

void Checker::compare(const std::string &pass, const Tensor &got, std::int64_t terms,
                      const std::function<Want(std::int64_t)> &wanted) {
  const std::vector<double> values = dense<double>(got);
  PassFigures &f = figures(pass);
  for (const std::int64_t i : sample(std::int64_t(values.size()), terms)) {
    const Want want = wanted(i);
    const double have = values[size_t(i)];
    if (!want.known) continue;
    if (want.exact) {
      if (have != want.value) fail(pass, fmt::format("element {} expected exactly {}, got {}", i, want.value, have));
      f.exact_elements++;
      continue;
    }
    const double error = std::abs(have - want.value);
    if (!(error <= want.bound))
      fail(pass, fmt::format("element {} expected {} within {:.3g}, got {}", i, want.value, want.bound, have));
    f.real_elements++;
    f.worst_error = std::max(f.worst_error, error);
    if (want.bound > 0) f.worst_share = std::max(f.worst_share, error / want.bound);
  }
}

Want Checker::stored(double value, double bound, double magnitude, convsmith_type type, bool integers) const {
  const auto once = [&](float v) {
    return type == CONVSMITH_F16 ? from_float16(to_float16(v)) : type == CONVSMITH_BF16 ? from_bfloat16(to_bfloat16(v)) : v;
  };
  const bool fits = type != CONVSMITH_F16 || std::abs(value) < 65'504;
  if (integers) return {once(float(value)), 0, true, magnitude <= exact_limit && fits};
  if (type == CONVSMITH_F16) bound += std::ldexp(std::abs(value) + bound, -11) + std::ldexp(1.0, -25);
  if (type == CONVSMITH_BF16) bound += std::ldexp(std::abs(value) + bound, -8);
  return {value, bound, false, fits};
}

void Checker::check_packing(const Pass &pass, const Tensor &weight) {
  const Tensor to = make(pass, "weight");
  pass({{"from", weight}, {"weight", to}});
  const std::vector<double> from = dense<double>(weight);
  const auto rounded = [&](std::int64_t i) { return stored(from[size_t(i)], 0, 0, to.type(), true); };
  if (to.shape() == weight.shape()) return compare(pass.name(), to, 1, rounded);

  // Panels [G, blocks, *kernel, other, panel] or fours [G, *kernel, blocks, vector, 4], zero beyond the last channel.
  const Shape s = to.shape();
  const bool fours = p_.type == Type::u8s8, dense_op = p_.op == Op::dense;
  const bool depthwise = p_.groups > 1 && p_.ic == p_.groups && p_.oc == p_.groups && s[0] == 1;  // its channels are a vector
  // The vector axis is the result's channel: y's, or x's for the input gradient.
  const bool of_input = pass.name() != "pack_weight" && !depthwise;
  std::int64_t co = p_.oc / p_.groups, ci = p_.ic / p_.groups, taps = 1, x_positions = 1, y_positions = 1;
  for (int a = 0; a < p_.rank; a++) {
    if (dense_op) x_positions *= p_.in[a], y_positions *= p_.dense_out[a];
    else taps *= p_.kernel[a];
  }
  if (depthwise) co = p_.oc, ci = 1;
  co *= y_positions, ci *= x_positions;
  // Patches that are read side by side have the taps of a row as channels, after one another.
  std::int64_t row = fours || dense_op ? 1 : taps;
  for (int a = 0; a < p_.rank && row > 1; a++) row /= s[size_t(2 + a)];
  ci *= row, taps /= row;
  const std::int64_t vector = of_input ? ci : co, other = of_input ? co : ci;
  // A flattened channel of a dense tensor, in the order of memory, as in a file.
  const auto filed = [&](std::int64_t c, std::int64_t channels, std::int64_t positions) {
    return p_.layout == Layout::channels_last ? c % channels * positions + c / channels : c;
  };
  compare(pass.name(), to, 1, [&](std::int64_t i) {
    const std::int64_t width = s.back();
    std::int64_t g, k, c, r;
    if (fours) {
      const std::int64_t blocks = s[s.size() - 3];
      c = i / width % vector, r = i / width / vector % blocks * width + i % width;
      k = i / width / vector / blocks % taps, g = i / width / vector / blocks / taps;
    } else {
      const std::int64_t blocks = s[1];
      r = i / width % other, k = i / width / other % taps, c = i / width / other / taps % blocks * width + i % width;
      g = i / width / other / taps / blocks;
    }
    if (c >= vector || r >= other) return Want{0, 0, true};
    std::int64_t oc = of_input ? r : c, ic = of_input ? c : r;
    if (dense_op) {
      oc = filed(oc, co / y_positions, y_positions), ic = filed(ic, ci / x_positions, x_positions);
      return rounded(oc * ci + ic);
    }
    if (p_.op == Op::transposed) return rounded(((g * ci + ic) * co + oc) * taps + k);
    const std::int64_t channels = ci / row;
    return rounded((((g * co + oc) * channels + ic % channels) * taps + k) * row + ic / channels);
  });
}

}  // namespace convsmith
