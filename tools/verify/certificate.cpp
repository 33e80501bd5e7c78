#include "certificate.h"
#include <fmt/format.h>
#include <algorithm>
#include "activations.h"
#include "checker.h"
#include "convsmith/error.h"
#include "convsmith/npy.h"
#include "schedules/levels.h"

namespace convsmith {
namespace {

// Of terms that are not zero-mean.
template<class T> double any_bound_of(const Sum3<T> &s) {
  return (double(s.length) + 2) * u * double(s.magnitude) + u * std::abs(double(s.sum));
}

template<class T> double bound_of(const Sum3<T> &s) { return real_data_bound({double(s.sum), double(s.magnitude), s.length}); }

std::int64_t dot(const Tensor &a, const Tensor &b) {
  const auto v = dense<std::int64_t>(a), w = dense<std::int64_t>(b);
  std::int64_t s = 0;
  for (size_t i = 0; i < v.size(); i++) s += v[i] * w[i];
  return s;
}

}  // namespace

template<class T> void Checker::check_floats(bool integers) {
  const Tensor x = random_tensor(p_.input_shape(), integers), dy = random_tensor(p_.output_shape(), integers);
  const Tensor weight = kernel_.weight.empty() ? random_tensor(p_.weight_shape(), integers, false) : read_npy(kernel_.weight);
  const Tensor bias = p_.bias ? random_tensor(p_.bias_shape(), integers, false) : Tensor();
  const Tensor residual = p_.residual ? random_tensor(p_.output_shape(), integers) : Tensor();
  const Operands<T> operands{dense<T>(x), dense<T>(weight.as(type_)), dense<T>(bias), dense<T>(residual), dense<T>(dy)};
  const Reference<T> ref(p_, operands);
  const Activation &act = p_.activation;

  std::optional<Tensor> y, dx, dw;
  if (const auto pass = find("forward")) {
    Arguments arguments = {{"x", ordered(*pass, "x", x)}, {"y", make(*pass, "y")}};
    if (kernel_.weight.empty()) arguments.push_back({"weight", packed(*pass, weight)});
    if (p_.bias) arguments.push_back({"bias", ordered(*pass, "bias", bias)});
    if (p_.residual) arguments.push_back({"residual", ordered(*pass, "residual", residual)});
    if (p_.save == Save::pre) arguments.push_back({"pre", make(*pass, "pre")});
    pass->run(arguments);
    y = arguments[1].second;
    const auto pre_wanted = [&](std::int64_t i) {
      const Sum3<T> s = ref.y(i);
      return stored(double(s.sum), bound_of(s), double(s.magnitude), type_, integers);
    };
    compare("forward", *y, terms_forward(), [&](std::int64_t i) {
      const Sum3<T> s = ref.y(i);
      const double pre = double(s.sum), value = activated(act, pre);
      // Of integers the sum is exact, and what the activation adds is its own.
      const double error = (integers ? 0 : steepness(act) * bound_of(s)) + value_error(act, pre, exponential_);
      Want want = stored(value, error, double(s.magnitude), type_, integers && is_exact(act));
      want.known &= !integers || double(s.magnitude) <= double(1 << 24);
      return want;
    });
    if (p_.save == Save::pre) compare("forward", arguments.back().second, terms_forward(), pre_wanted);
  }
  if (const auto pass = find("input_gradient")) {
    dx = make(*pass, "dx");
    Arguments arguments = {{"dy", ordered(*pass, "dy", dy)}, {"dx", *dx}};
    if (kernel_.weight.empty()) arguments.push_back({"weight", packed(*pass, weight)});
    pass->run(arguments);
    compare("input_gradient", *dx, terms_input(), [&](std::int64_t i) {
      const Sum3<T> s = ref.dx(i);
      return stored(double(s.sum), bound_of(s), double(s.magnitude), type_, integers);
    });
  }
  const auto summed = [&](const char *name, const Arguments &inputs, const char *result, auto sum) {
    const auto pass = find(name);
    if (!pass) return std::optional<Tensor>();
    Arguments arguments;
    for (auto &[argument, from] : inputs) arguments.push_back({argument, ordered(*pass, argument, from)});
    arguments.push_back({result, make(*pass, result)});
    pass->run(arguments);
    compare(name, arguments.back().second, terms_weight(), [&](std::int64_t i) {
      const Sum3<T> s = sum(i);
      return stored(double(s.sum), bound_of(s), double(s.magnitude), CONVSMITH_F32, integers);
    });
    return std::optional<Tensor>(arguments.back().second);
  };
  dw = summed("weight_gradient", {{"x", x}, {"dy", dy}}, "dweight", [&](std::int64_t i) { return ref.dw(i); });
  summed("bias_gradient", {{"dy", dy}}, "dbias", [&](std::int64_t i) { return ref.db(i); });
  if (const auto pass = find("activation_gradient")) check_activation_gradient(*pass, integers);
  for (const char *name : {"pack_weight", "pack_weight_for_input_gradient"})
    if (const auto pass = find(name)) check_packing(*pass, weight);
  if constexpr (std::is_same_v<T, std::int64_t>)
    if (act.kind == Activation::Kind::none && type_ == CONVSMITH_F32) check_adjoint(x, weight, operands, y, dx, dw);
  if (const auto pass = find("train_step")) check_train_step<T>(*pass, integers);
}

template void Checker::check_floats<double>(bool);
template void Checker::check_floats<std::int64_t>(bool);

void Checker::check_activation_gradient(const Pass &pass, bool integers) {
  const auto stored_float = [&](float v) {
    const Tensor t({1});
    t.fill(v);
    return *t.as(type_).as(CONVSMITH_F32).data<float>();
  };
  const Activation &act = p_.activation;
  const bool from_pre = pass.has("pre");
  const char *name = from_pre ? "pre" : "y";
  const Tensor dy = random_tensor(p_.output_shape(), integers), dpre = make(pass, "dpre");
  Tensor given = random_tensor(p_.output_shape(), integers);
  if (!integers) given.scale(4);
  Activation seen = act;  // by what is stored of its bounds
  if (!from_pre) {
    for (std::int64_t i = 0; i < given.elements(); i += 2) given.data<float>()[i] = float(activated(act, double(given.data<float>()[i])));
    if (act.kind == Activation::Kind::clamp) seen.a = stored_float(act.a), seen.b = stored_float(act.b);
  }
  given = given.as(type_).as(CONVSMITH_F32);
  pass({{"dy", ordered(pass, "dy", dy)}, {name, ordered(pass, name, given)}, {"dpre", dpre}});
  const auto at = dense<double>(given), d = dense<double>(dy);
  compare(pass.name(), dpre, 1, [&](std::int64_t i) {
    const double v = at[size_t(i)], g = d[size_t(i)], slope = from_pre ? activation_slope(act, v) : slope_from_output(seen, v);
    const double error = from_pre ? slope_error(act, v, exponential_) : 4 * u * (1 + v * v);
    // The slope is a number of f32, or 0 or 1: one rounding.
    if (is_exact(act)) return stored(double(float(g) * float(slope)), 0, 0, type_, true);
    return stored(g * slope, std::abs(g) * (error + u * std::abs(slope)), 0, type_, false);
  });
}

// Both sides in 64-bit integers; skipped where a pass is missing.
void Checker::check_adjoint(const Tensor &x, const Tensor &weight, const Operands<std::int64_t> &operands,
                            const std::optional<Tensor> &y, const std::optional<Tensor> &dx, const std::optional<Tensor> &dw) {
  if (!y || p_.n == 0) return;
  std::int64_t forward = 0;  // the identity is of the linear part
  const auto values = dense<std::int64_t>(*y);
  const std::int64_t positions = std::int64_t(values.size()) / (p_.n * p_.oc);
  for (size_t i = 0; i < values.size(); i++) {
    std::int64_t linear = values[i];
    if (p_.bias) linear -= operands.bias[size_t(std::int64_t(i) / positions % p_.oc)];
    if (p_.residual) linear -= operands.residual[i];
    forward += linear * operands.dy[i];
  }
  for (const auto &[gradient, of, pass, words] :
       {std::tuple(&dx, &x, "input_gradient", "<x, dx>"), std::tuple(&dw, &weight, "weight_gradient", "<w, dw>")}) {
    if (!*gradient) continue;
    const std::int64_t product = dot(*of, **gradient);
    if (product != forward) fail(pass, fmt::format("{} expected <y, dy> = {}, got {}", words, forward, product));
    figures(pass).adjoint = true;
  }
}

// weight_out = weight - rate * 2 * dw(e), e = (y - target) * activation'(pre), loss = sum (y - target)^2
template<class T> void Checker::check_train_step(const Pass &pass, bool integers) {
  const Activation &act = p_.activation;
  // The loss hangs on every output: none can be left out.
  if (double(terms_weight()) * double(terms_forward()) * double(p_.oc) > 8 * double(most_products_)) return;
  if (integers && !is_exact(act)) return;
  const std::int64_t range = range_;
  range_ = 1;
  const Tensor x = random_tensor(p_.input_shape(), integers), weight = random_tensor(p_.weight_shape(), integers, false);
  const Tensor target = random_tensor(p_.output_shape(), integers);
  const Tensor bias = p_.bias ? random_tensor(p_.bias_shape(), integers, false) : Tensor();
  const Tensor residual = p_.residual ? random_tensor(p_.output_shape(), integers) : Tensor();
  range_ = range;
  const float rate = integers ? 0.5f : 0.01f;
  Operands<T> operands{dense<T>(x), dense<T>(weight.as(type_)), dense<T>(bias), dense<T>(residual), dense<T>(target)};
  Reference<T> ref(p_, operands);
  const std::vector<double> t = dense<double>(target);
  std::vector<T> e(t.size());
  std::vector<double> e_error(t.size());
  double loss = 0, loss_error = 0, widest = 0;
  bool whole = true;
  for (size_t i = 0; i < t.size(); i++) {
    const Sum3<T> s = ref.y(std::int64_t(i));
    const double pre = double(s.sum), off = bound_of(s), difference = activated(act, pre) - t[i];
    const double error = steepness(act) * off + value_error(act, pre, exponential_) + u * std::abs(difference);
    const double slope = activation_slope(act, pre), slope_off = slope_change(act, pre, off) + slope_error(act, pre, exponential_);
    e[i] = T(difference * slope);
    whole &= double(e[i]) == difference * slope && difference == std::nearbyint(difference);
    e_error[i] = std::abs(difference) * slope_off + error * (std::abs(slope) + slope_off) + u * std::abs(difference * slope);
    loss += difference * difference;
    loss_error += 2 * std::abs(difference) * error + error * error;
    widest = std::max(widest, double(s.magnitude) * steepness(act) + std::abs(t[i]));
  }
  const double n = double(t.size());
  // Differences and squares are rounded, and the total; where that is of f32 numbers, so is each of its sums.
  const bool totals_in_f32 = library_.level() == "opencl" || library_.level() == "vulkan";
  loss_error += (4 + (totals_in_f32 ? n : 0)) * u * loss;
  ref.set_dy(e);
  // Integers are exact only while every sum stays below 2^24, and the slopes are whole.
  if (integers && (!whole || loss > double(1 << 24) || double(terms_weight() + terms_forward()) * widest > double(1 << 24))) return;

  const Tensor rate_tensor = make(pass, "rate"), weight_out = make(pass, "weight_out"), loss_out = make(pass, "loss");
  rate_tensor.fill(rate);
  Arguments arguments = {{"x", ordered(pass, "x", x)}, {"weight", ordered(pass, "weight", weight)},
                         {"target", ordered(pass, "target", target)}, {"rate", rate_tensor},
                         {"weight_out", weight_out}, {"loss", loss_out}};
  if (p_.residual) arguments.push_back({"residual", ordered(pass, "residual", residual)});
  if (p_.bias) arguments.push_back({"bias", ordered(pass, "bias", bias)}), arguments.push_back({"bias_out", make(pass, "bias_out")});
  pass.run(arguments);

  Reference<double> errors(p_, {dense<double>(x), dense<double>(weight.as(type_)), {}, {}, e_error});
  const auto wanted = [&](double value, const Sum3<T> &d, double carried) {
    const double change = 2 * double(rate), exact = value - change * double(d.sum);
    const double bound = change * (carried + any_bound_of(d) + 3 * u * std::abs(double(d.sum))) + u * (std::abs(exact) + std::abs(value));
    return Want{exact, bound, integers, true};
  };
  const auto w = dense<double>(weight), b = dense<double>(bias);
  compare("train_step", weight_out, terms_weight(), [&](std::int64_t i) { return wanted(w[size_t(i)], ref.dw(i), errors.dw(i).magnitude); });
  if (p_.bias)
    compare("train_step", arguments.back().second, terms_weight(), [&](std::int64_t i) { return wanted(b[size_t(i)], ref.db(i), errors.db(i).magnitude); });
  compare("train_step", loss_out, 1, [&](std::int64_t) { return Want{loss, loss_error, integers, true}; });
}

namespace {

// A problem that leaves extents open, at several of them: the smallest that the window fits into, odd ones, an empty
// batch.
std::vector<Problem> instances(const Problem &p) {
  if (p.n != run_time && std::none_of(p.in.begin(), p.in.begin() + p.rank, [](std::int64_t e) { return e == run_time; })) return {p};
  const auto valid = [](const Problem &q) {
    try {
      return Problem::parse(q.str()), true;
    } catch (const Error &) { return false; }
  };
  Problem smallest = p;
  for (int a = 0; a < p.rank; a++)
    if (p.in[a] == run_time) {
      const std::int64_t first = p.op == Op::transposed ? 1 : std::max<std::int64_t>(1, p.window(a) - p.pad_lo[a] - p.pad_hi[a]);
      for (smallest.in[a] = first; !valid(smallest) && smallest.in[a] < first + (1 << 16);) smallest.in[a]++;
    }
  if (p.n == run_time) smallest.n = 1;
  std::vector<Problem> list;
  const auto open = std::count(p.in.begin(), p.in.begin() + p.rank, run_time);
  // Past what is taken for few positions, or few images; but not many of large ones.
  const bool small = open == 0 && element_count(smallest.input_shape()) + element_count(smallest.output_shape()) < 1 << 20;
  const std::int64_t more[] = {0, 5, open == 1 ? 600 : open == 2 ? 29 : 9, 3}, batch[] = {1, 2, small ? 19 : 3, 0};
  for (int v = 0; v < 4; v++) {
    Problem q = smallest;
    if (p.n == run_time) q.n = batch[v];
    for (int a = 0; a < p.rank; a++)
      if (p.in[a] == run_time) q.in[a] += more[v] + (more[v] ? a : 0);
    if (valid(q)) list.push_back(q);
  }
  if (list.empty()) throw CheckFailed(fmt::format("expected extents that can be tried, found none for \"{}\"", p.str()));
  return list;
}

}  // namespace

std::vector<PassFigures> check_kernel(const Library &library, const KernelRequest &kernel, std::uint64_t seed,
                                      std::int64_t most_products) {
  std::vector<PassFigures> all;
  for (const Problem &p : instances(kernel.problem)) {
    const auto figures = Checker(library, kernel, p, seed, most_products).run();
    if (all.empty()) {
      all = figures;
      continue;
    }
    for (size_t i = 0; i < all.size(); i++) {
      PassFigures &f = all[i];
      f.exact_elements += figures[i].exact_elements, f.real_elements += figures[i].real_elements;
      f.worst_share = std::max(f.worst_share, figures[i].worst_share);
      f.worst_error = std::max(f.worst_error, figures[i].worst_error);
      f.adjoint |= figures[i].adjoint;
    }
  }
  return all;
}

nlohmann::json certify(const Library &library, const std::vector<KernelRequest> &kernels) {
  constexpr std::uint64_t seed = 1;
  nlohmann::json certificate = {{"seed", seed}, {"levels", nlohmann::json::array()}};
  for (const std::string &level : library.levels()) {
    nlohmann::json held = {{"level", level}};
    try {
      library.set_level(level);
    } catch (const Error &) {
      held["not_run"] = is_device(level) ? "no such device was found" : "this processor lacks some of its instructions";
      certificate["levels"].push_back(held);
      continue;
    }
    for (auto &kernel : kernels)
      for (auto &f : check_kernel(library, kernel, seed)) {
        held["passes"].push_back({{"kernel", kernel.name},
                                  {"pass", f.pass},
                                  {"exact_elements", f.exact_elements},
                                  {"real_elements", f.real_elements},
                                  {"worst_error", f.worst_error},
                                  {"worst_share_of_bound", f.worst_share},
                                  {"adjoint_identity", f.adjoint}});
        if (f.exact_elements + f.real_elements == 0) held["passes"].back()["not_run"] = "no elements, or too many products for the reference";
      }
    certificate["levels"].push_back(held);
  }
  return certificate;
}

}  // namespace convsmith
