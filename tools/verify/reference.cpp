#include "reference.h"

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

// The input that output o reads with tap k of an axis; -1: none.
std::int64_t source(const Problem &p, int a, std::int64_t o, std::int64_t k) {
  if (p.op == Op::dense) return k;
  if (p.op == Op::transposed) {
    const std::int64_t at = o + p.pad_lo[a] - k * p.dilation[a];
    return at >= 0 && at % p.stride[a] == 0 && at / p.stride[a] < p.in[a] ? at / p.stride[a] : -1;
  }
  const std::int64_t first = std::max<std::int64_t>(0, -p.pad_lo[a]);
  const std::int64_t count = p.in[a] - first - std::max<std::int64_t>(0, -p.pad_hi[a]);
  const std::int64_t tap = p.op == Op::convolution ? p.kernel[a] - 1 - k : k;
  return bordered(p.border, o * p.stride[a] + tap * p.dilation[a] - p.pad_lo[a], first, count);
}

}  // namespace

template<class T> std::vector<T> dense(const Tensor &t) {
  std::vector<T> v;
  if (!t.defined()) return v;
  const Tensor f = t.type() == CONVSMITH_I32 ? t : t.as(CONVSMITH_F32);  // f32 would round large integers
  const Shape shape = t.shape(), stride = f.strides();
  v.reserve(size_t(t.elements()));
  Shape at(shape.size(), 0);
  for (std::int64_t i = 0; i < t.elements(); i++) {
    std::int64_t offset = 0;
    for (size_t a = 0; a < shape.size(); a++) offset += at[a] * stride[a];
    v.push_back(f.type() == CONVSMITH_I32 ? T(f.data<std::int32_t>()[offset]) : T(f.data<float>()[offset]));
    for (size_t a = shape.size(); a-- > 0 && ++at[a] == shape[a];) at[a] = 0;
  }
  return v;
}
template std::vector<double> dense(const Tensor &);
template std::vector<std::int64_t> dense(const Tensor &);
template std::vector<float> dense(const Tensor &);

template<class T>
Reference<T>::Reference(const Problem &p, Operands<T> operands)
    : p_(p), icg_(p.ic / p.groups), ocg_(p.oc / p.groups), o_(std::move(operands)) {
  for (int a = 0; a < 3 - p.rank; a++) axes_.push_back({1, 1, 1, {0}, {{{0, 0}}}});
  for (int a = 0; a < p.rank; a++) {
    AxisTable t{p.in[a], p.out(a), p.op == Op::dense ? p.in[a] : p.kernel[a], {}, {}};
    t.readers.resize(size_t(t.in));
    for (std::int64_t o = 0; o < t.out; o++)
      for (std::int64_t k = 0; k < t.kernel; k++) {
        const std::int64_t from = source(p, a, o, k);
        t.source.push_back(from);
        if (from >= 0) t.readers[size_t(from)].push_back({o, k});
      }
    axes_.push_back(t);
  }
}

template<class T> std::int64_t Reference<T>::flat(const Three &at, std::int64_t AxisTable::*extent) const {
  return (at[0] * (axes_[1].*extent) + at[1]) * (axes_[2].*extent) + at[2];
}

template<class T> auto Reference<T>::split(std::int64_t flat, std::int64_t AxisTable::*extent) const -> Three {
  const std::int64_t h = axes_[1].*extent, w = axes_[2].*extent;
  return {flat / (h * w), flat / w % h, flat % w};
}

template<class T> std::int64_t Reference<T>::volume(std::int64_t AxisTable::*extent) const {
  return (axes_[0].*extent) * (axes_[1].*extent) * (axes_[2].*extent);
}

// `c` is the input channel within its group.
template<class T>
std::int64_t Reference<T>::weight_index(std::int64_t oc, std::int64_t c, const Three &o, const Three &k) const {
  const std::int64_t taps = volume(&AxisTable::kernel), tap = flat(k, &AxisTable::kernel);
  switch (p_.op) {
    case Op::transposed: return ((oc / ocg_ * icg_ + c) * ocg_ + oc % ocg_) * taps + tap;
    case Op::local: return ((flat(o, &AxisTable::out) * p_.oc + oc) * icg_ + c) * taps + tap;
    case Op::dense: return ((oc * volume(&AxisTable::out) + flat(o, &AxisTable::out)) * p_.ic + c) * taps + tap;
    default: return (oc * icg_ + c) * taps + tap;
  }
}

template<class T> Sum3<T> Reference<T>::y(std::int64_t element) const {
  const std::int64_t positions = volume(&AxisTable::out);
  const Three o = split(element % positions, &AxisTable::out);
  const std::int64_t oc = element / positions % p_.oc, n = element / positions / p_.oc;
  const std::int64_t first = n * p_.ic + oc / ocg_ * icg_;
  const auto &[D, H, W] = std::tie(axes_[0], axes_[1], axes_[2]);
  Sum3<T> s;
  for (std::int64_t c = 0; c < icg_; c++)
    for (std::int64_t kd = 0; kd < D.kernel; kd++)
      for (std::int64_t kh = 0; kh < H.kernel; kh++)
        for (std::int64_t kw = 0; kw < W.kernel; kw++) {
          const Three i = {D.source[size_t(o[0] * D.kernel + kd)], H.source[size_t(o[1] * H.kernel + kh)],
                           W.source[size_t(o[2] * W.kernel + kw)]};
          if (i[0] < 0 || i[1] < 0 || i[2] < 0) continue;
          s.add(o_.x[size_t((first + c) * volume(&AxisTable::in) + flat(i, &AxisTable::in))],
                o_.weight[size_t(weight_index(oc, c, o, {kd, kh, kw}))]);
        }
  for (const auto &[added, at] : {std::pair(&o_.bias, oc), std::pair(&o_.residual, element)})
    if (!added->empty()) s.sum += (*added)[size_t(at)], s.magnitude += std::abs((*added)[size_t(at)]);
  s.length = icg_ * volume(&AxisTable::kernel);
  return s;
}

template<class T> Sum3<T> Reference<T>::dx(std::int64_t element) const {
  const std::int64_t positions = volume(&AxisTable::in);
  const Three i = split(element % positions, &AxisTable::in);
  const std::int64_t ic = element / positions % p_.ic, n = element / positions / p_.ic;
  const std::int64_t first = ic / icg_ * ocg_;
  Sum3<T> s;
  for (std::int64_t oc = first; oc < first + ocg_; oc++)
    for (auto [od, kd] : axes_[0].readers[size_t(i[0])])
      for (auto [oh, kh] : axes_[1].readers[size_t(i[1])])
        for (auto [ow, kw] : axes_[2].readers[size_t(i[2])])
          s.add(o_.dy[size_t((n * p_.oc + oc) * volume(&AxisTable::out) + flat({od, oh, ow}, &AxisTable::out))],
                o_.weight[size_t(weight_index(oc, ic % icg_, {od, oh, ow}, {kd, kh, kw}))]);
  s.length = std::max(s.length, ocg_ * (p_.op == Op::dense ? volume(&AxisTable::out) : volume(&AxisTable::kernel)));
  return s;
}

template<class T> Sum3<T> Reference<T>::dw(std::int64_t element) const {
  const std::int64_t taps = volume(&AxisTable::kernel), positions = volume(&AxisTable::out);
  const Three k = split(element % taps, &AxisTable::kernel);
  std::int64_t rest = element / taps, oc = 0, c = 0, from = 0, to = positions;  // the positions that share the weight
  switch (p_.op) {
    case Op::transposed:
      oc = rest / ocg_ / icg_ * ocg_ + rest % ocg_, c = rest / ocg_ % icg_;
      break;
    case Op::local:
      c = rest % icg_, oc = rest / icg_ % p_.oc, from = rest / icg_ / p_.oc, to = from + 1;
      break;
    case Op::dense:
      c = rest % p_.ic, from = rest / p_.ic % positions, oc = rest / p_.ic / positions, to = from + 1;
      break;
    default:
      c = rest % icg_, oc = rest / icg_;
      break;
  }
  const std::int64_t ic = oc / ocg_ * icg_ + c;
  const auto &[D, H, W] = std::tie(axes_[0], axes_[1], axes_[2]);
  Sum3<T> s;
  for (std::int64_t n = 0; n < p_.n; n++)
    for (std::int64_t at = from; at < to; at++) {
      const Three o = split(at, &AxisTable::out);
      const Three i = {D.source[size_t(o[0] * D.kernel + k[0])], H.source[size_t(o[1] * H.kernel + k[1])],
                       W.source[size_t(o[2] * W.kernel + k[2])]};
      if (i[0] < 0 || i[1] < 0 || i[2] < 0) continue;
      s.add(o_.dy[size_t((n * p_.oc + oc) * positions + at)],
            o_.x[size_t((n * p_.ic + ic) * volume(&AxisTable::in) + flat(i, &AxisTable::in))]);
    }
  s.length = p_.n * (to - from);
  return s;
}

template<class T> Sum3<T> Reference<T>::db(std::int64_t oc) const {
  const std::int64_t positions = volume(&AxisTable::out);
  Sum3<T> s;
  for (std::int64_t n = 0; n < p_.n; n++)
    for (std::int64_t i = 0; i < positions; i++) s.add(o_.dy[size_t((n * p_.oc + oc) * positions + i)], T(1));
  return s;
}

template class Reference<double>;
template class Reference<std::int64_t>;

}  // namespace convsmith
