#include "tools/support/interrupt.h"
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace convsmith {
namespace {

// Milliseconds of the monotonic clock at the first signal, 0 before it. A signal handler can reach nothing but globals.
std::atomic<std::int64_t> first_signal{0};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

void on_signal(int) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t time = std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000 + 1;
  std::int64_t first = 0;
  // One press of Ctrl-C can arrive twice, through a wrapper: only a later one is impatience.
  if (!first_signal.compare_exchange_strong(first, time) && time - first >= 1000) _exit(130);
}

}  // namespace

void install_interrupt_handlers() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    sigaction(signal, nullptr, &old);
    if (old.sa_handler == SIG_IGN) continue;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, nullptr);
  }
}

bool interrupted() noexcept { return first_signal.load(std::memory_order_relaxed) != 0; }

void check_interrupt() {
  if (interrupted()) throw Interrupted();
}

}  // namespace convsmith
