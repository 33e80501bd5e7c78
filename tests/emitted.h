// Emitted libraries for tests, calls of their passes through plain descriptors, and programs built on them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>
#include "convsmith/library.h"
#include "tools/emit/library.h"

namespace convsmith {

/// A folder of a test's own, gone with it.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder &) = delete;
  TestFolder &operator=(const TestFolder &) = delete;
  std::string operator/(const std::string &name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

KernelRequest kernel(const std::string &name, const std::string &passes, const std::string &problem);

/// Two kernels, an edge of 1x2 taps and a layer of odd extents with every pass, at every level.
std::vector<KernelRequest> demo_kernels();

/// What was emitted, as four files and a shared object. Kept in the cache, as each test has a process of its own.
struct Emitted {
  std::string name;
  std::filesystem::path folder;
  std::string file(const std::string &suffix) const { return (folder / (name + suffix)).string(); }
  std::string archive() const { return (folder / ("lib" + name + ".a")).string(); }
  Library open() const { return Library::open(file(".so"), name); }
};
Emitted emitted(const std::string &name, const std::vector<KernelRequest> &kernels, const std::string &targets);
Emitted demo();

/// One pass's arguments, over dense tensors of small integers; those that it writes hold 77 everywhere.
class Call {
 public:
  Call(const Library &library, const std::string &kernel, const std::string &pass);
  convsmith_tensor &operator[](const std::string &argument) { return descriptors[index_of(argument)]; }
  Tensor &tensor(const std::string &argument) { return tensors[index_of(argument)]; }
  const Tensor &result() const { return tensors.back(); }
  bool writes(int argument) const { return argument >= pass->arguments - pass->outputs; }
  convsmith_status run();
  /// The elements of everything that it writes.
  std::vector<float> results() const;

  const convsmith_pass *pass;
  std::vector<Tensor> tensors;
  std::vector<convsmith_tensor> descriptors;
  convsmith_error error{};

 private:
  std::size_t index_of(const std::string &argument) const;
};

/// Moves a call's tensors to memory with marks on both sides, aligned to their elements only.
class Guards {
 public:
  explicit Guards(Call &call);
  bool intact() const;

 private:
  std::vector<std::vector<float>> memory_;
};

/// Integers from -5 to 5 in the order of memory.
void fill_integers(const Tensor &tensor, std::uint64_t seed);

/// Standard output of a command that succeeds; a failure of the test, with what it wrote, where it does not.
std::string output_of(const std::vector<std::string> &command);
std::vector<std::string> lines_of(const std::string &text);
bool has_command(const std::string &name);
std::string consumer_source(const std::string &file);
/// The libraries that a C program on an emitted archive is linked with.
extern const std::vector<std::string> c_library;

}  // namespace convsmith
