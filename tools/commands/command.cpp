#include "command.h"
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <thread>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/library.h"
#include "schedules/levels.h"
#include "tools/support/progress.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

template<class T>
bool parse(const std::string &text, T &value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

bool is_special(const std::string &file) {  // a device or a pipe
  std::error_code ignored;
  return fs::exists(file, ignored) && !fs::is_regular_file(file, ignored);
}

}  // namespace

void add_build_settings(CLI::App &app, Settings &s) {
  app.add_flag("--quiet", s.quiet, "no progress bar and no prose");
  app.add_option("--target", s.target,
                 "machine to make code for: host, a level (see `convsmith list targets`), or several, T,T…")
      ->capture_default_str();
  app.add_option("--cc", s.cc, "C compiler for the C layer")
      ->check(a_name("a C compiler"))
      ->capture_default_str();
}

void add_settings(CLI::App &app, Settings &s) {
  app.add_flag("--json", s.json, "machine-readable results on standard output");
  app.add_option("--threads", s.threads, "threads of the kernels, at most 1024; 0: one a processor")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  add_build_settings(app, s);
}

std::string json_text(const nlohmann::json &j) {
  return j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void print_json(const nlohmann::json &j) { std::cout << json_text(j) << std::flush; }

CLI::Validator whole_number(std::uint64_t low, std::uint64_t high) {
  return CLI::Validator(
      [=](const std::string &text) {
        std::uint64_t value = 0;
        if (parse(text, value) && value >= low && value <= high) return std::string();
        return fmt::format("expected a whole number from {} to {}, got \"{}\"", low, high, text);
      },
      "");
}

CLI::Validator number_from(double low) {
  return CLI::Validator(
      [=](const std::string &text) {
        double value = 0;
        if (parse(text, value) && value >= low && std::isfinite(value)) return std::string();
        return fmt::format("expected a number of at least {}, got \"{}\"", low, text);
      },
      "");
}

CLI::Validator one_of(std::vector<std::string> words) {
  return CLI::Validator(
      [=](const std::string &text) {
        if (std::count(words.begin(), words.end(), text)) return std::string();
        return fmt::format("expected one of {}, got \"{}\"", fmt::join(words, ", "), text);
      },
      "");
}

CLI::Validator a_name(const std::string &of) {
  return CLI::Validator([of](const std::string &text) { return text.empty() ? fmt::format("expected {}, got \"\"", of) : ""; }, "");
}

bool is_spec(const std::string &what) {
  std::error_code ignored;
  return what.find('=') == std::string::npos || fs::is_regular_file(what, ignored);
}

std::vector<KernelRequest> requests_of(const std::string &what, const std::string &passes) {
  if (is_spec(what)) return read_spec(what);
  KernelRequest r{kernel_name, {}, Problem::parse(what), "", {}};
  r.passes = parse_passes(passes, r.problem);
  return {r};
}

Error none_selected(const std::string &source, const std::string &only, const std::string &passes) {
  return Error(fmt::format("{}: expected a kernel whose name holds \"{}\" with passes {}, got none", source, only, passes));
}

std::vector<KernelRequest> selected(std::vector<KernelRequest> kernels, const std::string &source, const std::string &only, const std::string &passes) {
  std::erase_if(kernels, [&](const KernelRequest &r) { return r.name.find(only) == std::string::npos; });
  for (KernelRequest &r : kernels) {
    if (r.problem.n < 1 || std::count(r.problem.in.begin(), r.problem.in.end(), run_time))
      throw Error(fmt::format("{}: kernel {}: expected known extents of at least 1, got \"{}\"", source, r.name, r.problem.str()));
    if (passes == "all") continue;
    const auto wanted = parse_passes(passes, r.problem);
    std::erase_if(r.passes, [&](PassKind p) { return !std::count(wanted.begin(), wanted.end(), p); });
  }
  std::erase_if(kernels, [](const KernelRequest &r) { return r.passes.empty(); });
  if (kernels.empty()) throw none_selected(source, only, passes);
  return kernels;
}

Library load_kernel(const KernelRequest &request, const Settings &s) {
  EmitOptions o;
  o.name = "kernels", o.targets = s.target, o.cc = s.cc;
  const auto targets = parse_targets(s.target);
  require_runs_here(targets[0]);
  ProgressBar bar("compiling", 1000, s.quiet || s.json);
  o.progress = [&](int done, int all, const std::string &what) { bar.update(std::int64_t(done) * 1000 / all, what); };
  const Library library = Library::open(cached_library({request}, o), o.name);
  bar.clear();
  if (targets.size() == 1) library.set_level(level_name(targets[0]));  // of several the library takes the best it can
  library.set_threads(s.threads);
  return library;
}

void note_copies(nlohmann::json &j, const Library &library) {
  if (!library.uses_device()) return;
  const convsmith_copies copies = library.copies();
  j["copied_bytes"] = {{"to_device", copies.to_device}, {"to_host", copies.to_host}};
}

std::vector<std::int64_t> numbers_of(const std::string &option, const std::string &list, std::int64_t most) {
  std::vector<std::int64_t> values;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string word = list.substr(at, comma - at);
    if (word.empty() || word.size() > 6 || word.find_first_not_of("0123456789") != std::string::npos || std::stol(word) < 1 || std::stol(word) > most)
      throw Error(fmt::format("{}: expected numbers from 1 to {}, separated by commas, got \"{}\"", option, most, list));
    values.push_back(std::stol(word)), at = comma + 1;
  }
  return values;
}

std::string default_thread_counts() {
  const unsigned processors = std::thread::hardware_concurrency();
  return processors < 2 ? "1" : fmt::format("1,{}", processors);
}

void ReportFiles::add_to(CLI::App &app) {
  app.add_option("--json", json, "file for the results; -: standard output, and no prose")->check(a_name());
  app.add_option("--html", html, "file for a page of the results that needs no other file")->check(a_name());
}

void ReportFiles::check(Settings &s, const std::map<std::string, std::string> &inputs) const {
  if (json == "-") s.json = true;
  else require_writable("--json", json);
  for (auto &[option, file] : inputs) {
    if (json != "-") refuse_same_file("--json", json, option, file);
    refuse_same_file("--html", html, option, file);
  }
  require_writable("--html", html);
  refuse_same_file("--json", json, "--html", html);
}

void ReportFiles::write(const nlohmann::json &report, std::string (*page)(const nlohmann::json &)) const {
  if (!html.empty()) write_file(html, page(report));
  if (json == "-") print_json(report);
  else if (!json.empty()) write_file(json, json_text(report));
}

void require_writable(const std::string &option, const std::string &file) {
  std::error_code ignored;
  if (file.empty()) return;
  if (fs::is_directory(file, ignored)) throw Error(fmt::format("{} {}: expected a file, got a folder", option, file));
  if (is_special(file)) return;
  const fs::path target = fs::exists(file, ignored) ? fs::canonical(file, ignored) : fs::path(file);
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  if (!fs::is_directory(folder, ignored))
    throw Error(fmt::format("{} {}: expected a file in a folder, but {} is none", option, file, folder));
  if (access(folder.c_str(), W_OK) != 0)
    throw Error(fmt::format("{} {}: expected a folder that can be written, got {}: {}", option, file, folder,
                            std::generic_category().message(errno)));
}

void refuse_same_file(const std::string &option, const std::string &file, const std::string &other_option,
                      const std::string &other_file) {
  std::error_code ignored;
  if (file.empty() || other_file.empty() || is_special(file)) return;
  if (fs::weakly_canonical(fs::absolute(file), ignored) == fs::weakly_canonical(fs::absolute(other_file), ignored) ||
      fs::equivalent(file, other_file, ignored))
    throw Error(fmt::format("{} {}: expected another file than {} {}", option, file, other_option, other_file));
}

void require_finite(const Tensor &t, const std::string &source) {
  const std::int64_t at = t.first_not_finite();
  if (at >= 0)
    throw Error(fmt::format("{}: expected finite numbers, got a NaN or an infinity at element {}", source, at));
}

std::string shape_of(const Tensor &t) { return t.rank() ? shape_text(t.shape()) : "a single number"; }

Tensor with_leading_ones(const Tensor &t, const Shape &shape, const std::string &source) {
  Shape own = t.shape();
  if (own.size() < shape.size()) own.insert(own.begin(), shape.size() - own.size(), 1);
  if (own == shape) return t.reshaped(shape);
  throw Error(fmt::format("{}: expected {}, got {}", source, shape_text(shape), shape_of(t)));
}

std::string matrix_text(const std::vector<double> &values, std::int64_t columns) {
  std::string text;
  for (size_t i = 0; i < values.size(); i++)
    text += fmt::format("{:9.4f}{}", values[i], std::int64_t(i + 1) % columns == 0 ? "\n" : "");
  return text;
}

}  // namespace convsmith
