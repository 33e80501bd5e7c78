#include "reference.h"
#include <array>

namespace convsmith {
namespace {

// Where a padded position lies in an axis whose elements [first, first+count) are real; -1: a zero.
std::int64_t bordered(Border border, std::int64_t at, std::int64_t first, std::int64_t count) {
  const std::int64_t i = at - first;
  if (i >= 0 && i < count) return at;
  switch (border) {
    case Border::zero: return -1;
    case Border::replicate: return first + (i < 0 ? 0 : count - 1);
    case Border::reflect: return first + (i < 0 ? -i : 2 * (count - 1) - i);
    case Border::wrap: return first + (i % count + count) % count;
  }
  return -1;
}

std::array<std::int64_t, 3> split3(std::int64_t flat, std::int64_t b, std::int64_t c) {
  return {flat / (b * c), flat / c % b, flat % c};
}

}  // namespace

template<class T> std::vector<T> dense(const Tensor &t) {
  std::vector<T> v;
  if (!t.defined()) return v;
  const Shape shape = t.shape();
  v.reserve(size_t(t.elements()));
  Shape at(shape.size(), 0);
  for (std::int64_t i = 0; i < t.elements(); i++) {
    v.push_back(T(t.at(at)));
    for (size_t a = shape.size(); a-- > 0 && ++at[a] == shape[a];) at[a] = 0;
  }
  return v;
}
template std::vector<double> dense(const Tensor &);
template std::vector<std::int64_t> dense(const Tensor &);
template std::vector<float> dense(const Tensor &);

template<class T>
Reference<T>::Reference(const Problem &p, const Tensor &x, const Tensor &weight, const Tensor &bias, const Tensor &dy)
    : problem_(p), x_(dense<T>(x)), weight_(dense<T>(weight)), bias_(dense<T>(bias)), dy_(dense<T>(dy)) {
  for (int a = 0; a < 3 - p.rank; a++) axes_.push_back({1, 1, 1, {0}, {{{0, 0}}}});
  for (int a = 0; a < p.rank; a++) {
    AxisTable t{p.in[a], p.out(a), p.kernel[a], {}, {}};
    t.readers.resize(size_t(t.in));
    const std::int64_t first = std::max<std::int64_t>(0, -p.pad_lo[a]);
    const std::int64_t count = t.in - first - std::max<std::int64_t>(0, -p.pad_hi[a]);
    for (std::int64_t o = 0; o < t.out; o++)
      for (std::int64_t k = 0; k < t.kernel; k++) {
        const std::int64_t tap = p.op == Op::convolution ? t.kernel - 1 - k : k;
        const std::int64_t from = bordered(p.border, o * p.stride[a] + tap * p.dilation[a] - p.pad_lo[a], first, count);
        t.source.push_back(from);
        if (from >= 0) t.readers[size_t(from)].push_back({o, k});
      }
    axes_.push_back(t);
  }
}

template<class T> Sum3<T> Reference<T>::y(std::int64_t element) const {
  const auto &[D, H, W] = std::tie(axes_[0], axes_[1], axes_[2]);
  const std::int64_t positions = D.out * H.out * W.out, icg = problem_.ic / problem_.groups;
  const auto [od, oh, ow] = split3(element % positions, H.out, W.out);
  const std::int64_t oc = element / positions % problem_.oc, n = element / positions / problem_.oc;
  const std::int64_t first = oc / (problem_.oc / problem_.groups) * icg;
  Sum3<T> s;
  for (std::int64_t c = 0; c < icg; c++)
    for (std::int64_t kd = 0; kd < D.kernel; kd++)
      for (std::int64_t kh = 0; kh < H.kernel; kh++)
        for (std::int64_t kw = 0; kw < W.kernel; kw++) {
          const std::int64_t d = D.source[od * D.kernel + kd], h = H.source[oh * H.kernel + kh], w = W.source[ow * W.kernel + kw];
          if (d < 0 || h < 0 || w < 0) continue;
          s.add(x_[(((n * problem_.ic + first + c) * D.in + d) * H.in + h) * W.in + w],
                weight_[(((oc * icg + c) * D.kernel + kd) * H.kernel + kh) * W.kernel + kw]);
        }
  if (!bias_.empty()) s.sum += bias_[oc], s.magnitude += std::abs(bias_[oc]);
  s.length = icg * D.kernel * H.kernel * W.kernel;
  return s;
}

template<class T> Sum3<T> Reference<T>::dx(std::int64_t element) const {
  const auto &[D, H, W] = std::tie(axes_[0], axes_[1], axes_[2]);
  const std::int64_t positions = D.in * H.in * W.in, icg = problem_.ic / problem_.groups, ocg = problem_.oc / problem_.groups;
  const auto [d, h, w] = split3(element % positions, H.in, W.in);
  const std::int64_t ic = element / positions % problem_.ic, n = element / positions / problem_.ic;
  const std::int64_t first = ic / icg * ocg, c = ic % icg;
  Sum3<T> s;
  for (std::int64_t oc = first; oc < first + ocg; oc++)
    for (auto [od, kd] : D.readers[d])
      for (auto [oh, kh] : H.readers[h])
        for (auto [ow, kw] : W.readers[w])
          s.add(dy_[(((n * problem_.oc + oc) * D.out + od) * H.out + oh) * W.out + ow],
                weight_[(((oc * icg + c) * D.kernel + kd) * H.kernel + kh) * W.kernel + kw]);
  s.length = std::max(s.length, ocg * D.kernel * H.kernel * W.kernel);
  return s;
}

template<class T> Sum3<T> Reference<T>::dw(std::int64_t element) const {
  const auto &[D, H, W] = std::tie(axes_[0], axes_[1], axes_[2]);
  const std::int64_t taps = D.kernel * H.kernel * W.kernel, icg = problem_.ic / problem_.groups;
  const auto [kd, kh, kw] = split3(element % taps, H.kernel, W.kernel);
  const std::int64_t c = element / taps % icg, oc = element / taps / icg;
  const std::int64_t ic = oc / (problem_.oc / problem_.groups) * icg + c;
  Sum3<T> s;
  for (std::int64_t n = 0; n < problem_.n; n++)
    for (std::int64_t od = 0; od < D.out; od++)
      for (std::int64_t oh = 0; oh < H.out; oh++)
        for (std::int64_t ow = 0; ow < W.out; ow++) {
          const std::int64_t d = D.source[od * D.kernel + kd], h = H.source[oh * H.kernel + kh], w = W.source[ow * W.kernel + kw];
          if (d < 0 || h < 0 || w < 0) continue;
          s.add(dy_[(((n * problem_.oc + oc) * D.out + od) * H.out + oh) * W.out + ow],
                x_[(((n * problem_.ic + ic) * D.in + d) * H.in + h) * W.in + w]);
        }
  s.length = problem_.n * D.out * H.out * W.out;
  return s;
}

template<class T> Sum3<T> Reference<T>::db(std::int64_t oc) const {
  const std::int64_t positions = axes_[0].out * axes_[1].out * axes_[2].out;
  Sum3<T> s;
  for (std::int64_t n = 0; n < problem_.n; n++)
    for (std::int64_t i = 0; i < positions; i++) s.add(dy_[(n * problem_.oc + oc) * positions + i], T(1));
  return s;
}

template class Reference<double>;
template class Reference<std::int64_t>;

}  // namespace convsmith
