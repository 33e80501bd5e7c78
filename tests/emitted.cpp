#include "emitted.h"
#include <gtest/gtest.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <random>
#include <sstream>
#include "convsmith/error.h"
#include "tools/support/process.h"
#include "tools/verify/reference.h"

namespace convsmith {

namespace fs = std::filesystem;

TestFolder::TestFolder() {
  std::string pattern = (fs::temp_directory_path() / "convsmith-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw Error(pattern + ": expected a folder that can be written");
  path_ = pattern;
}

TestFolder::~TestFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

KernelRequest kernel(const std::string &name, const std::string &passes, const std::string &problem) {
  const Problem p = Problem::parse(problem);
  return {name, parse_passes(passes, p), p, "", {}};
}

std::vector<KernelRequest> demo_kernels() {
  return {kernel("edge", "forward,train_step", "in=6x8 kernel=1x2"),
          kernel("odd", "all", "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1 activation=relu")};
}

Emitted emitted(const std::string &name, const std::vector<KernelRequest> &kernels, const std::string &targets) {
  EmitOptions o;
  o.name = name, o.targets = targets;
  return {name, fs::path(cached_library(kernels, o)).parent_path()};
}

Emitted demo() { return emitted("demo", demo_kernels(), "all"); }

Call::Call(const Library &library, const std::string &kernel, const std::string &name) : pass(nullptr) {
  for (int i = 0; i < library.table().pass_count; i++) {
    const convsmith_pass &p = library.table().passes[i];
    if (p.kernel == kernel && p.pass == name) pass = &p;
  }
  if (!pass) throw Error("no pass " + name + " of " + kernel);
  descriptors.resize(static_cast<std::size_t>(pass->arguments));
  pass->init(descriptors.data(), nullptr);
  for (int i = 0; i < pass->arguments; i++) {
    tensors.emplace_back(descriptors[i]);
    if (writes(i)) tensors.back().fill(77);
    else fill_integers(tensors.back(), std::uint64_t(i) + 1);
    descriptors[i] = tensors.back().c();
  }
}

std::size_t Call::index_of(const std::string &argument) const {
  for (int i = 0; i < pass->arguments; i++)
    if (pass->argument_names[i] == argument) return static_cast<std::size_t>(i);
  throw Error("no argument " + argument);
}

convsmith_status Call::run() {
  error = {};
  return pass->run(descriptors.data(), &error);
}

std::vector<float> Call::results() const {
  std::vector<float> all;
  for (int i = pass->arguments - pass->outputs; i < pass->arguments; i++) {
    const std::vector<float> one = dense<float>(tensors[i]);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

namespace {

constexpr std::ptrdiff_t guard = 61;
constexpr float mark = 12345;

}  // namespace

Guards::Guards(Call &call) {
  for (std::size_t i = 0; i < call.tensors.size(); i++) {
    const float *data = call.tensors[i].data<float>();
    memory_.emplace_back(static_cast<std::size_t>(call.tensors[i].elements() + 2 * guard), mark);
    std::copy(data, data + call.tensors[i].elements(), memory_[i].begin() + guard);
    call.descriptors[i].data = memory_[i].data() + guard;
  }
}

bool Guards::intact() const {
  const auto marked = [](float value) { return value == mark; };
  return std::all_of(memory_.begin(), memory_.end(), [&](const std::vector<float> &m) {
    return std::all_of(m.begin(), m.begin() + guard, marked) && std::all_of(m.end() - guard, m.end(), marked);
  });
}

void fill_integers(const Tensor &tensor, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  float *data = tensor.data<float>();
  for (std::int64_t i = 0; i < tensor.elements(); i++) data[i] = static_cast<float>(random() % 11) - 5;
}

std::string output_of(const std::vector<std::string> &command) {
  ProcessOptions options;
  options.timeout_s = 120;
  const ProcessResult r = run_process(command, options);
  std::string line;
  for (const std::string &word : command) line += word + " ";
  EXPECT_EQ(r.exit_code, 0) << line << "\n" << r.err << r.out;
  return r.out;
}

std::vector<std::string> lines_of(const std::string &text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool has_command(const std::string &name) {
  std::istringstream path(std::getenv("PATH") ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(path, folder, ':');)
    if (access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  return false;
}

std::string consumer_source(const std::string &file) { return std::string(CONVSMITH_CONSUMERS) + "/" + file; }

const std::vector<std::string> c_library = {"-lm", "-lpthread", "-ldl"};

}  // namespace convsmith
