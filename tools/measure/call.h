// One pass of a library to be timed: its tensors, and what the call gives in the order of files.
#pragma once
#include <map>
#include "convsmith/library.h"
#include "generators/pass.h"
#include "tools/support/stopwatch.h"

namespace convsmith {

/// Tensors by name in the order of files, f32, also written as FOLDER/NAME.npy where there is a folder: x, dy, weight and, where there is one, bias.
/// Integers so small that every sum is exact, whatever the order of its terms, where the problem allows that.
bool has_exact_operands(const Problem &);
std::map<std::string, Tensor> operands(const Problem &, const std::string &folder);

class TimedCall {
 public:
  /// Of a kernel's pass, at these sizes where it leaves some open. Weights are packed here, and not again; other inputs than those given are
  /// constants.
  TimedCall(const Library &, const std::string &kernel, PassKind, const std::map<std::string, Tensor> &filed, int threads, const Shape &sizes = {});
  TimedCall(const TimedCall &) = delete;
  TimedCall &operator=(const TimedCall &) = delete;

  /// Runs the pass and, for a weight gradient on a processor, brings the result into the order of files. On a GPU the tensors
  /// stay there, and the call may return before it is done. Throws Error where it fails.
  void operator()() const;
  /// Until the calls so far are done.
  void wait() const;
  /// The least and the median of a call; of a GPU's, of as many at once as take a millisecond.
  Times time(double seconds) const;
  /// In the order of files.
  Tensor result() const;
  /// Writes the inputs that have no file in the folder yet: scales and zero points.
  void write_rest(const std::string &folder) const;

 private:
  Library library_;
  Pass pass_;
  const convsmith_pass *table_ = nullptr;
  std::vector<Tensor> tensors_;
  std::vector<convsmith_tensor> arguments_;
  Tensor result_, filed_;
  std::vector<std::pair<Tensor, Tensor>> slices_;  // of filed_ and result_ along their first axis
};

/// The largest difference from a file's elements, as a share of the largest magnitude; infinite where it has another number.
double difference(const Tensor &ours, const std::string &file);

}  // namespace convsmith
