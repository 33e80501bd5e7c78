#include "command.h"
#include "convsmith/error.h"
#include "convsmith/library.h"
#include "schedules/levels.h"
#include "tools/support/progress.h"
#include <filesystem>
#include <fmt/format.h>

namespace convsmith {

void add_settings(CLI::App &app, Settings &s) {
  app.add_flag("--json", s.json, "machine-readable results on standard output");
  app.add_flag("--quiet", s.quiet, "no progress bar and no prose");
  app.add_option("--target", s.target, "machine to make code for: host, a level (see `convsmith list targets`), or several, T,T…")
      ->capture_default_str();
  app.add_option("--threads", s.threads, "threads of the kernels; 0: one a processor")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("--cc", s.cc, "C compiler for the C layer")->capture_default_str();
}

Library load_kernel(const KernelRequest &request, const Settings &s) {
  EmitOptions o;
  o.name = "kernels", o.targets = s.target, o.cc = s.cc;
  const auto targets = parse_targets(s.target);
  ProgressBar bar("compiling", 1000, s.quiet || s.json);
  o.progress = [&](int done, int all, const std::string &what) { bar.update(std::int64_t(done) * 1000 / all, what); };
  const Library library = Library::open(cached_library({request}, o), o.name);
  bar.clear();
  library.set_level(level_name(targets.at(0)));
  library.set_threads(s.threads);
  return library;
}

void refuse_same_file(const std::string &option, const std::string &file, const std::string &other_option, const std::string &other_file) {
  std::error_code ignored;
  if (!file.empty() && std::filesystem::equivalent(file, other_file, ignored))
    throw Error(fmt::format("{} {}: expected another file than {} {}", option, file, other_option, other_file));
}

void require_finite(const Tensor &t, const std::string &source) {
  const std::int64_t at = t.first_not_finite();
  if (at >= 0) throw Error(fmt::format("{}: expected finite numbers, got a NaN or an infinity at element {}", source, at));
}

std::string matrix_text(const std::vector<double> &values, std::int64_t columns) {
  std::string text;
  for (size_t i = 0; i < values.size(); i++)
    text += fmt::format("{:9.4f}{}", values[i], std::int64_t(i + 1) % columns == 0 ? "\n" : "");
  return text;
}

}  // namespace convsmith
