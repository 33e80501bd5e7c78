// Several ways to compute the same thing, timed beside each other: a turn is one of them called for a short while, and they
// take their turns in random order, so that noise hits all alike.
#pragma once
#include <functional>
#include <random>
#include <string>
#include <vector>
#include "tools/support/stopwatch.h"

namespace convsmith {

struct Racer {
  std::string name;
  std::function<Times(double seconds)> time;
};

/// Of each the least time of all turns, and the median of the turns' medians. `seconds` are for each of them.
std::vector<Times> race(const std::vector<Racer> &, double seconds, std::mt19937 &);

}  // namespace convsmith
