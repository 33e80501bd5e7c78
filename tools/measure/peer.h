// Other libraries to be measured against. Each is a program of its own, so that none is ever linked into ours; it answers
// every line on its standard input with one on its standard output:
//
//   at the start                                     ok NAME VERSION
//   prepare PASS THREADS FOLDER RESULT PROBLEM       ok, with the result of one run written
//   time SECONDS                                     ok MIN_US MEDIAN_US
//   drop                                             ok
//
// or with "no REASON". FOLDER holds the tensors that the pass reads (x.npy, weight.npy, bias.npy, dy.npy), and RESULT is
// the .npy to write, all f32 in the logical order of files. What a library may do once for many calls (packing weights,
// choosing its own layout) is done by prepare and not timed.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>
#include "convsmith/tensor.h"
#include "generators/pass.h"
#include "tools/support/process.h"
#include "tools/support/stopwatch.h"

namespace convsmith {

class Peer {
 public:
  /// "NAME=PROGRAM ARGUMENT…". Throws Error where it is no such text or the program cannot be started.
  explicit Peer(const std::string &option);
  const std::string &name() const { return name_; }
  /// Of the library behind it; empty where it said that it cannot run here, and `reason` then why.
  const std::string &version() const { return version_; }
  const std::string &reason() const { return reason_; }

  /// Why it cannot do this, or nothing where it is prepared. Throws Error where the program fails.
  std::optional<std::string> prepare(PassKind, int threads, const std::string &folder, const std::string &result, const Problem &);
  /// The same, and that it makes the same result as ours. A peer that sums in another way (a Fourier transform, say) may
  /// round; one that computes something else differs by far more.
  std::optional<std::string> prepare_like(const Tensor &ours, PassKind, int threads, const std::string &folder, const Problem &);
  Times time(double seconds);
  void drop();
  /// Ends the program: it takes no more of the machine.
  void end() { program_.reset(); }

 private:
  /// What follows "ok"; nothing after "no", whose reason is kept.
  std::optional<std::string> ask(const std::string &line, double timeout_s);

  std::string name_, version_, reason_;
  std::unique_ptr<Conversation> program_;
};

/// Those that can run here. The report gets each one's version, or why it cannot, which standard error does too unless `quiet`.
std::vector<Peer> open_peers(const std::vector<std::string> &options, nlohmann::json &report, bool quiet);

}  // namespace convsmith
