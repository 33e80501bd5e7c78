// A progress bar on standard error.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace convsmith {

/// "label [=====>    ]  50 %  loss 0.23", drawn at most ten times a second, removed by the destructor.
/// Silent where `quiet`, or where standard error is not a terminal that can clear a line.
class ProgressBar {
 public:
  ProgressBar(std::string label, std::int64_t total, bool quiet);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar &) = delete;
  ProgressBar &operator=(const ProgressBar &) = delete;

  /// `done` of the total; `figure` is what to show behind the bar. Cheap enough to call at every step.
  void update(std::int64_t done, std::string_view figure = {});
  /// Removes the bar, so that a line can be printed; the next update draws it again.
  void clear();

 private:
  std::string label_;
  std::int64_t total_;
  bool silent_, drawn_ = false;
  std::chrono::steady_clock::time_point next_{};
};

/// The bar's text, at most `columns` wide (bytes taken as columns): the bar shrinks, then the text is cut.
std::string progress_line(std::string_view label, double fraction, std::string_view figure, int columns);

}  // namespace convsmith
