#include "tools/support/progress.h"
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace convsmith {
namespace {

constexpr std::chrono::milliseconds between_draws{100};
constexpr int widest_bar = 40, narrowest_bar = 8;

bool can_clear_a_line() {
  const char *terminal = std::getenv("TERM");
  return isatty(STDERR_FILENO) && terminal != nullptr && std::string_view(terminal) != "dumb";
}

// The last column stays free: some terminals wrap as soon as it is filled.
int columns_of_terminal() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

}  // namespace

std::string progress_line(std::string_view label, double fraction, std::string_view figure, int columns) {
  fraction = fraction >= 0 ? std::min(fraction, 1.0) : 0.0;
  const std::string before = label.empty() ? "" : fmt::format("{} ", label);
  const std::string after =
      fmt::format("{:3} %{}{}", static_cast<int>(fraction * 100 + 1e-9), figure.empty() ? "" : "  ", figure);
  const int room = columns - static_cast<int>(before.size() + after.size()) - 3;
  const int width = std::min(room, widest_bar);
  std::string line = before;
  if (width >= narrowest_bar) {
    const int filled = static_cast<int>(fraction * width);
    const std::string head = filled == width ? "" : ">";
    line += fmt::format("[{:<{}}] ", std::string(filled, '=') + head, width);
  }
  line += after;
  line.resize(std::min(line.size(), static_cast<std::size_t>(std::max(columns, 0))));
  return line;
}

ProgressBar::ProgressBar(std::string label, std::int64_t total, bool quiet)
    : label_(std::move(label)), total_(total), silent_(quiet || !can_clear_a_line()) {}

void ProgressBar::update(std::int64_t done, std::string_view figure) {
  if (silent_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + between_draws;
  drawn_ = true;
  const double fraction = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 0.0;
  const std::string text = "\r\x1b[K" + progress_line(label_, fraction, figure, columns_of_terminal());
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void ProgressBar::clear() {
  if (!drawn_) return;
  drawn_ = false;
  next_ = {};
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

}  // namespace convsmith
