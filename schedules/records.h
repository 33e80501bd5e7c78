// Tuned choices as reviewed data: schedules/records/<target>.rec, one a line,
//
//     PROBLEM | PASS | CPU-or-* | SCHEDULE@VERSION knob=value … | gflops=… roof=… halide=… date=…
//
// What stands right of the last bar is what was measured; it never decides anything.
#pragma once
#include "schedule.h"

namespace convsmith {

struct Record {
  std::string target;  // the instruction level, as the file is named
  Problem problem;
  PassKind pass;
  std::string cpu, schedule;
  int version;
  Knobs knobs;
  std::string measured, halide;
  std::string where;  // FILE:LINE
};

class RecordBook {
 public:
  /// The records compiled into the command.
  static RecordBook built_in();
  /// Every *.rec of a folder. Throws Error, with the file and line, for one that cannot be read.
  static RecordBook load(const std::string &folder);

  void add(const std::string &file_name, std::string_view text);
  const std::vector<Record> &records() const { return records_; }
  /// The one for this CPU, else the one for any; null where there is none.
  const Record *find(const Workload &, const std::string &cpu) const;

 private:
  std::vector<Record> records_;
};

/// The word WORD=… of what was measured; empty where there is none.
std::string measured_word(const std::string &measured, const std::string &word);

/// The text of TARGET.rec with these records in place of those for the same problem, pass and CPU: its first comments, then
/// all records sorted. Throws Error where the text cannot be read.
std::string fold_records(const std::string &text, const std::string &target, const std::vector<Record> &);

/// "21.0.0"
std::string halide_version();

}  // namespace convsmith
