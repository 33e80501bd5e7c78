// SIGINT and SIGTERM as an exception at a place of our choosing.
#pragma once
#include <exception>

namespace convsmith {

/// Thrown after SIGINT or SIGTERM. The command ends with exit code 130.
class Interrupted : public std::exception {
 public:
  const char *what() const noexcept override { return "interrupted"; }
};

/// From here on SIGINT and SIGTERM are noted instead of ending the process; one that comes a second or more after the
/// first ends it at once with 130. A signal that the process was started to ignore (nohup) stays ignored.
void install_interrupt_handlers();

/// Whether a signal has come; it stays true.
bool interrupted() noexcept;

/// Throws Interrupted once a signal has come. Call it between steps of long work.
void check_interrupt();

}  // namespace convsmith
