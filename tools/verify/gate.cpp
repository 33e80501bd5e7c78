#include "gate.h"
#include "convsmith/error.h"
#include "schedules/levels.h"
#include "tools/support/temporary_folder.h"
#include <algorithm>
#include <fmt/format.h>

namespace convsmith {

std::vector<GateFigures> gate(const Problem &p, const GateOptions &o) {
  const std::vector<PassKind> passes = o.passes.empty() ? passes_of(p) : o.passes;
  std::vector<std::string> names;
  for (PassKind pass : passes) names.push_back(pass_name(pass));
  const Halide::Target target = parse_targets(o.target).at(0);
  const std::string level = level_name(target);
  require_runs_here(target);

  // The i-th setting of every pass goes into the i-th kernel.
  std::vector<KernelRequest> kernels;
  if (o.every_schedule) {
    auto settings = candidates(p.str(), names, level, o.extremes);
    for (auto &list : settings) {
      std::vector<Candidate> kept;
      for (size_t c = 0; c < list.size(); c++)
        if (c == 0 || list[c].schedule != list[c - 1].schedule || (c + o.seed) % size_t(o.every) == 0) kept.push_back(list[c]);
      list = kept;
    }
    for (size_t i = 0; i < settings.size(); i++)
      for (size_t c = 0; c < settings[i].size(); c++) {
        if (kernels.size() <= c) kernels.push_back({fmt::format("v{}", c), {}, p, "", {}});
        kernels[c].passes.push_back(passes[i]);
        kernels[c].schedule[passes[i]] = settings[i][c];
      }
    // A pass that reads packed weights is tried with its packer.
    for (auto &k : kernels)
      for (auto [reader, packer] : {std::pair(PassKind::forward, PassKind::pack_weight),
                                    std::pair(PassKind::input_gradient, PassKind::pack_weight_for_input_gradient)})
        if (std::count(k.passes.begin(), k.passes.end(), reader) && !std::count(k.passes.begin(), k.passes.end(), packer))
          k.passes.push_back(packer);
  } else {
    kernels.push_back({"v0", passes, p, "", {}});
  }

  const TemporaryFolder folder;

  EmitOptions e;
  e.name = "gate", e.folder = folder.path(), e.targets = level, e.cc = o.cc, e.verify = false, e.one_child = o.every_schedule, e.assertions = o.assertions;
  if (o.every_schedule) e.layer_level = "-O0";  // it is called but a few times
  e.limits.seconds = o.compile_seconds;
  const nlohmann::json manifest = emit_library(kernels, e);
  link_shared(o.cc, folder / "libgate.a", folder / "gate.so");
  const Library library = Library::open(folder / "gate.so", "gate");
  library.set_level(level);

  std::vector<GateFigures> all;
  for (size_t k = 0; k < kernels.size(); k++) {
    std::vector<PassFigures> figures;
    auto setting = [&](const std::string &pass) {
      for (auto &x : manifest["kernels"][k]["passes"])
        if (x["pass"] == pass) return std::pair<std::string, std::string>(x["levels"][0]["schedule"], x["levels"][0]["knobs"]);
      return std::pair<std::string, std::string>();
    };
    try {
      figures = check_kernel(library, kernels[k], o.seed, o.most_products);
    } catch (const CheckFailed &failure) {
      const std::string what = failure.what();
      const auto [schedule, knobs] = setting(what.substr(0, what.find(' ')));
      throw CheckFailed(fmt::format("{}; schedule {} {}", what, schedule, knobs));
    }
    for (auto &f : figures) {
      const auto [schedule, knobs] = setting(f.pass);
      all.push_back({schedule, knobs, f});
    }
  }
  return all;
}

}  // namespace convsmith
