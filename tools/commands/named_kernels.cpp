#include "named_kernels.h"
#include <fmt/format.h>
#include <charconv>
#include <cmath>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/npy.h"

namespace convsmith {
namespace {

Tensor kernel_of(std::int64_t rows, std::int64_t columns, const std::vector<double> &values) {
  Tensor t(Shape{1, 1, rows, columns});
  for (size_t i = 0; i < values.size(); i++) t.data<float>()[i] = float(values[i]);
  return t;
}

double number_after_colon(const std::string &name, double low, double high) {
  const char *from = name.data() + name.find(':') + 1, *end = name.data() + name.size();
  double value = 0;
  const auto [at, error] = std::from_chars(from, end, value);
  if (error != std::errc() || at != end || !(value >= low && value <= high))
    throw Error(fmt::format("kernel {}: expected a number of {} to {} after the colon", name, low, high));
  return value;
}

}  // namespace

Tensor named_kernel(const std::string &name) {
  if (name == "edge-x") return kernel_of(1, 2, {1, -1});
  if (name == "edge-y") return kernel_of(2, 1, {1, -1});
  if (name == "sharpen") return kernel_of(3, 3, {0, -1, 0, -1, 5, -1, 0, -1, 0});
  if (name == "laplacian") return kernel_of(3, 3, {0, 1, 0, 1, -4, 1, 0, 1, 0});
  if (name.starts_with("box:")) {
    const double n = number_after_colon(name, 1, 255);
    if (n != std::floor(n)) throw Error(fmt::format("kernel {}: expected a whole number after the colon", name));
    return kernel_of(std::int64_t(n), std::int64_t(n), std::vector<double>(size_t(n * n), 1 / (n * n)));
  }
  if (name.starts_with("gaussian:")) {
    const double sigma = number_after_colon(name, 0.1, 60);
    const int radius = int(std::ceil(2 * sigma)), size = 2 * radius + 1;
    std::vector<double> values;
    double sum = 0;
    for (int y = -radius; y <= radius; y++)
      for (int x = -radius; x <= radius; x++)
        values.push_back(std::exp(-(x * x + y * y) / (2 * sigma * sigma))), sum += values.back();
    for (double &v : values) v /= sum;
    return kernel_of(size, size, values);
  }
  std::error_code ignored;
  if (!name.ends_with(".npy") && !std::filesystem::is_regular_file(name, ignored))
    throw Error(fmt::format(
        "kernel: expected a .npy file, edge-x, edge-y, sharpen, laplacian, gaussian:SIGMA or box:N, got \"{}\"", name));
  const Tensor t = read_npy(name);
  const Shape s = t.shape();
  if (t.elements() == 0)
    throw Error(fmt::format("{}: expected one kernel, KHxKW or 1x1xKHxKW, got no element in {}", name, shape_text(s)));
  if (s.size() == 2) return t.reshaped({1, 1, s[0], s[1]});
  if (s.size() == 4 && s[0] == 1 && s[1] == 1) return t;
  throw Error(fmt::format("{}: expected one kernel, KHxKW or 1x1xKHxKW, got {}", name, shape_of(t)));
}

}  // namespace convsmith
