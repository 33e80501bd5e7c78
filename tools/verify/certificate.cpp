#include "certificate.h"
#include "convsmith/error.h"
#include "convsmith/npy.h"
#include "reference.h"
#include <algorithm>
#include <fmt/format.h>
#include <random>

namespace convsmith {
namespace {

constexpr double exact_limit = 1 << 24;  // integers below it, and their sums, are exact in f32

class Checker {
 public:
  Checker(const Library &library, const KernelRequest &kernel, std::uint64_t seed, std::int64_t most_products)
      : library_(library), kernel_(kernel), p_(kernel.problem), seed_(seed), most_products_(most_products), random_(seed) {}

  std::vector<PassFigures> run() {
    for (const Pass &pass : library_.passes())
      if (pass.kernel() == kernel_.name) figures_.push_back({pass.name()});
    if (has("forward")) {
      // The sum's length, with each term at most range^2: the widest range of integers that stays exact.
      const std::int64_t k = std::max({terms_forward(), terms_input(), terms_weight()});
      range_ = std::clamp<std::int64_t>(std::int64_t(std::sqrt((exact_limit - 16) / double(k))), 0, 8);
    } else {
      range_ = std::clamp<std::int64_t>(std::int64_t(std::sqrt((exact_limit - 16) / double(std::max(terms_input(), terms_weight())))), 0, 8);
    }
    const bool constant = !kernel_.weight.empty();
    if (range_ > 0 && !constant) check_data(true);
    check_data(false);
    return figures_;
  }

 private:
  std::int64_t kernel_volume() const { return p_.kernel[0] * p_.kernel[1] * p_.kernel[2]; }
  std::int64_t terms_forward() const { return p_.ic / p_.groups * kernel_volume() + 1; }
  std::int64_t terms_input() const { return p_.oc / p_.groups * kernel_volume() * (p_.border == Border::zero ? 1 : 4); }
  std::int64_t terms_weight() const {
    std::int64_t t = p_.n;
    for (int a = 0; a < p_.rank; a++) t *= p_.out(a);
    return t;
  }

  bool has(const char *pass) const { return library_.find(kernel_.name, pass).has_value(); }
  PassFigures &figures(const std::string &pass) {
    for (auto &f : figures_)
      if (f.pass == pass) return f;
    throw CheckFailed("no pass " + pass);
  }

  Tensor random_tensor(const Shape &shape, bool integers) {
    Tensor t(shape);
    float *data = t.data<float>();
    for (std::int64_t i = 0; i < t.elements(); i++) {
      const std::uint64_t bits = random_();
      data[i] = integers ? float(std::int64_t(bits % std::uint64_t(2 * range_ + 1)) - range_)
                         : float(double(bits >> 11) * 0x1p-53 * 2 - 1);
    }
    return t;
  }

  // A tensor in the memory order that an argument wants, holding the same logical elements.
  static Tensor ordered(const Pass &pass, std::string_view argument, const Tensor &from) {
    Tensor t = pass.make(argument);
    t.copy_from(from);
    return t;
  }

  Tensor packed(const Pass &pass, const char *packer, const Tensor &weight) const {
    if (const auto pack = library_.find(kernel_.name, packer)) {
      const Tensor to = pack->make("weight");
      (*pack)({{"from", weight}, {"weight", to}});
      return to;
    }
    return ordered(pass, "weight", weight);
  }

  [[noreturn]] void fail(const std::string &pass, const std::string &what) const {
    throw CheckFailed(fmt::format("{} of \"{}\" at level {}: {} (seed {})", pass, p_.str(), library_.level(), what, seed_));
  }

  // Elements to compare: all, or a seeded sample with the first and the last, so that the reference stays affordable.
  std::vector<std::int64_t> sample(std::int64_t elements, std::int64_t terms) {
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

  template<class Expected, class Bound>
  void compare(const std::string &pass, const Tensor &got, std::int64_t terms, bool integers, Expected expected, Bound bound) {
    const std::vector<float> values = dense<float>(got);
    PassFigures &f = figures(pass);
    for (std::int64_t i : sample(std::int64_t(values.size()), terms)) {
      const double want = expected(i), have = values[size_t(i)];
      if (integers) {
        if (have != want) fail(pass, fmt::format("element {} expected exactly {}, got {}", i, want, have));
        f.exact_elements++;
        continue;
      }
      const double error = std::abs(have - want), limit = bound(i);
      if (!(error <= limit)) fail(pass, fmt::format("element {} expected {} within {:.3g}, got {}", i, want, limit, have));
      f.real_elements++;
      f.worst_error = std::max(f.worst_error, error);
      if (limit > 0) f.worst_share = std::max(f.worst_share, error / limit);
    }
  }

  double activated(double v) const { return p_.activation.kind == Activation::Kind::relu ? std::max(v, 0.0) : v; }

  template<class T> void check_with(bool integers) {
    const Tensor x = random_tensor(p_.input_shape(), integers), dy = random_tensor(p_.output_shape(), integers);
    const Tensor weight = kernel_.weight.empty() ? random_tensor(p_.weight_shape(), integers) : read_npy(kernel_.weight);
    const Tensor bias = p_.bias ? random_tensor(p_.bias_shape(), integers) : Tensor();
    const Reference<T> ref(p_, x, weight, bias, dy);
    auto bound = [](const Sum3<T> &s) { return real_data_bound({double(s.sum), double(s.magnitude), s.length}); };

    std::optional<Tensor> y, dx, dw;
    if (const auto pass = library_.find(kernel_.name, "forward")) {
      std::vector<std::pair<std::string, Tensor>> arguments = {{"x", ordered(*pass, "x", x)}, {"y", pass->make("y")}};
      if (kernel_.weight.empty()) arguments.push_back({"weight", packed(*pass, "pack_weight", weight)});
      if (p_.bias) arguments.push_back({"bias", ordered(*pass, "bias", bias)});
      pass->run(arguments);
      y = arguments[1].second;
      compare("forward", *y, terms_forward(), integers, [&](auto i) { return activated(double(ref.y(i).sum)); },
              [&](auto i) { return bound(ref.y(i)); });
    }
    if (const auto pass = library_.find(kernel_.name, "input_gradient")) {
      dx = pass->make("dx");
      std::vector<std::pair<std::string, Tensor>> arguments = {{"dy", ordered(*pass, "dy", dy)}, {"dx", *dx}};
      if (kernel_.weight.empty()) arguments.push_back({"weight", packed(*pass, "pack_weight_for_input_gradient", weight)});
      pass->run(arguments);
      compare("input_gradient", *dx, terms_input(), integers, [&](auto i) { return double(ref.dx(i).sum); },
              [&](auto i) { return bound(ref.dx(i)); });
    }
    if (const auto pass = library_.find(kernel_.name, "weight_gradient")) {
      dw = pass->make("dweight");
      (*pass)({{"x", ordered(*pass, "x", x)}, {"dy", ordered(*pass, "dy", dy)}, {"dweight", *dw}});
      compare("weight_gradient", *dw, terms_weight(), integers, [&](auto i) { return double(ref.dw(i).sum); },
              [&](auto i) { return bound(ref.dw(i)); });
    }
    if (const auto pass = library_.find(kernel_.name, "bias_gradient")) {
      const Tensor db = pass->make("dbias");
      (*pass)({{"dy", ordered(*pass, "dy", dy)}, {"dbias", db}});
      compare("bias_gradient", db, terms_weight(), integers, [&](auto i) { return double(ref.db(i).sum); },
              [&](auto i) { return bound(ref.db(i)); });
    }
    if (const auto pass = library_.find(kernel_.name, "activation_gradient")) {
      const Tensor out = random_tensor(p_.output_shape(), integers), dpre = pass->make("dpre");
      (*pass)({{"dy", ordered(*pass, "dy", dy)}, {"y", ordered(*pass, "y", out)}, {"dpre", dpre}});
      const auto at = dense<float>(out), d = dense<float>(dy);
      compare("activation_gradient", dpre, 1, true, [&](auto i) { return at[size_t(i)] > 0 ? double(d[size_t(i)]) : 0.0; },
              [](auto) { return 0.0; });
    }
    for (const char *name : {"pack_weight", "pack_weight_for_input_gradient"})
      if (const auto pass = library_.find(kernel_.name, name)) check_packing(*pass, weight);
    if (integers && p_.activation.kind == Activation::Kind::none) check_adjoint(ref, x, weight, bias, dy, y, dx, dw);
    if (const auto pass = library_.find(kernel_.name, "train_step")) check_train_step<T>(*pass, integers);
  }

  void check_data(bool integers) { integers ? check_with<std::int64_t>(true) : check_with<double>(false); }

  void check_packing(const Pass &pass, const Tensor &weight) {
    const Tensor to = pass.make("weight");
    pass({{"from", weight}, {"weight", to}});
    if (to.shape() == weight.shape()) {
      const auto want = dense<float>(weight);
      compare(pass.name(), to, 1, true, [&](auto i) { return double(want[size_t(i)]); }, [](auto) { return 0.0; });
      return;
    }
    // Panels: [G, blocks, *kernel, other, panel], zero beyond the last vector channel.
    const Shape s = to.shape();
    const bool transposed = pass.name() != "pack_weight" && !(p_.groups > 1 && p_.ic == p_.groups && p_.oc == p_.groups);
    const bool depthwise = p_.groups > 1 && p_.ic == p_.groups && p_.oc == p_.groups;
    const std::int64_t co = depthwise ? p_.oc : p_.oc / p_.groups, ci = p_.ic / p_.groups, vec = transposed ? ci : co;
    const std::int64_t panel = s.back(), other = s[s.size() - 2], taps = kernel_volume(), blocks = s[1];
    const auto want = dense<float>(weight);
    compare(pass.name(), to, 1, true, [&](std::int64_t i) {
      const std::int64_t lane = i % panel, r = i / panel % other, k = i / panel / other % taps, b = i / panel / other / taps % blocks;
      const std::int64_t g = i / panel / other / taps / blocks, c = b * panel + lane;
      if (c >= vec) return 0.0;
      const std::int64_t oc = g * co + (transposed ? r : c), ic = transposed ? c : r;
      return double(want[size_t((oc * ci + ic) * taps + k)]);
    }, [](auto) { return 0.0; });
  }

  // Both sides in 64-bit integers; skipped where a pass is missing.
  template<class T>
  void check_adjoint(const Reference<T> &, const Tensor &x, const Tensor &weight, const Tensor &bias, const Tensor &dy,
                     const std::optional<Tensor> &y, const std::optional<Tensor> &dx, const std::optional<Tensor> &dw) {
    auto dot = [](const Tensor &a, const Tensor &b) {
      const auto u = dense<std::int64_t>(a), v = dense<std::int64_t>(b);
      std::int64_t s = 0;
      for (size_t i = 0; i < u.size(); i++) s += u[i] * v[i];
      return s;
    };
    if (!y) return;
    std::int64_t forward = dot(*y, dy);
    if (p_.bias) {  // the identity is of the linear part
      const auto g = dense<std::int64_t>(dy), b = dense<std::int64_t>(bias);
      const std::int64_t positions = std::int64_t(g.size()) / (p_.n * p_.oc);
      for (size_t i = 0; i < g.size(); i++) forward -= g[i] * b[size_t(std::int64_t(i) / positions % p_.oc)];
    }
    if (dx) {
      if (dot(x, *dx) != forward) fail("input_gradient", fmt::format("<x, dx> expected <y, dy> = {}, got {}", forward, dot(x, *dx)));
      figures("input_gradient").adjoint = true;
    }
    if (dw) {
      if (dot(weight, *dw) != forward) fail("weight_gradient", fmt::format("<w, dw> expected <y, dy> = {}, got {}", forward, dot(weight, *dw)));
      figures("weight_gradient").adjoint = true;
    }
  }

  // weight_out = weight - rate * 2 * dw(e), e = (y - target) [y > 0], loss = sum (y - target)^2
  template<class T> void check_train_step(const Pass &pass, bool integers) {
    if (terms_weight() * terms_forward() * p_.oc > most_products_) return;  // meant for small problems
    const std::int64_t range = range_;
    range_ = 1;
    const Tensor x = random_tensor(p_.input_shape(), integers), weight = random_tensor(p_.weight_shape(), integers);
    const Tensor target = random_tensor(p_.output_shape(), integers);
    const Tensor bias = p_.bias ? random_tensor(p_.bias_shape(), integers) : Tensor();
    range_ = range;
    const float rate = integers ? 0.5f : 0.01f;
    Reference<T> ref(p_, x, weight, bias, target);
    const double u = std::ldexp(1.0, -24);
    const auto t = dense<T>(target);
    std::vector<T> e(t.size());
    std::vector<double> e_error(t.size());
    double loss = 0, loss_error = 0, widest = 0;
    for (size_t i = 0; i < t.size(); i++) {
      const Sum3<T> s = ref.y(std::int64_t(i));
      const T difference = T(activated(double(s.sum))) - t[i];
      const double error = real_data_bound({double(s.sum), double(s.magnitude), s.length}) + u * std::abs(double(difference));
      // Near the kink of relu rounding may fall on either side, and the whole difference is then the error.
      const bool relu = p_.activation.kind == Activation::Kind::relu, on = !relu || s.sum > 0;
      e[i] = on ? difference : T(0);
      e_error[i] = relu && std::abs(double(s.sum)) <= error ? std::abs(double(difference)) + error : on ? error : 0;
      loss += double(difference) * double(difference);
      loss_error += 2 * std::abs(double(difference)) * error + error * error;
      widest = std::max(widest, double(s.magnitude) + std::abs(double(t[i])));
    }
    const double n = double(t.size());
    loss_error += std::min(n + 2, 2 + 6 * std::sqrt(n)) * u * loss + u * loss;
    ref.set_dy(e);
    // Integers are exact only while every sum stays below 2^24.
    if (integers && (loss > exact_limit || double(terms_weight()) * widest > exact_limit)) return;

    Tensor rate_tensor = pass.make("rate");
    rate_tensor.fill(rate);
    const Tensor weight_out = pass.make("weight_out"), loss_out = pass.make("loss");
    std::vector<std::pair<std::string, Tensor>> arguments = {{"x", ordered(pass, "x", x)}, {"weight", ordered(pass, "weight", weight)},
        {"target", ordered(pass, "target", target)}, {"rate", rate_tensor}, {"weight_out", weight_out}, {"loss", loss_out}};
    if (p_.bias) arguments.push_back({"bias", ordered(pass, "bias", bias)}), arguments.push_back({"bias_out", pass.make("bias_out")});
    pass.run(arguments);

    Reference<double> errors(p_, x, weight, bias, target);
    errors.set_dy(e_error);
    auto step = [&](double value, const Sum3<T> &d) { return value - double(rate) * 2 * double(d.sum); };
    auto step_bound = [&](double value, const Sum3<T> &d, double carried) {
      const double exact = step(value, d), change = 2 * double(rate);
      return change * (carried + real_data_bound({double(d.sum), double(d.magnitude), d.length}) + 3 * u * std::abs(double(d.sum))) + u * (std::abs(exact) + std::abs(value));
    };
    const auto w = dense<double>(weight), b = dense<double>(bias);
    compare("train_step", weight_out, terms_weight(), integers, [&](auto i) { return step(w[size_t(i)], ref.dw(i)); },
            [&](auto i) { return step_bound(w[size_t(i)], ref.dw(i), errors.dw(i).magnitude); });
    if (p_.bias)
      compare("train_step", arguments.back().second, terms_weight(), integers, [&](auto i) { return step(b[size_t(i)], ref.db(i)); },
              [&](auto i) { return step_bound(b[size_t(i)], ref.db(i), errors.db(i).magnitude); });
    compare("train_step", loss_out, 1, integers, [&](auto) { return loss; }, [&](auto) { return loss_error; });
  }

  const Library &library_;
  const KernelRequest &kernel_;
  const Problem &p_;
  std::uint64_t seed_;
  std::int64_t most_products_, range_ = 1;
  std::mt19937_64 random_;
  std::vector<PassFigures> figures_;
};

}  // namespace

std::vector<PassFigures> check_kernel(const Library &library, const KernelRequest &kernel, std::uint64_t seed,
                                      std::int64_t most_products) {
  return Checker(library, kernel, seed, most_products).run();
}

nlohmann::json certify(const Library &library, const std::vector<KernelRequest> &kernels) {
  constexpr std::uint64_t seed = 1;
  nlohmann::json certificate = {{"seed", seed}, {"levels", nlohmann::json::array()}};
  for (const std::string &level : library.levels()) {
    nlohmann::json held = {{"level", level}};
    try {
      library.set_level(level);
    } catch (const Error &) {
      held["not_run"] = "this processor lacks some of its instructions";
      certificate["levels"].push_back(held);
      continue;
    }
    for (auto &kernel : kernels)
      for (auto &f : check_kernel(library, kernel, seed))
        held["passes"].push_back({{"kernel", kernel.name},
                                  {"pass", f.pass},
                                  {"exact_elements", f.exact_elements},
                                  {"real_elements", f.real_elements},
                                  {"worst_error", f.worst_error},
                                  {"worst_share_of_bound", f.worst_share},
                                  {"adjoint_identity", f.adjoint}});
    certificate["levels"].push_back(held);
  }
  return certificate;
}

}  // namespace convsmith
