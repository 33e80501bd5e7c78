// What was tried: one line of JSON a trial, in a file that is only ever appended to.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace convsmith {

/// What a trial was of. Trials of another CPU, compiler or schedule version say nothing about this one's.
struct TrialKey {
  std::string cpu, halide, level, problem, pass;
  std::string threads;   // "1,2": the numbers of threads it was timed with
  std::string schedule;  // NAME@VERSION
  std::string knobs;
  int rung = 0;  // how closely it was looked at; the last is the one that records are made of
  auto operator<=>(const TrialKey &) const = default;
};

struct Trial {
  TrialKey key;
  std::string fault;    // why it is out of the running; empty where it is sound
  double us = 0;        // the geometric mean over the numbers of threads of the least time of a call
  std::string against;  // the setting that it took turns with, and that one's time in the same turns
  double against_us = 0;
  double noise = 0;  // by how much the two's ratio differed between halves of the turns
  std::uint64_t seed = 0;
  std::string date, convsmith;
  double ratio() const { return us > 0 ? against_us / us : 0; }
};

/// A file of trials. Any number of processes may append to one; each line is written at once and synchronised, and holds
/// a checksum of itself. What a killed writer left unfinished is dropped, a line that cannot be read is moved to FILE.bad.
class TrialLog {
 public:
  /// Reads the file where there is one; an empty name keeps the trials in memory. Throws Error where it cannot be read or
  /// written.
  explicit TrialLog(std::string file);
  /// CACHE/trials.jsonl of the user's cache folder.
  static std::string file_of_user();

  const Trial *find(const TrialKey &) const;
  void append(const Trial &);
  const std::map<TrialKey, Trial> &trials() const { return trials_; }
  /// Lines that could not be read, this time.
  int quarantined() const { return quarantined_; }
  const std::string &file() const { return file_; }

 private:
  void read();

  std::string file_;
  std::map<TrialKey, Trial> trials_;
  int quarantined_ = 0;
};

/// A line of the file, without its end; nothing where it is none.
std::string trial_line(const Trial &);
bool read_trial(const std::string &line, Trial &);

}  // namespace convsmith
