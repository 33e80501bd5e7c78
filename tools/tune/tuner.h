// The search: settings proposed, built by a pool of child processes, measured one at a time against what would be used
// now, the better third of them again and more closely, then the neighbours of the best.
#pragma once
#include <chrono>
#include <functional>
#include "contestant.h"
#include "convsmith/problem.h"
#include "space.h"
#include "trial.h"

namespace convsmith {

/// A pass of a problem to find a schedule for.
struct TuneTask {
  std::string name;
  Problem problem;
  PassKind pass;
  std::string title() const { return name + " " + pass_name(pass); }
};

/// What the search needs done: by the command's own compiler, or by a test's stand-ins.
class TuneTools {
 public:
  virtual ~TuneTools() = default;
  /// What would be used now.
  virtual Proposal present(const TuneTask &) = 0;
  virtual std::vector<Proposal> propose(const TuneTask &, int count, std::uint64_t seed, const Proposal *around) = 0;
  /// Further settings to measure in the first wave, which never win: other schedulers'.
  virtual std::vector<Proposal> baselines(const TuneTask &) { return {}; }
  /// A shared object of it, in a folder of its own. Throws Fault where the compiler does not make it. Called by several
  /// threads at once.
  virtual std::string build(const TuneTask &, const Proposal &, const std::string &folder) = 0;
  /// The program that measures it, and what that is told.
  virtual std::vector<std::string> program(const Proposal &) = 0;
  virtual ContestantJob job(const TuneTask &, const Proposal &, const std::string &library) = 0;
};

struct TuneOptions {
  std::string cpu, halide, level, convsmith;
  std::vector<int> threads;
  std::uint64_t seed = 1;
  int width = 24;                                       // of the first wave
  std::vector<double> seconds = {0.01, 0.03, 0.1, 0.5};  // a contestant's turns at each number of threads, by rung
  ContestantLimits limits;
};

/// One step of a task's search, for a curve: how much better the best is than what would be used now.
struct TuneStep {
  int trial;
  double best;
};

struct TuneResult {
  TuneTask task;
  Proposal present, best;  // the same where nothing better was found
  double ratio = 1;        // the present's time over the best's, of the last rung
  double noise = 0, us = 0, present_us = 0;
  std::string date;            // of the best's last trial
  int trials = 0, faults = 0;  // of this run
  bool interrupted = false;    // by a signal; what was finished by then is here
  std::vector<TuneStep> curve;
  std::vector<Trial> seen;     // of this run and of earlier ones
  /// Whether the best is better by more than the noise.
  bool won() const { return ratio > 1 + std::max(0.02, 2 * noise); }
};

class Tuner {
 public:
  using Clock = std::chrono::steady_clock;

  Tuner(TuneTools &tools, TrialLog &log, const TuneOptions &options) : tools_(tools), log_(log), options_(options) {}

  /// Until the deadline, `trials` trials or no wave finds anything better. `told` is called after every trial.
  /// Throws Error where what would be used now cannot be measured. After a signal it returns with what was finished.
  TuneResult tune(const TuneTask &, Clock::time_point deadline, int trials, const std::function<void(const TuneResult &)> &told = {});

  /// What is known of a task without measuring anything.
  TuneResult known(const TuneTask &);

 private:
  class Race;
  TuneTools &tools_;
  TrialLog &log_;
  TuneOptions options_;
};

/// The tools of the command: Halide in children of this program, kernels measured in others.
std::unique_ptr<TuneTools> kernel_tools(const TuneOptions &, const std::string &records, const std::string &cc, bool baselines);

}  // namespace convsmith
