#include <fmt/format.h>
#include <filesystem>
#include <iostream>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/npy.h"
#include "tools/support/progress.h"

namespace convsmith {
namespace {

struct EmitArguments {
  std::string what, folder, name, passes = "all", tune_for, records;
  std::vector<std::string> weights;
  bool no_verify = false;
};

void emit(const EmitArguments &a, const Settings &s) {
  if (is_spec(a.what) && a.passes != "all") throw Error(fmt::format("--passes {}: {} names the passes of its kernels: expected a problem", a.passes, a.what));
  std::vector<KernelRequest> kernels = requests_of(a.what, a.passes);
  for (const std::string &w : a.weights) {
    const size_t eq = w.find('=');
    KernelRequest *kernel = nullptr;
    for (auto &k : kernels)
      if (k.name == w.substr(0, eq)) kernel = &k;
    if (eq == std::string::npos || eq + 1 == w.size() || !kernel)
      throw Error(fmt::format("--weights: expected KERNEL=FILE with a kernel of this library, got \"{}\"", w));
    if (!kernel->weight.empty())
      throw Error(fmt::format("--weights {}: kernel {} has the weights {} already", w, kernel->name, kernel->weight));
    kernel->weight = w.substr(eq + 1);
    const Tensor weight = read_npy(kernel->weight);
    require_finite(weight, kernel->weight);
    if (weight.shape() != kernel->problem.weight_shape())
      throw Error(fmt::format("--weights {}: expected {}, got {}", w, shape_text(kernel->problem.weight_shape()),
                              shape_of(weight)));
    // Learnt weights are applied, not trained.
    std::erase_if(kernel->passes, [](PassKind p) {
      return p != PassKind::forward && p != PassKind::input_gradient && p != PassKind::activation_gradient;
    });
    if (kernel->passes.empty())
      throw Error(fmt::format("--weights {}: the kernel has no pass that takes constant weights", w));
  }
  EmitOptions o;
  o.name = a.name.empty() ? std::filesystem::path(a.what).stem().string() : a.name;
  if (a.name.empty() && !is_spec(a.what)) o.name = "kernels";
  for (const std::string &name : emitted_files(o.name)) {
    const std::string file = (std::filesystem::path(a.folder) / name).string();
    if (is_spec(a.what)) refuse_same_file("--output", file, "the spec", a.what);
    for (auto &k : kernels) refuse_same_file("--output", file, "--weights", k.weight);
  }
  o.folder = a.folder, o.targets = s.target, o.cc = s.cc, o.tune_for = a.tune_for, o.records = a.records,
  o.verify = !a.no_verify;
  ProgressBar bar("emitting", 1000, s.quiet || s.json);
  o.progress = [&](int done, int all, const std::string &what) { bar.update(std::int64_t(done) * 1000 / all, what); };
  const nlohmann::json m = emit_library(kernels, o);
  bar.clear();
  if (s.json) {
    print_json(m);
    return;
  }
  if (s.quiet) return;
  std::cout << fmt::format("{}/lib{}.a: {} KiB, levels", o.folder, o.name,
                           (m["archive_bytes"].get<std::int64_t>() + 1023) / 1024);
  for (auto &level : m["levels"]) std::cout << " " << level.get<std::string>();
  std::cout << "\n";
  for (auto &k : m["kernels"])
    for (auto &p : k["passes"]) {
      const auto &l = p["levels"][0];
      std::cout << fmt::format("  {:<44} {:>7} bytes  {} {}\n", p["function"].get<std::string>(),
                               l["object_bytes"].get<int>(), l["schedule"].get<std::string>(),
                               l["knobs"].get<std::string>());
    }
  if (!m["certificate"].is_null())
    for (auto &l : m["certificate"]["levels"]) {
      if (l.contains("not_run")) {
        std::cout << fmt::format("  certificate at {}: not run, {}\n", l["level"].get<std::string>(),
                                 l["not_run"].get<std::string>());
        continue;
      }
      std::int64_t exact = 0, real = 0;
      double worst = 0;
      for (auto &p : l["passes"])
        exact += p["exact_elements"].get<std::int64_t>(), real += p["real_elements"].get<std::int64_t>(),
            worst = std::max(worst, p["worst_share_of_bound"].get<double>());
      std::cout << fmt::format(
          "  certificate at {}: {} elements exact on integers, {} within {:.0f} % of their error bound\n",
          l["level"].get<std::string>(), exact, real, 100 * worst);
      for (auto &p : l["passes"])
        if (p.contains("not_run"))
          std::cout << fmt::format("  not held: {} {}: {}\n", p["kernel"].get<std::string>(), p["pass"].get<std::string>(), p["not_run"].get<std::string>());
    }
}

}  // namespace

void add_emit(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("emit", "make a static library, its C header and its manifest");
  auto a = std::make_shared<EmitArguments>();
  sub->add_option("PROBLEM-or-SPEC", a->what, "problem text, or a file of lines NAME : PASSES : PROBLEM")->required();
  sub->add_option("-o,--output", a->folder, "folder for libLIB.a, LIB.h, LIB.c and LIB.json")->required()->check(a_name());
  sub->add_option("--name", a->name, "LIB: the library's name (default: the spec file's)");
  sub->add_option("--passes", a->passes, "of a problem: names separated by commas, or all")->capture_default_str();
  sub->add_option("--weights", a->weights, "KERNEL=FILE: weights (.npy) that become constants in the code")->allow_extra_args(false);
  sub->add_option("--tune-for", a->tune_for, "CPU whose records to use (default: this one where the code is for it)");
  sub->add_option("--records", a->records, "folder of *.rec files to use instead of the built-in records");
  sub->add_flag(
      "--verify,!--no-verify", [a](std::int64_t n) { a->no_verify = n < 0; },
      "hold the library against the reference (default)");
  add_settings(*sub, s);
  sub->callback([a, &s] { emit(*a, s); });
}

}  // namespace convsmith
