#include "command.h"
#include "convsmith/error.h"
#include "convsmith/library.h"
#include "convsmith/npy.h"
#include <fmt/format.h>
#include <iostream>
#include <map>

namespace convsmith {
namespace {

struct RunArguments {
  std::string problem, pass, out;
  std::map<std::string, std::string> files;  // by argument name
  std::vector<std::string> tensors, outputs;
};

std::pair<std::string, std::string> name_and_file(const std::string &option, const std::string &text) {
  const size_t eq = text.find('=');
  if (eq == std::string::npos || eq == 0 || eq + 1 == text.size()) throw Error(fmt::format("{}: expected NAME=FILE, got \"{}\"", option, text));
  return {text.substr(0, eq), text.substr(eq + 1)};
}

void run(RunArguments a, const Settings &s) {
  KernelRequest r{kernel_name, {}, Problem::parse(a.problem), "", {}};
  const PassKind kind = parse_pass(a.pass);
  r.passes = parse_passes(a.pass, r.problem);
  for (auto &t : a.tensors) a.files.insert(name_and_file("--tensor", t));
  std::map<std::string, std::string> outputs;
  for (auto &t : a.outputs) outputs.insert(name_and_file("--output", t));

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
      if (from == given.end()) throw Error(fmt::format("pass {} reads {}: expected --{} FILE", a.pass, name, name == "target" || name == "rate" ? "tensor " + name + "=" : name));
      Tensor source = from->second;
      if (name == "weight" && source.shape() != t.shape()) throw Error(fmt::format("{}: expected {} for {}, got {}", a.files[name], shape_text(t.shape()), name, shape_text(source.shape())));
      if (source.shape() != t.shape()) {
        if (source.elements() != t.elements()) throw Error(fmt::format("{}: expected {} for {}, got {}", a.files[name], shape_text(t.shape()), name, shape_text(source.shape())));
        source = source.reshaped(t.shape());
      }
      t.copy_from(source);
    }
    tensors.push_back({name, t});
  }
  for (auto &[name, t] : given)
    if (std::none_of(tensors.begin(), tensors.begin() + inputs, [&, &n = name](auto &x) { return x.first == n; }))
      throw Error(fmt::format("--{}: pass {} does not read it", name, a.pass));
  for (auto &[name, file] : outputs)
    if (std::none_of(tensors.begin() + inputs, tensors.end(), [&, &n = name](auto &x) { return x.first == n; }))
      throw Error(fmt::format("--output {}={}: pass {} does not write it", name, file, a.pass));
  pass.run(tensors);
  if (!a.out.empty()) outputs[tensors[size_t(inputs)].first] = a.out;
  nlohmann::json j = {{"problem", r.problem.str()}, {"pass", a.pass}, {"level", library.level()}, {"outputs", nlohmann::json::array()}};
  for (int i = inputs; i < pass.arguments(); i++) {
    const auto &[name, t] = tensors[size_t(i)];
    nlohmann::json o = {{"name", name}, {"shape", t.shape()}};
    if (const auto file = outputs.find(name); file != outputs.end()) write_npy(file->second, t), o["file"] = file->second;
    if (t.elements() == 1) o["value"] = t.at(Shape(size_t(t.rank()), 0));
    j["outputs"].push_back(o);
  }
  if (s.json) std::cout << j.dump(2) << std::endl;
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
  for (const char *name : {"x", "weight", "bias", "dy", "y"}) sub->add_option(fmt::format("--{}", name), a->files[name], fmt::format("{} (.npy)", name));
  sub->add_option("--tensor", a->tensors, "NAME=FILE: any other tensor that the pass reads");
  sub->add_option("--out", a->out, "the pass's (first) result (.npy)");
  sub->add_option("--output", a->outputs, "NAME=FILE: a result by name");
  add_settings(*sub, s);
  sub->callback([a, &s] { run(*a, s); });
}

}  // namespace convsmith
