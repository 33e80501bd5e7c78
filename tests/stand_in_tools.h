// A tuner's tools without a compiler: settings are made up, and programs that stand in for kernels claim their times.
#pragma once
#include "tools/tune/tuner.h"

namespace convsmith {

/// Settings read "kind=KIND us=US draw=N"; KIND is what tests/stand_in.cpp knows, "crashes_compiler" or "hangs_compiler".
class StandInTools : public TuneTools {
 public:
  /// `faulty` of a hundred settings misbehave, each claiming to be the fastest. Where `count_file` is named, a byte is
  /// appended to it for every setting that is measured.
  explicit StandInTools(int faulty, std::string count_file = "") : faulty_(faulty), count_file_(std::move(count_file)) {}

  Proposal present(const TuneTask &) override { return {"stand_in", "kind=sound us=100 draw=0", 1}; }
  std::vector<Proposal> propose(const TuneTask &, int count, std::uint64_t seed, const Proposal *around) override;
  std::string build(const TuneTask &, const Proposal &, const std::string &folder) override;
  std::vector<std::string> program(const Proposal &) override;
  ContestantJob job(const TuneTask &, const Proposal &, const std::string &library) override;

  static const std::vector<std::string> &faults();
  static std::string word(const Proposal &, const std::string &name);

 private:
  int faulty_;
  std::string count_file_;
};

TuneOptions stand_in_options();
TuneTask stand_in_task();

/// A search over stand-ins with its trials in a file: what a killed and resumed tuner does. For a process of its own.
int tune_stand_ins(const std::string &log, const std::string &count_file);
/// Measures a kernel that never comes back. For a process of its own.
int measure_endless();

}  // namespace convsmith
