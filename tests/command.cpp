#include "command.h"
#include <algorithm>
#include <cstdlib>
#include "convsmith/file.h"
#include "convsmith/npy.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

std::string replaced(std::string text, const std::string &from, const std::string &to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

}  // namespace

CommandTest::CommandTest() {
  folder_ = (fs::temp_directory_path() / "convsmith-command-XXXXXX").string();
  if (!mkdtemp(folder_.data())) std::abort();
  setenv("CONVSMITH_CACHE", CONVSMITH_TEST_CACHE, 1);
  setenv("CONVSMITH_CACHE_LIMIT", "200M", 1);
}

CommandTest::~CommandTest() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string CommandTest::path(std::string text) const { return replaced(std::move(text), "@", folder_ + "/"); }

ProcessResult CommandTest::run(const Words &arguments, double timeout_s) const {
  Words argv = {CONVSMITH_COMMAND};
  for (auto &a : arguments) argv.push_back(path(a));
  ProcessOptions options;
  options.timeout_s = timeout_s;
  ProcessResult r = run_process(argv, options);
  r.out = replaced(r.out, folder_ + "/", "@"), r.err = replaced(r.err, folder_ + "/", "@");
  return r;
}

std::string CommandTest::succeed(const Words &arguments) const {
  const ProcessResult r = run(arguments);
  EXPECT_EQ(r.exit_code, 0) << testing::PrintToString(arguments) << "\n" << r.err;
  EXPECT_EQ(r.err, "") << testing::PrintToString(arguments);
  return r.out;
}

void CommandTest::fail(int status, const Words &arguments, const Text &message) const {
  const ProcessResult r = run(arguments);
  SCOPED_TRACE(testing::PrintToString(arguments));
  EXPECT_EQ(r.exit_code, status) << "signal " << r.signal << ", timed out " << r.timed_out;
  EXPECT_EQ(r.out, "");
  ASSERT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  ASSERT_THAT(r.err, testing::AllOf(testing::StartsWith("convsmith: "), testing::EndsWith("\n")));
  EXPECT_THAT(r.err.substr(11, r.err.size() - 12), message);
}

void CommandTest::write(const std::string &file, std::string_view bytes) const { write_file(path(file), bytes); }

std::string CommandTest::read(const std::string &file) const { return read_file(path(file)); }

void CommandTest::write_array(const std::string &file, const Shape &shape, const std::vector<float> &values) const {
  const Tensor t(shape);
  ASSERT_EQ(t.elements(), std::int64_t(values.size()));
  std::copy(values.begin(), values.end(), t.data<float>());
  write_npy(path(file), t);
}

std::vector<float> CommandTest::read_array(const std::string &file, const Shape &shape) const {
  const Tensor t = read_npy(path(file));
  EXPECT_EQ(t.shape(), shape) << file;
  return {t.data<float>(), t.data<float>() + t.elements()};
}

std::vector<std::string> CommandTest::listing(const std::string &folder) const {
  std::vector<std::string> names;
  for (auto &entry : fs::directory_iterator(path(folder))) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void CommandTest::write_edge_example() const {
  write_array("@x.npy", {6, 8}, edge_x());
  write_array("@y.npy", {6, 7}, edge_y());
  write_array("@kernel.npy", {1, 1, 1, 2}, {1, -1});
  write_array("@start.npy", {1, 2}, {-0.58187f, 0.03947f});
}

CommandErrorTest::CommandErrorTest() {
  write_edge_example();
  write("@a.ppm", "P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11 12\n");
}

Words operator+(Words words, const Words &more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

Words learn(const Words &more, const std::string &kernel) {
  return Words{"learn", "--from", "@x.npy", "--to", "@y.npy", "--kernel", kernel} + more;
}

Words forward(const std::string &problem, const Words &more) {
  return Words{"run", problem, "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy"} + more;
}

std::vector<float> edge_x() {
  std::vector<float> x;
  for (int i = 0; i < 48; i++) x.push_back(i % 8 < 2 || i % 8 > 5 ? 1 : 0);
  return x;
}

std::vector<float> edge_y() {
  std::vector<float> y;
  for (int row = 0; row < 6; row++)
    for (float v : {0, 1, 0, 0, 0, -1, 0}) y.push_back(v);
  return y;
}

}  // namespace convsmith
