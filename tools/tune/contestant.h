// A kernel that is measured, in a process of its own that nobody trusts: it may crash, hang, talk nonsense or take all
// memory, and its parent goes on. The two exchange lines of JSON; each answer carries the number of its question.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>
#include "tools/support/stopwatch.h"

namespace convsmith {

class Conversation;

/// What is wrong with a candidate, in a few words: "died of signal 11", "took more than 20 s", "another result …".
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A pass of a shared object to measure.
struct ContestantJob {
  std::string library, name;           // file, and the name that its table goes by
  std::string kernel, pass, problem;
  std::string level;                   // empty: as it is
  std::vector<int> threads = {1};
  std::uint64_t seed = 1;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ContestantJob, library, name, kernel, pass, problem, level, threads, seed)

struct ContestantLimits {
  double seconds = 60;     // for a check, or for a turn beyond what it was asked to take
  std::size_t memory = 0;  // bytes of address space; 0: no limit
};

class Contestant {
 public:
  /// Starts `program` and has it load the library. Throws Fault where that fails, Error where it cannot be started.
  Contestant(const std::vector<std::string> &program, const ContestantJob &, const ContestantLimits &);
  ~Contestant();

  /// Holds the pass against exact integers, a sample of them where there are many, and against itself: the same bits from
  /// run to run, at every number of threads and whatever lay in the memory it was given, nothing written beside its
  /// results. Throws Fault.
  ///
  /// What comes back says what all elements are: two kernels of a pass that are both right have the same. Empty where a
  /// right result need not have the same bits.
  std::string check();
  /// Calls the pass again and again for so many seconds. Throws Fault.
  Times time(int threads, double seconds);

 private:
  nlohmann::json ask(nlohmann::json question, double seconds);

  ContestantLimits limits_;
  int number_ = 0;
  std::unique_ptr<Conversation> program_;
};

/// The child's side; exit status 0 at the end of its input.
int contestant_worker();

}  // namespace convsmith
