// How long a call takes: the least and the median of many.
#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

namespace convsmith {

struct Times {
  double min_us = 0, median_us = 0;
};

/// The least and the median; of an even number the upper one in the middle.
inline Times summary_of(std::vector<double> us) {
  if (us.empty()) return {};
  std::sort(us.begin(), us.end());
  return {us.front(), us[us.size() / 2]};
}

/// Calls again and again for so many seconds, at least twice. Calls of less than `batch_us` are timed in batches of about that
/// long, and what a batch took, with the wait at its end, is divided by its calls.
template<class Call, class Wait>
std::vector<double> time_each(double seconds, Call &&call, Wait &&wait, double batch_us) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  };
  const auto batch_of = [&](int calls) {
    const auto start = Clock::now();
    for (int i = 0; i < calls; i++) call();
    wait();
    return since(start);
  };
  const auto start = Clock::now();
  int calls = 1;
  while (calls < 1 << 20 && batch_of(calls) < batch_us) calls *= 2;
  std::vector<double> us;
  while (us.size() < 2 || since(start) < seconds * 1e6) us.push_back(batch_of(calls) / calls);
  return us;
}

template<class Call>
std::vector<double> time_each(double seconds, Call &&call) {
  return time_each(seconds, call, [] {}, 50);
}

template<class Call>
Times time_calls(double seconds, Call &&call) {
  return summary_of(time_each(seconds, call));
}

}  // namespace convsmith
