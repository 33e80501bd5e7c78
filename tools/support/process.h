// Other programs: started, fed, listened to and always ended.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>
#include "convsmith/error.h"

namespace convsmith {

struct ProcessOptions {
  std::string input = {};                          // what the program reads from its standard input
  double timeout_s = 0;                            // wall-clock; 0: none
  std::size_t max_memory = 0;                      // bytes of address space, of each process that it starts too; 0: no limit
  std::size_t max_output = std::size_t{64} << 20;  // bytes of standard output and error together
};

/// `exit_code` is -1 where a signal ended the program, and `signal` then its number. `timed_out` and `output_exceeded`
/// say why it was killed; `out` and `err` hold what it had written by then.
struct ProcessResult {
  int exit_code = -1;
  int signal = 0;
  bool timed_out = false;
  bool output_exceeded = false;
  std::string out, err;
};

/// Runs argv[0] (looked up in PATH where it has no slash) in a process group of its own and waits for its end. What it
/// leaves running in that group is then killed; a process that left the group is not waited for.
/// Errors: Error where it cannot be started; Interrupted, the group killed, after SIGINT or SIGTERM (interrupt.h).
ProcessResult run_process(const std::vector<std::string> &argv, const ProcessOptions &options = {});

/// Why a question got no answer.
class NoAnswer : public Error {
 public:
  enum class Reason { ended, silent, too_long };
  NoAnswer(Reason why, const std::string &message) : Error(message), reason(why) {}
  const Reason reason;
};

struct ConversationOptions {
  bool quiet = false;          // its standard error goes nowhere; else it is ours
  std::size_t max_memory = 0;  // as in ProcessOptions
};

/// A program that answers each line with a line. It runs in a process group of its own, which ends with this object.
class Conversation {
 public:
  /// Errors: Error where it cannot be started.
  explicit Conversation(const std::vector<std::string> &argv, const ConversationOptions &options = {});
  ~Conversation();
  Conversation(const Conversation &) = delete;
  Conversation &operator=(const Conversation &) = delete;

  /// Sends a line, if there is one, and waits for the next that comes back, without its end.
  /// Errors: NoAnswer where the program ends or closes its output, says more than 64 KiB in a line or nothing for so long;
  /// Interrupted.
  std::string ask(const std::string &line, double timeout_s);
  /// "died of signal 11", "ended with exit status 0"; nothing where it still runs. Waits a moment for an end that is near.
  std::string how_it_ended() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// From here on this process is killed when the thread that started it ends, however it does. For children that run what
/// may never come back.
void end_with_parent();

/// The path of this program. Errors: Error where its file has been replaced or removed since it started.
std::string own_executable();

}  // namespace convsmith
