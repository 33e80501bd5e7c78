#include "call.h"
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include "convsmith/error.h"
#include "convsmith/npy.h"

namespace convsmith {

namespace {

Tensor slice(const Tensor &t, std::int64_t from, std::int64_t to) {
  Shape shape = t.shape();
  shape[0] = to - from;
  return Tensor::view(t.data<float>() + from * t.strides()[0], t.type(), shape, t.strides());
}

}  // namespace

TimedCall::TimedCall(const Library &library, const std::string &kernel, PassKind kind, const std::map<std::string, Tensor> &filed, int threads,
                     const Shape &sizes)
    : library_(library), pass_(library.pass(kernel, pass_name(kind))) {
  for (int i = 0; i < library.table().pass_count; i++)
    if (kernel == library.table().passes[i].kernel && pass_.name() == library.table().passes[i].pass)
      table_ = &library.table().passes[i];
  for (int i = 0; i < pass_.arguments(); i++) {
    const std::string name = pass_.argument_name(i);
    const Tensor t(pass_.describe(name, sizes));
    const auto from = filed.find(name);
    const char *packing = kind == PassKind::input_gradient ? "pack_weight_for_input_gradient" : "pack_weight";
    const auto packer = name == "weight" ? library.find(kernel, packing) : std::nullopt;
    if (packer && from != filed.end()) (*packer)({{"from", from->second.as(static_cast<convsmith_type>(packer->describe("from").type))}, {"weight", t}});
    else if (from != filed.end()) t.copy_from(from->second.as(t.type()));
    else if (i < pass_.arguments() - pass_.outputs() && is_float(t.type())) t.fill(0.0078125f);
    tensors_.push_back(library.uses_device() ? library.to_device(t) : t), arguments_.push_back(tensors_.back().c());
  }
  result_ = tensors_[size_t(pass_.arguments() - pass_.outputs())];
  const Tensor in_files(result_.shape());
  if (kind != PassKind::weight_gradient || result_.fits(in_files.c()) || result_.on_device()) return;
  // A slice takes some microseconds at least, as another thread takes one to begin.
  const std::int64_t count = std::min({std::int64_t(threads), result_.extent(0), 1 + result_.elements() / 16384});
  for (std::int64_t t = 0; t < count; t++) {
    const auto from = result_.extent(0) * t / count, to = result_.extent(0) * (t + 1) / count;
    slices_.push_back({slice(in_files, from, to), slice(result_, from, to)});
  }
  filed_ = in_files;
}

void TimedCall::operator()() const {
  convsmith_error error;
  if (table_->run(arguments_.data(), &error) != CONVSMITH_OK) throw Error(fmt::format("{}: {}", pass_.title(), error.message));
  if (slices_.empty()) return;
  const auto file = [&](int t) { slices_[size_t(t)].first.copy_from(slices_[size_t(t)].second); };
  if (slices_.size() == 1) file(0);
  else library_.parallel_for(int(slices_.size()), file);
}

void TimedCall::wait() const {
  if (result_.on_device()) library_.synchronize();
}

Times TimedCall::time(double seconds) const {
  const double batch_us = result_.on_device() ? 1000 : 50;
  return summary_of(time_each(seconds, *this, [this] { wait(); }, batch_us));
}

Tensor TimedCall::result() const {
  if (result_.on_device()) library_.to_host(result_);
  Tensor t(result_.shape());
  t.copy_from(result_.as(CONVSMITH_F32));
  return t;
}

void TimedCall::write_rest(const std::string &folder) const {
  for (int i = 0; i < pass_.arguments() - pass_.outputs(); i++) {
    const std::string file = folder + "/" + pass_.argument_name(i) + ".npy";
    if (!std::filesystem::exists(file)) write_npy(file, tensors_[size_t(i)].as(CONVSMITH_F32));
  }
}

namespace {

// The widest range of integers for which no sum of products passes 2^24.
std::int64_t exact_range(const Problem &p) {
  const std::int64_t sites = element_count({p.n, p.out(0), p.rank > 1 ? p.out(1) : 1, p.rank > 2 ? p.out(2) : 1});
  const std::int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2] * std::max(p.ic, p.oc) / p.groups * (p.border == Border::zero ? 1 : 4);
  return std::int64_t(std::sqrt(double((1 << 24) - 16) / double(std::max(sites, taps) + 2)));
}

}  // namespace

bool has_exact_operands(const Problem &p) {
  return exact_range(p) >= (p.type == Type::u8s8 ? 2 : 1) && p.op != Op::dense && p.type != Type::f16;
}

std::map<std::string, Tensor> operands(const Problem &p, const std::string &folder) {
  const auto range = std::clamp<std::int64_t>(exact_range(p), 1, 4);
  std::mt19937 random(1);
  std::map<std::string, Tensor> filed;
  const auto add = [&](const std::string &name, const Shape &shape) {
    const bool byte = p.type == Type::u8s8 && name == "x";
    const Tensor t(shape);
    float *data = t.data<float>();
    for (std::int64_t i = 0; i < t.elements(); i++)
      data[i] = float(std::int64_t(random() % std::uint64_t(2 * range + 1)) - (byte ? 0 : range));
    if (!folder.empty()) write_npy(folder + "/" + name + ".npy", t);
    filed.emplace(name, t);
  };
  add("x", p.input_shape()), add("dy", p.output_shape()), add("weight", p.weight_shape());
  if (p.bias) add("bias", p.bias_shape());
  return filed;
}

// The largest difference as a share of the largest magnitude.
double difference(const Tensor &ours, const std::string &file) {
  const Tensor read = read_npy(file);
  if (read.elements() != ours.elements()) return INFINITY;
  const Tensor theirs = read.reshaped(ours.shape());
  const float *a = ours.data<float>(), *b = theirs.data<float>();
  double worst = 0, largest = 0;
  for (std::int64_t i = 0; i < ours.elements(); i++) {
    worst = std::isfinite(b[i]) ? std::max(worst, std::abs(double(a[i]) - b[i])) : INFINITY;
    largest = std::max(largest, std::abs(double(a[i])));
  }
  return largest > 0 ? worst / largest : worst;
}


}  // namespace convsmith
