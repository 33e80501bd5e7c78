// A schedule turns Stages and integer knobs into loops. It never asks which pass, rank or operator it has.
#pragma once
#include "generators/stages.h"
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

/// "tile=32,14 block=0,0,14 pad=1": a knob is a short list of integers, one an axis where it is about axes.
class Knobs {
 public:
  /// Throws Error for a word that is no NAME=INTEGER[,INTEGER...] or a name given twice.
  static Knobs parse(std::string_view text);
  std::string str() const;
  int get(const std::string &name, size_t axis, int preset) const;
  int get(const std::string &name, int preset) const { return get(name, 0, preset); }
  void set(const std::string &name, std::vector<int> values) { values_[name] = std::move(values); }
  const std::map<std::string, std::vector<int>> &values() const { return values_; }

 private:
  std::map<std::string, std::vector<int>> values_;
};

/// A knob of a schedule for one workload: what each of its entries may be, and its preset.
struct Knob {
  std::string name;
  std::vector<int> preset;  // by rule, from the features of the problem and the facts of the target
  std::vector<int> low, high;
  bool permutation = false;  // the entries are 0..size-1 in some order; high then is the extent of what each stands for
  std::vector<int> unit = {};  // what each entry is best a multiple of (empty: 1)
};

struct Schedule {
  const char *name;
  int version;  // bumped when a knob changes its meaning, so that no record is misread
  bool (*supports)(const Stages &, const Workload &);
  std::vector<Knob> (*knobs)(const Stages &, const Workload &);
  /// Why these values cannot go together; empty where they can.
  std::string (*conflict)(const Stages &, const Knobs &, const Workload &);
  void (*apply)(Stages &, const Knobs &, const Workload &);
};

/// Every schedule, the preferred ones first; `reference` is last and always works.
const std::vector<const Schedule *> &schedules();
/// Throws Error, listing the names, where there is none.
const Schedule &find_schedule(std::string_view name);

/// Whether weights are by rule read from panels: such as fill L2 are read in order only from these. 92 against 28 GFLOP/s for 3x3, 512
/// channels at 7x7, 96 against 56 for 3x3 stride 2, 128 channels at 56x56 (Zen 3, one thread).
bool read_from_panels(const Workload &);
/// The schedule's own knobs and those of the workload (panel, trim).
std::vector<Knob> all_knobs(const Schedule &, const Stages &, const Workload &);
Knobs presets(const Schedule &, const Stages &, const Workload &);
/// Throws Error that names the knob, what it may be and what it is.
void check_knobs(const Schedule &, const Knobs &, const Stages &, const Workload &);

/// What is computed beside the sums and their result, of each Stages the same for every schedule.
void schedule_rest(Stages &, const Workload &);

/// What was chosen for a workload, and why, in words.
struct Choice {
  const Schedule *schedule;
  Knobs knobs;
  std::string why;
};

class RecordBook;
/// The exact record, else the first schedule that supports the workload, with its presets.
/// `cpu` is the one tuned for, or "*". Throws Error where the record does not fit.
Choice choose(const Workload &, const RecordBook &, const std::string &cpu);
/// The workload with the panel and trim that the knobs ask for.
Workload with_knobs(Workload, const Knobs &);
/// Stages of a workload over inputs that are only described: to look at, not to compile.
Stages outline(const Workload &);

}  // namespace convsmith
