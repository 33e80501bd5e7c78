#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include "command.h"
#include "convsmith/conv.h"
#include "convsmith/curvature.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/npy.h"
#include "convsmith/trainer.h"
#include "named_kernels.h"
#include "schedules/levels.h"
#include "tools/support/image.h"
#include "tools/support/interrupt.h"
#include "tools/support/plot.h"
#include "tools/support/progress.h"
#include "tools/verify/certificate.h"
#include "tools/verify/reference.h"

namespace convsmith {
namespace {

struct LearnArguments {
  std::string from, to, kernel, rate = "auto", loss = "sum_squared", optimizer = "sgd", init, out, plot, compare, pad,
                                stride = "1", border, op = "correlation";
  int steps = 100;
  std::uint64_t seed = 1;
  bool bias = false;
  double tolerance = 0, within = -1;
};

bool is_array(const std::string &path) { return path.ends_with(".npy"); }

// Rank of the kernel text, 0 where one value stands for every axis.
int kernel_rank(const std::string &text) {
  const int axes = int(std::count(text.begin(), text.end(), 'x')) + 1;
  return axes == 1 ? 0 : axes;
}

// [N, C, *spatial] of an array: the spatial axes alone, or all.
Tensor read_array(const std::string &path, int rank) {
  const Tensor t = read_npy(path);
  require_finite(t, path);
  if (t.elements() == 0)
    throw Error(fmt::format("{}: expected at least one element, got {}", path, shape_text(t.shape())));
  Shape s = t.shape();
  if (t.rank() == rank) s.insert(s.begin(), {1, 1});
  else if (t.rank() != rank + 2)
    throw Error(fmt::format("{}: expected {} axes (one sample of one channel) or {} (N, C and those), got {}", path,
                            rank, rank + 2, shape_of(t)));
  return t.reshaped(s);
}

// The problem that takes `from` to `to`: padding that keeps the size, or none, as the extents say.
Problem problem_of(const LearnArguments &a, const Shape &from, const Shape &to, int rank, bool pictures) {
  if (from[0] != to[0])
    throw Error(fmt::format("--to {}: expected {} {} as in --from, got {}", a.to, from[0], pictures ? "channels" : "samples", to[0]));
  std::string in;
  for (int i = 0; i < rank; i++) in += fmt::format("{}{}", i ? "x" : "", from[size_t(2 + i)]);
  const std::string common = fmt::format("op={} n={} ic={} oc={} in={} kernel={} stride={} bias={}", a.op, from[0],
                                         from[1], to[1], in, a.kernel, a.stride, a.bias ? 1 : 0);
  const std::string border = a.border.empty() ? (pictures ? "replicate" : "zero") : a.border;
  std::vector<std::string> pads = {a.pad};
  if (a.pad.empty()) {
    std::string any = "?";
    for (int i = 1; i < rank; i++) any += "x?";
    const Problem k = Problem::parse(fmt::format("in={} kernel={}", any, a.kernel));
    std::string same;
    for (int i = 0; i < rank; i++)
      same += fmt::format("{}{}:{}", i ? "x" : "", (k.kernel[size_t(i)] - 1) / 2, k.kernel[size_t(i)] / 2);
    pads = {same};
    if (!pictures) pads.insert(pads.begin(), "0");
  }
  std::string got;
  for (auto &pad : pads) {
    Problem p;
    try {
      p = Problem::parse(fmt::format("{} pad={} border={}", common, pad, border));
    } catch (const Error &) {
      if (pads.size() > 1 && pad == "0") continue;  // larger than the input: only padding can make it fit
      throw;
    }
    if (p.output_shape() == to) return p;
    got += fmt::format("{}{} with pad={}", got.empty() ? "" : " or ", shape_text(p.output_shape()), pad);
  }
  throw Error(fmt::format("--to {}: expected {}, got {}", a.to, got, shape_text(to)));
}

// "sgd", "momentum" (its factor found with --lr auto, else 0.9) or "momentum:B".
double momentum_of(const std::string &optimizer) {
  if (optimizer == "sgd") return 0;
  if (optimizer == "momentum") return 0.9;
  double value = -1;
  if (optimizer.starts_with("momentum:")) {
    const char *end = optimizer.data() + optimizer.size();
    const auto [at, error] = std::from_chars(optimizer.data() + 9, end, value);
    if (error != std::errc() || at != end) value = -1;
  }
  if (!(value >= 0 && value < 1))
    throw Error(
        fmt::format("--optimizer: expected sgd, momentum or momentum:B with 0 <= B < 1, got \"{}\"", optimizer));
  return value;
}

// The known kernel in the middle of zeros, of the extents that were learnt.
std::vector<double> centred(const Tensor &kernel, std::int64_t kh, std::int64_t kw, const std::string &name) {
  const std::int64_t h = kernel.extent(2), w = kernel.extent(3);
  if (h > kh || w > kw) throw Error(fmt::format("--compare {}: expected at most {}x{}, got {}x{}", name, kh, kw, h, w));
  std::vector<double> v(size_t(kh * kw), 0);
  for (std::int64_t y = 0; y < h; y++)
    for (std::int64_t x = 0; x < w; x++)
      v[size_t((y + (kh - 1) / 2 - (h - 1) / 2) * kw + x + (kw - 1) / 2 - (w - 1) / 2)] = kernel.at({0, 0, y, x});
  return v;
}

std::string side_by_side(const std::vector<double> &learnt, const std::vector<double> &known, std::int64_t columns) {
  std::string text = fmt::format("{:<{}}   {}\n", "learnt", 9 * columns, "known");
  for (size_t row = 0; row * size_t(columns) < learnt.size(); row++) {
    for (const auto *list : {&learnt, &known}) {
      for (std::int64_t c = 0; c < columns; c++)
        text += fmt::format("{:9.4f}", (*list)[row * size_t(columns) + size_t(c)]);
      text += list == &learnt ? "   " : "\n";
    }
  }
  return text;
}

// Three decimals, or three digits where those would all be zero.
std::string loss_text(double loss) { return loss >= 0.01 ? fmt::format("{:.3f}", loss) : fmt::format("{:.3g}", loss); }

void learn(const LearnArguments &a, const Settings &s) {
  refuse_same_file("--out", a.out, "--from", a.from);
  refuse_same_file("--out", a.out, "--to", a.to);
  refuse_same_file("--out", a.out, "--compare", a.compare);
  refuse_same_file("--plot", a.plot, "--out", a.out);
  refuse_same_file("--plot", a.plot, "--from", a.from);
  refuse_same_file("--plot", a.plot, "--to", a.to);
  refuse_same_file("--plot", a.plot, "--init", a.init);
  refuse_same_file("--plot", a.plot, "--compare", a.compare);
  require_writable("--out", a.out);
  require_writable("--plot", a.plot);
  const bool pictures = !is_array(a.from);
  if (pictures == is_array(a.to))
    throw Error(fmt::format("--to {}: expected {} like --from", a.to, pictures ? "a picture" : "a .npy file"));
  int rank = kernel_rank(a.kernel);
  Tensor x, target;
  if (pictures) {
    if (rank == 0) rank = 2;
    if (rank != 2) throw Error(fmt::format("--kernel {}: expected K or KHxKW for pictures, got {} axes", a.kernel, rank));
    x = to_tensor(read_image(a.from)), target = to_tensor(read_image(a.to));
  } else {
    if (rank == 0) {
      const int axes = read_npy(a.from).rank();
      rank = std::clamp(axes <= 3 ? axes : axes - 2, 1, 3);
    }
    x = read_array(a.from, rank), target = read_array(a.to, rank);
  }
  const Problem p = problem_of(a, x.shape(), target.shape(), rank, pictures);
  TrainOptions o;
  o.steps = a.steps, o.loss = Loss::parse(a.loss), o.momentum = momentum_of(a.optimizer), o.tolerance = a.tolerance;
  Tensor known, init;
  if (!a.compare.empty()) known = named_kernel(a.compare);
  std::vector<double> known_values;
  if (known.defined()) {
    if (p.rank != 2 || p.ic != 1 || p.oc != 1) throw Error("--compare: expected a problem of one 2-D kernel");
    known_values = centred(known, p.kernel[0], p.kernel[1], a.compare);
  }
  if (!a.init.empty()) {
    init = read_npy(a.init);
    require_finite(init, a.init);
    init = with_leading_ones(init, p.weight_shape(), "--init " + a.init);
  }
  if (a.rate != "auto") {
    const char *end = a.rate.data() + a.rate.size();
    const auto [at, error] = std::from_chars(a.rate.data(), end, o.rate);
    if (error != std::errc() || at != end || !(o.rate > 0) || !std::isfinite(o.rate))
      throw Error(fmt::format("--lr: expected auto or a number above 0, got \"{}\"", a.rate));
  }

  // On a GPU train_step does all of a step, and the tensors stay there.
  const bool device = is_device(level_name(parse_targets(s.target)[0]));
  const std::string passes = p.bias ? "forward,weight_gradient,bias_gradient" : "forward,weight_gradient";
  KernelRequest r{kernel_name, parse_passes(passes + (device ? ",train_step" : ""), p), p, "", {}};
  const Library library = load_kernel(r, s);
  Conv layer(library, kernel_name);
  if (init.defined()) layer.set_weight(init);
  else layer.initialise(a.seed);

  nlohmann::json j = {{"problem", p.str()}};
  if (a.rate == "auto") {
    const Curvature c = curvature(layer, x, o.loss);
    if (a.optimizer == "momentum") o.momentum = c.heavy_ball_momentum();
    o.rate = o.momentum > 0 ? std::min(c.heavy_ball_rate(), c.largest_stable_rate(o.momentum) / 2) : c.best_rate();
    if (!(o.rate > 0) || !std::isfinite(o.rate))
      throw Error(fmt::format("--lr auto: expected an input whose loss has a finite curvature above 0, got {} for {}; give a rate", c.largest, a.from));
    j["curvature"] = {{"largest", c.largest}, {"smallest", c.smallest}};
  }
  j["rate"] = o.rate, j["momentum"] = o.momentum;

  ProgressBar bar("learning", a.steps, s.quiet || s.json);
  const TrainResult result = train(layer, x, target, o, [&](const Progress &at) {
    check_interrupt();
    bar.update(at.step, fmt::format("loss {:.6g}", at.loss));
    return true;
  });
  bar.clear();
  const Tensor y = layer.forward(x);
  const double final_loss = o.loss.value(y, target);

  const std::vector<double> learnt = dense<double>(layer.weight());
  if (!a.out.empty()) write_npy(a.out, layer.weight());
  if (!a.plot.empty())
    write_file(a.plot, loss_curve_svg(result.losses, fmt::format("learning {} from {}", a.kernel, a.from)));
  j["losses"] = result.losses, j["final_loss"] = final_loss, j["kernel"] = learnt, j["kernel_shape"] = p.weight_shape();
  if (p.bias) j["bias"] = dense<double>(layer.bias());
  double apart = 0;
  for (size_t i = 0; i < known_values.size(); i++) apart = std::max(apart, std::abs(learnt[i] - known_values[i]));
  if (known.defined()) j["known"] = known_values, j["largest_difference"] = apart;

  note_copies(j, library);
  if (s.json) {
    print_json(j);
  } else if (!s.quiet) {
    std::cout << fmt::format("{}\nlr {:.6g}{}, {}\n", p.str(), o.rate,
                             o.momentum > 0 ? fmt::format(", momentum {:.6g}", o.momentum) : "", o.loss.name());
    const size_t n = result.losses.size(), every = std::max<size_t>(1, n / 10);
    for (size_t i = 0; i < n; i++)
      if (n <= 10 ? true : (i + 1) % every == 0)
        std::cout << fmt::format("step {:>5}  loss {}\n", i + 1, loss_text(result.losses[i]));
    std::cout << fmt::format("after {} updates  loss {:.6g}\n", result.updates, final_loss);
    const std::int64_t columns = p.kernel[size_t(p.rank - 1)];
    if (known.defined())
      std::cout << side_by_side(learnt, known_values, columns) << fmt::format("largest difference {:.5f}\n", apart);
    else if (learnt.size() <= 256) std::cout << "kernel\n" << matrix_text(learnt, columns);
    if (p.bias) std::cout << "bias\n" << matrix_text(dense<double>(layer.bias()), p.oc);
  }
  if (a.within >= 0 && apart > a.within)
    throw CheckFailed(
        fmt::format("the learnt kernel: expected within {} of {}, got {:.5f}", a.within, a.compare, apart));
}

}  // namespace

void add_learn(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("learn", "learn one kernel from an input and a wanted output");
  auto a = std::make_shared<LearnArguments>();
  sub->add_option("--from", a->from, "input: .npy (the spatial axes, or N, C and those), or a picture")->required();
  sub->add_option("--to", a->to, "wanted output, of the same kind")->required();
  sub->add_option("--kernel", a->kernel, "extents, as 1x2, or 5 for every axis")->required();
  sub->add_option("--lr", a->rate, "learning rate, or auto: from the curvature of the loss")->capture_default_str();
  sub->add_option("--steps", a->steps, "updates")->check(whole_number(0, 100'000'000))->capture_default_str();
  sub->add_option("--loss", a->loss, "sum_squared or mean_squared")->capture_default_str();
  sub->add_option("--optimizer", a->optimizer,
                  "sgd, momentum (with --lr auto: the best factor, else 0.9) or momentum:B")
      ->capture_default_str();
  sub->add_option("--init", a->init, "first kernel (.npy; default: random)");
  sub->add_option("--seed", a->seed, "of the random first kernel")
      ->check(whole_number(0, UINT64_MAX))
      ->capture_default_str();
  sub->add_option("--tolerance", a->tolerance, "stop at a loss of at most this")
      ->check(number_from(0))
      ->capture_default_str();
  sub->add_flag("--bias", a->bias, "learn a bias a channel too");
  sub->add_option("--op", a->op, "correlation or convolution")
      ->check(one_of({"correlation", "convolution"}))
      ->capture_default_str();
  sub->add_option("--pad", a->pad, "P or LO:HI (default: none, or what keeps the size, as the extents say)");
  sub->add_option("--stride", a->stride, "stride")->capture_default_str();
  sub->add_option("--border", a->border, "zero, replicate, reflect or wrap (default: zero; replicate for pictures)");
  sub->add_option("--out", a->out, "the learnt kernel (.npy)")->check(a_name());
  sub->add_option("--plot", a->plot, "the loss curve (.svg)")->check(a_name());
  sub->add_option("--compare", a->compare,
                  "a known kernel to print beside the learnt one: a name as for apply, or .npy");
  sub->add_option("--within", a->within, "with --compare: fail where an element differs by more")
      ->check(number_from(0))
      ->needs("--compare");
  add_settings(*sub, s);
  sub->callback([a, &s] { learn(*a, s); });
}

}  // namespace convsmith
