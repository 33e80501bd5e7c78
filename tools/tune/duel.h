// A setting against what would be used now, in turns.
#pragma once
#include <memory>
#include <random>
#include "tuner.h"

namespace convsmith {

class Duel {
 public:
  struct Score {
    double us, against_us;  // geometric means over the numbers of threads of the least times
    double noise;           // by how much the two's ratio differed between the halves of the turns
  };

  /// What would be used now is built in `folder` when it is first needed.
  Duel(TuneTools &, const TuneTask &, const Proposal &present, const TuneOptions &, std::string folder);

  /// Checked before and after; the turns are in random order, so that noise hits both. Throws Fault where the setting
  /// misbehaves, Error where what would be used now does, Interrupted after a signal.
  Score measure(const Proposal &, const std::string &library, int rung);

 private:
  void start_present();
  double time_present(int threads, double seconds);
  void hold(const std::string &digest) const;
  [[noreturn]] void fail(const Fault &) const;

  TuneTools &tools_;
  const TuneTask &task_;
  const Proposal &present_;
  const TuneOptions &o_;
  const std::string folder_;
  std::mt19937_64 random_;
  std::unique_ptr<Contestant> contestant_;
  std::string digest_;  // of the present's results
};

}  // namespace convsmith
