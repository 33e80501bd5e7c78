#include <fmt/format.h>
#include <algorithm>
#include <iostream>
#include <map>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/library.h"
#include "convsmith/npy.h"

namespace convsmith {
namespace {

// Tensors with an option of their own.
constexpr const char *named[] = {"x", "weight", "bias", "dy", "y"};

struct RunArguments {
  std::string problem, pass, out;
  std::map<std::string, std::string> files;  // by argument name
  std::vector<std::string> tensors, outputs;
};

std::pair<std::string, std::string> name_and_file(const std::string &option, const std::string &text) {
  const size_t eq = text.find('=');
  if (eq == std::string::npos || eq == 0 || eq + 1 == text.size())
    throw Error(fmt::format("{}: expected NAME=FILE, got \"{}\"", option, text));
  return {text.substr(0, eq), text.substr(eq + 1)};
}

// As the command line says it: "--x ", or "--tensor target=".
std::string option(const std::string &name) {
  const bool own = std::find(std::begin(named), std::end(named), name) != std::end(named);
  return own ? fmt::format("--{} ", name) : fmt::format("--tensor {}=", name);
}

void run(RunArguments a, const Settings &s) {
  KernelRequest r{kernel_name, {}, Problem::parse(a.problem), "", {}};
  const PassKind kind = parse_pass(a.pass);
  r.passes = parse_passes(a.pass, r.problem);
  for (auto &t : a.tensors) {
    const auto [name, file] = name_and_file("--tensor", t);
    if (!a.files[name].empty())
      throw Error(fmt::format("--tensor {}: {} is given already, as {}", t, name, a.files[name]));
    a.files[name] = file;
  }
  std::map<std::string, std::string> outputs;
  for (auto &t : a.outputs) {
    const auto [name, file] = name_and_file("--output", t);
    if (!outputs.insert({name, file}).second)
      throw Error(fmt::format("--output {}: {} is given already, as {}", t, name, outputs[name]));
    require_writable("--output", file);
  }
  require_writable("--out", a.out);

  // Read before anything is compiled: a bad file is said at once.
  std::map<std::string, Tensor> given;
  for (auto &[name, file] : a.files)
    if (!file.empty()) given.emplace(name, read_npy(file)), require_finite(given.at(name), file);

  const Library library = load_kernel(r, s);
  const Pass pass = library.pass(kernel_name, pass_name(kind));
  const int inputs = pass.arguments() - pass.outputs();
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (int i = 0; i < pass.arguments(); i++) {
    const std::string name = pass.argument_name(i);
    Tensor t = pass.make(name);
    if (i < inputs) {
      const auto from = given.find(name);
      if (from == given.end())
        throw Error(fmt::format("pass {} reads {}: expected {}FILE, got none", a.pass, name, option(name)));
      const std::string source = option(name) + a.files[name];
      // Weights come in the order of files, whatever order the pass reads.
      const auto packer = name == "weight" ? library.find(kernel_name, kind == PassKind::input_gradient
                                                                           ? "pack_weight_for_input_gradient"
                                                                           : "pack_weight")
                                           : std::nullopt;
      if (packer && packer->name() != pass.name())
        (*packer)({{"from", with_leading_ones(from->second, r.problem.weight_shape(), source)}, {"weight", t}});
      else t.copy_from(with_leading_ones(from->second, t.shape(), source));
    }
    tensors.push_back({name, t});
  }
  for (auto &[name, t] : given)
    if (std::none_of(tensors.begin(), tensors.begin() + inputs, [&, &n = name](auto &x) { return x.first == n; }))
      throw Error(fmt::format("{}{}: pass {} does not read it", option(name), a.files[name], a.pass));
  for (auto &[name, file] : outputs)
    if (std::none_of(tensors.begin() + inputs, tensors.end(), [&, &n = name](auto &x) { return x.first == n; }))
      throw Error(fmt::format("--output {}={}: pass {} does not write it", name, file, a.pass));
  const std::string &first = tensors[size_t(inputs)].first;
  if (!a.out.empty() && !outputs.insert({first, a.out}).second)
    throw Error(fmt::format("--output {}={}: expected it once, got --out {} too", first, outputs[first], a.out));
  for (auto one = outputs.begin(); one != outputs.end(); ++one)
    for (auto other = outputs.begin(); other != one; ++other)
      refuse_same_file("--output " + one->first, one->second, "--output " + other->first, other->second);
  pass.run(tensors);
  nlohmann::json j = {
      {"problem", r.problem.str()}, {"pass", a.pass}, {"level", library.level()}, {"outputs", nlohmann::json::array()}};
  for (int i = inputs; i < pass.arguments(); i++) {
    const auto &[name, t] = tensors[size_t(i)];
    nlohmann::json o = {{"name", name}, {"shape", t.shape()}};
    if (const auto file = outputs.find(name); file != outputs.end())
      write_npy(file->second, t), o["file"] = file->second;
    if (t.elements() == 1) o["value"] = t.at(Shape(size_t(t.rank()), 0));
    j["outputs"].push_back(o);
  }
  if (s.json) print_json(j);
  else if (!s.quiet)
    for (auto &o : j["outputs"])
      std::cout << fmt::format("{} {}{}{}\n", o["name"].get<std::string>(), shape_text(o["shape"].get<Shape>()),
                               o.contains("value") ? fmt::format(" = {}", o["value"].get<double>()) : "",
                               o.contains("file") ? " -> " + o["file"].get<std::string>() : "");
}

}  // namespace

void add_run(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("run", "emit (or find in the cache), load and run one pass on .npy tensors");
  auto a = std::make_shared<RunArguments>();
  sub->add_option("PROBLEM", a->problem, "problem text")->required();
  sub->add_option("--pass", a->pass, "pass to run")->required();
  for (const char *name : named)
    sub->add_option(fmt::format("--{}", name), a->files[name], fmt::format("{} (.npy)", name));
  sub->add_option("--tensor", a->tensors, "NAME=FILE: any other tensor that the pass reads");
  sub->add_option("--out", a->out, "the pass's (first) result (.npy)");
  sub->add_option("--output", a->outputs, "NAME=FILE: a result by name");
  add_settings(*sub, s);
  sub->callback([a, &s] { run(*a, s); });
}

}  // namespace convsmith
