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

/// Ones with columns 2 to 5 zero, and their horizontal differences.
std::vector<float> edge_x();
std::vector<float> edge_y();

}  // namespace convsmith
