#include "lanczos.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace convsmith {
namespace {

double dot(const std::vector<double> &a, const std::vector<float> &b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
  return sum;
}

double norm(const std::vector<double> &a) {
  double sum = 0;
  for (double value : a) sum += value * value;
  return std::sqrt(sum);
}

std::vector<float> scaled(const std::vector<double> &a, double factor) {
  std::vector<float> result(a.size());
  for (std::size_t i = 0; i < a.size(); i++) result[i] = static_cast<float>(a[i] * factor);
  return result;
}

// How many eigenvalues lie below x: the negative pivots of T - x I.
int count_below(const std::vector<double> &diagonal, const std::vector<double> &off, double x) {
  int count = 0;
  double pivot = 1;
  for (std::size_t i = 0; i < diagonal.size(); i++) {
    const double coupling = i == 0 ? 0 : off[i - 1];
    pivot = diagonal[i] - x - (coupling == 0 ? 0 : coupling * coupling / pivot);
    if (pivot == 0) pivot = std::numeric_limits<double>::min();
    count += pivot < 0;
  }
  return count;
}

}  // namespace

std::pair<double, double> extreme_tridiagonal(const std::vector<double> &diagonal, const std::vector<double> &off) {
  double low = diagonal[0], high = diagonal[0];  // Gershgorin's discs
  for (std::size_t i = 0; i < diagonal.size(); i++) {
    const double radius = (i > 0 ? std::abs(off[i - 1]) : 0) + (i + 1 < diagonal.size() ? std::abs(off[i]) : 0);
    low = std::min(low, diagonal[i] - radius);
    high = std::max(high, diagonal[i] + radius);
  }
  const auto bisect = [&](int below) {
    double a = low, b = high;
    for (double middle = a + (b - a) / 2; a < middle && middle < b; middle = a + (b - a) / 2) {
      if (count_below(diagonal, off, middle) > below) b = middle;
      else a = middle;
    }
    return a + (b - a) / 2;
  };
  return {bisect(0), bisect(static_cast<int>(diagonal.size()) - 1)};
}

std::pair<double, double> extreme_eigenvalues(
    std::int64_t n, int steps, std::uint64_t seed,
    const std::function<std::vector<double>(const std::vector<float> &)> &apply) {
  std::mt19937_64 engine(seed);
  std::vector<double> start(static_cast<std::size_t>(n));
  for (double &value : start) value = 2 * (static_cast<double>(engine() >> 11) * 0x1p-53) - 1;

  // The basis is kept as the operator sees it, in float: half the memory, and no error that T does not know of.
  std::vector<std::vector<float>> basis{scaled(start, 1 / norm(start))};
  std::vector<double> diagonal, off;
  double scale = 0;
  for (;;) {
    std::vector<double> next = apply(basis.back());
    diagonal.push_back(dot(next, basis.back()));
    if (static_cast<std::int64_t>(basis.size()) >= std::min<std::int64_t>(n, steps)) break;
    for (int pass = 0; pass < 2; pass++) {  // twice is enough: Parlett and Kahan
      for (const std::vector<float> &v : basis) {
        const double projection = dot(next, v);
        for (std::size_t i = 0; i < next.size(); i++) next[i] -= projection * v[i];
      }
    }
    const double length = norm(next);
    scale = std::max(scale, std::abs(diagonal.back()) + length);
    if (length <= 1e-6 * scale) break;  // an invariant subspace, to the rounding of the float products
    off.push_back(length);
    basis.push_back(scaled(next, 1 / length));
  }
  return extreme_tridiagonal(diagonal, off);
}

}  // namespace convsmith
