#include "race.h"
#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include "tools/support/interrupt.h"

namespace convsmith {

std::vector<Times> race(const std::vector<Racer> &racers, double seconds, std::mt19937 &random) {
  const int rounds = 5;
  std::vector<Times> best(racers.size());
  std::vector<std::vector<double>> medians(racers.size());
  std::vector<size_t> order(racers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (int round = 0; round < rounds; round++) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the threads of the one before go to sleep
      check_interrupt();
      const Times t = racers[i].time(seconds / rounds);
      best[i].min_us = round ? std::min(best[i].min_us, t.min_us) : t.min_us;
      medians[i].push_back(t.median_us);
    }
  }
  for (size_t i = 0; i < best.size(); i++) best[i].median_us = summary_of(medians[i]).median_us;
  return best;
}

}  // namespace convsmith
