// The real command in a folder of its own, for its tests.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>
#include "convsmith/tensor.h"
#include "tools/support/process.h"

namespace convsmith {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

using Words = std::vector<std::string>;
using Text = testing::Matcher<const std::string &>;

/// Each `@` in an argument or a file name is the test's folder and a slash; in what the command writes, the folder is
/// given back as `@`. The cache is shared by all tests, so that a kernel is compiled once.
class CommandTest : public testing::Test {
 protected:
  CommandTest();
  ~CommandTest() override;

  std::string path(std::string text) const;
  ProcessResult run(const Words &arguments, double timeout_s = 120) const;
  /// Expects exit status 0 and nothing on standard error; gives standard output.
  std::string succeed(const Words &arguments) const;
  /// Expects this exit status, nothing on standard output, and on standard error one line "convsmith: MESSAGE".
  void fail(int status, const Words &arguments, const Text &message) const;

  void write(const std::string &file, std::string_view bytes) const;
  std::string read(const std::string &file) const;
  void write_array(const std::string &file, const Shape &shape, const std::vector<float> &values) const;
  std::vector<float> read_array(const std::string &file, const Shape &shape) const;
  /// Names in the folder, hidden ones too, sorted.
  std::vector<std::string> listing(const std::string &folder = "@") const;

  /// x.npy (6x8), y.npy (6x7), kernel.npy (1x1x1x2) and start.npy (1x2) of the worked example.
  void write_edge_example() const;

 private:
  std::string folder_;
};

/// With the worked example and a picture of 2x2, a.ppm, in the folder.
class CommandErrorTest : public CommandTest {
 protected:
  CommandErrorTest();
};

Words operator+(Words words, const Words &more);
/// `learn` from x.npy to y.npy, and `run` of the forward pass of x.npy and kernel.npy.
Words learn(const Words &more, const std::string &kernel = "1x2");
Words forward(const std::string &problem, const Words &more = {});
/// The problem of the worked example.
inline const std::string edge = "in=6x8 kernel=1x2";

/// Ones with columns 2 to 5 zero, and their horizontal differences.
std::vector<float> edge_x();
std::vector<float> edge_y();

}  // namespace convsmith
