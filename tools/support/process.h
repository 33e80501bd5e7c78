// Other programs: started, fed, listened to and always ended.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace convsmith {

struct ProcessOptions {
  std::string input = {};                          // what the program reads from its standard input
  double timeout_s = 0;                            // wall-clock; 0: none
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

/// The path of this program. Errors: Error where its file has been replaced or removed since it started.
std::string own_executable();

}  // namespace convsmith
