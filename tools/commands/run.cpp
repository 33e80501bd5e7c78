#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <map>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/library.h"
#include "convsmith/npy.h"
#include "generators/stages.h"

namespace convsmith {
namespace {

// Tensors with an option of their own.
constexpr const char *named[] = {"x", "weight", "bias", "dy", "y"};

struct RunArguments {
  std::string problem, pass, out;
  std::map<std::string, std::string> files;  // by argument name
  std::vector<std::string> tensors, outputs, sizes;
};

std::pair<std::string, std::string> name_and_value(const std::string &option, const std::string &text, const char *form) {
  const size_t eq = text.find('=');
  if (eq == std::string::npos || eq == 0 || eq + 1 == text.size())
    throw Error(fmt::format("{}: expected {}, got \"{}\"", option, form, text));
  return {text.substr(0, eq), text.substr(eq + 1)};
}

// As the command line says it: "--x ", or "--tensor target=".
std::string option(const std::string &name) {
  const bool own = std::find(std::begin(named), std::end(named), name) != std::end(named);
  return own ? fmt::format("--{} ", name) : fmt::format("--tensor {}=", name);
}

// The type of each tensor that a pass reads or writes.
std::map<std::string, convsmith_type> types_of(const Problem &p, PassKind pass) {
  std::map<std::string, convsmith_type> types;
  for (auto &b : find_operator({p, pass, {}}).buffers({p, pass, {}})) {
    const auto &t = b.type;
    types[b.name] = t.is_bfloat() ? CONVSMITH_BF16
                    : t.is_float() ? (t.bits() == 16 ? CONVSMITH_F16 : CONVSMITH_F32)
                    : t.is_uint()  ? CONVSMITH_U8
                    : t.bits() == 8 ? CONVSMITH_S8 : CONVSMITH_I32;
  }
  return types;
}

// The extents that the problem leaves open: what --size says, else x's own, else what follows from an output of stride 1.
Shape given_sizes(const Problem &p, const std::map<std::string, Tensor> &given,
                 const std::vector<std::string> &said) {
  std::vector<std::string> names;
  for (const int size : open_sizes(p)) names.push_back(size_name(p, size));
  std::map<std::string, std::int64_t> known;
  for (auto &text : said) {
    const auto [name, number] = name_and_value("--size", text, "NAME=NUMBER");
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || end != number.data() + number.size() || value < 0)
      throw Error(fmt::format("--size: expected NAME=NUMBER, got \"{}\"", text));
    if (!std::count(names.begin(), names.end(), name))
      throw Error(fmt::format("--size {}: expected one of {}", text, names.empty() ? "none: no extent is open" : fmt::format("{}", fmt::join(names, ", "))));
    known[name] = value;
  }
  const auto shape = [&](const char *name) {
    const auto t = given.find(name);
    return t != given.end() && t->second.rank() == p.rank + 2 ? t->second.shape() : Shape();
  };
  const Shape x = shape("x");
  Shape y;
  for (const char *name : {"dy", "y", "target", "pre"})
    if (y.empty()) y = shape(name);
  Shape sizes;
  for (auto &name : names) {
    const int axis = name == "n" ? -1 : int(std::string_view("dhw").find(name.back())) - (3 - p.rank);
    if (known.count(name)) sizes.push_back(known[name]);
    else if (!x.empty()) sizes.push_back(x[size_t(axis < 0 ? 0 : axis + 2)]);
    else if (!y.empty() && axis < 0) sizes.push_back(y[0]);
    else if (!y.empty() && p.stride[size_t(axis)] == 1) {
      const size_t a = size_t(axis);
      const std::int64_t change = p.window(axis) - 1 - p.pad_lo[a] - p.pad_hi[a];
      sizes.push_back(y[a + 2] + (p.op == Op::transposed ? -change - p.out_pad[a] : change));
    } else throw Error(fmt::format("--size: expected {}=NUMBER, as no tensor that the pass reads tells it", name));
  }
  return sizes;
}

void run(RunArguments a, const Settings &s) {
  KernelRequest r{kernel_name, {}, Problem::parse(a.problem), "", {}};
  const PassKind kind = parse_pass(a.pass);
  r.passes = parse_passes(a.pass, r.problem);
  for (auto &t : a.tensors) {
    const auto [name, file] = name_and_value("--tensor", t, "NAME=FILE");
    if (!a.files[name].empty())
      throw Error(fmt::format("--tensor {}: {} is given already, as {}", t, name, a.files[name]));
    a.files[name] = file;
  }
  std::map<std::string, std::string> outputs;
  for (auto &t : a.outputs) {
    const auto [name, file] = name_and_value("--output", t, "NAME=FILE");
    if (!outputs.insert({name, file}).second)
      throw Error(fmt::format("--output {}: {} is given already, as {}", t, name, outputs[name]));
    require_writable("--output", file);
  }
  require_writable("--out", a.out);

  // Read before anything is compiled: a bad file is said at once.
  std::map<std::string, Tensor> given;
  auto types = types_of(r.problem, kind);
  if (types.count("weight")) types["weight"] = r.problem.type == Type::u8s8 ? CONVSMITH_S8 : CONVSMITH_F32;  // before packing
  for (auto &[name, file] : a.files)
    if (!file.empty())
      given.emplace(name, read_npy(file, types.count(name) ? types[name] : CONVSMITH_F32)), require_finite(given.at(name), file);

  const Shape sizes = given_sizes(r.problem, given, a.sizes);
  const Library library = load_kernel(r, s);
  const Pass pass = library.pass(kernel_name, pass_name(kind));
  const int inputs = pass.arguments() - pass.outputs();
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (int i = 0; i < pass.arguments(); i++) {
    const std::string name = pass.argument_name(i);
    const Tensor t(pass.describe(name, sizes));
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
      else t.copy_from(with_leading_ones(from->second, t.shape(), source).as(t.type()));
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
      write_npy(file->second, t.type() == CONVSMITH_BF16 ? t.as(CONVSMITH_F32) : t), o["file"] = file->second;
    if (t.elements() == 1) o["value"] = t.as(CONVSMITH_F32).at(Shape(size_t(t.rank()), 0));
    j["outputs"].push_back(o);
  }
  note_copies(j, library);
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
  sub->add_option("--tensor", a->tensors, "NAME=FILE: any other tensor that the pass reads")->allow_extra_args(false);
  sub->add_option("--size", a->sizes, "NAME=NUMBER: an extent that the problem leaves open, where no input tells it")->allow_extra_args(false);
  sub->add_option("--out", a->out, "the pass's (first) result (.npy)")->check(a_name());
  sub->add_option("--output", a->outputs, "NAME=FILE: a result by name")->allow_extra_args(false);
  add_settings(*sub, s);
  sub->callback([a, &s] { run(*a, s); });
}

}  // namespace convsmith
