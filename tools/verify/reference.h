// What each pass must give, element by element, in double or exact 64-bit integers, straight from the problem's own
// formulas and in another form than the generators': per axis, a table says which input an output's tap reads.
#pragma once
#include "convsmith/problem.h"
#include "convsmith/tensor.h"
#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace convsmith {

/// The unit roundoff of f32.
inline constexpr double u = 0x1p-24;

/// A sum, the sum of its terms' magnitudes, and their number.
template<class T> struct Sum3 {
  T sum = 0, magnitude = 0;
  std::int64_t length = 0;
  void add(T a, T b) { sum += a * b, magnitude += std::abs(a) * std::abs(b), length++; }
};

/// The operands in logical row-major order: x and dy [N, C, *spatial], weights as in files, bias [OC], residual as y;
/// bias and residual empty where there is none.
template<class T> struct Operands {
  std::vector<T> x, weight, bias, residual, dy;
};

/// Every extent of the problem is known.
template<class T> class Reference {
 public:
  Reference(const Problem &, Operands<T>);

  /// At a logical index of the result, in row-major order. y is the sum with its bias and residual, before the activation.
  Sum3<T> y(std::int64_t element) const;
  Sum3<T> dx(std::int64_t element) const;
  Sum3<T> dw(std::int64_t element) const;
  Sum3<T> db(std::int64_t element) const;

  void set_dy(std::vector<T> dy) { o_.dy = std::move(dy); }

 private:
  // Along an axis: the input that output o reads with tap k, or -1 for a zero; and the (o, k) that read an input.
  // A dense problem has a tap for each input.
  struct AxisTable {
    std::int64_t in, out, kernel;
    std::vector<std::int64_t> source;
    std::vector<std::vector<std::pair<std::int64_t, std::int64_t>>> readers;
  };
  using Three = std::array<std::int64_t, 3>;
  std::int64_t weight_index(std::int64_t oc, std::int64_t c, const Three &o, const Three &k) const;
  std::int64_t flat(const Three &at, std::int64_t AxisTable::*extent) const;
  Three split(std::int64_t flat, std::int64_t AxisTable::*extent) const;
  std::int64_t volume(std::int64_t AxisTable::*extent) const;

  Problem p_;
  std::int64_t icg_, ocg_;        // input and output channels of a group
  std::vector<AxisTable> axes_;  // three, the missing ones of extent 1; outermost first
  Operands<T> o_;
};

extern template class Reference<double>;
extern template class Reference<std::int64_t>;

/// |y - ref| <= min(K+2, 2+6 sqrt K) * 2^-24 * S + 2^-24 * |ref|, for zero-mean random data: K terms whose magnitudes
/// add up to S, summed in f32 in any order.
inline double real_data_bound(const Sum3<double> &s) {
  const double k = double(s.length);
  return std::min(k + 2, 2 + 6 * std::sqrt(k)) * u * s.magnitude + u * std::abs(s.sum);
}

/// The elements of a tensor of any type in logical row-major order.
template<class T> std::vector<T> dense(const Tensor &t);

}  // namespace convsmith
