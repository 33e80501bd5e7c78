// What timings are held against: counted costs, the roof's two limits, and the stopwatch. No assertion on a time.
#include <gtest/gtest.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>
#include "schedules/levels.h"
#include "tools/emit/kernel_job.h"
#include "tools/measure/cost.h"
#include "tools/measure/race.h"
#include "tools/measure/roof.h"
#include "tools/support/stopwatch.h"

namespace convsmith {
namespace {

// 100 GFLOP/s; 40 GB/s of 1 KB, 20 of 4 KB, 10 of 16 KB.
Roof roof() {
  Roof r;
  r.gflops = 100;
  r.copies = {{1000, 40}, {4000, 20}, {16000, 10}};
  return r;
}

TEST(Roof, BandwidthOfASizeInBetween) {
  const Roof r = roof();
  EXPECT_EQ(r.bandwidth(1000), 40);
  EXPECT_EQ(r.bandwidth(4000), 20);
  EXPECT_EQ(r.bandwidth(16000), 10);
  // As far between two sizes as their logarithms say: 2 KB is halfway from 1 to 4.
  EXPECT_DOUBLE_EQ(r.bandwidth(2000), 30);
  EXPECT_DOUBLE_EQ(r.bandwidth(8000), 15);
  EXPECT_DOUBLE_EQ(r.bandwidth(1000 * std::pow(4, 0.1)), 38);
  double before = r.bandwidth(1);
  for (double bytes = 1; bytes < 1e5; bytes *= 1.1) {
    EXPECT_LE(r.bandwidth(bytes), before);
    before = r.bandwidth(bytes);
  }
}

TEST(Roof, BandwidthOutsideOfWhatWasMeasured) {
  const Roof r = roof();
  for (const double bytes : {0.0, 1.0, 999.0}) EXPECT_EQ(r.bandwidth(bytes), 40) << bytes;
  for (const double bytes : {16001.0, 1e9, std::numeric_limits<double>::infinity()}) EXPECT_EQ(r.bandwidth(bytes), 10);
  EXPECT_EQ(Roof().bandwidth(1000), 0);
  Roof one;
  one.copies = {{1000, 40}};
  for (const double bytes : {1.0, 1000.0, 5000.0}) EXPECT_EQ(one.bandwidth(bytes), 40) << bytes;
}

TEST(Roof, TimeIsThatOfTheSlowerLimit) {
  const Roof r = roof();
  EXPECT_DOUBLE_EQ(r.us(1e6, 1000), 10);      // a million operations at 100 to the nanosecond
  EXPECT_DOUBLE_EQ(r.us(1, 4000), 0.2);       // 4000 bytes at 20 to the nanosecond
  EXPECT_DOUBLE_EQ(r.us(20'000, 4000), 0.2);  // both
  EXPECT_DOUBLE_EQ(r.us(20'001, 4000), 0.20001);
  EXPECT_DOUBLE_EQ(r.us(0, 16e6), 1600);
  EXPECT_DOUBLE_EQ(r.us(1e6, 0), 10);
  EXPECT_EQ(r.us(0, 0), 0);
}

// Its numbers are this machine's; what holds of any is their order.
TEST(Roof, IsMeasured) {
  const Roof r = measure_roof(level_name(host_target()), 2);
  EXPECT_EQ(r.threads, 2);
  EXPECT_TRUE(std::isfinite(r.gflops) && r.gflops > 0) << r.gflops;
  ASSERT_GE(r.copies.size(), 2u);
  for (size_t i = 0; i < r.copies.size(); i++) {
    EXPECT_TRUE(i == 0 || r.copies[i].first > r.copies[i - 1].first);
    EXPECT_TRUE(std::isfinite(r.copies[i].second) && r.copies[i].second > 0) << r.copies[i].second;
  }
  EXPECT_LE(r.copies.front().first, 64 << 10);
  EXPECT_GE(r.copies.back().first, 64 << 20);
}

TEST(Stopwatch, LeastAndMedian) {
  const auto expect = [](const std::vector<double> &us, double min, double median) {
    const Times t = summary_of(us);
    EXPECT_EQ(t.min_us, min) << testing::PrintToString(us);
    EXPECT_EQ(t.median_us, median) << testing::PrintToString(us);
  };
  expect({}, 0, 0);
  expect({7}, 7, 7);
  expect({2, 1}, 1, 2);  // the upper one in the middle
  expect({9, 1, 5}, 1, 5);
  expect({4, 1, 3, 2}, 1, 3);
  expect({1e9, 3, 3, 3, 2}, 2, 3);
  expect({0.5, 0.25, 8, 0.125, 4, 2, 1}, 0.125, 1);
}

TEST(Stopwatch, CallsAtLeastTwice) {
  for (const double seconds : {0.0, -1.0, 1e-9}) {
    int calls = 0;
    const std::vector<double> us = time_each(seconds, [&] { calls++; });
    EXPECT_GE(us.size(), 2u) << seconds;
    EXPECT_GE(calls, 2) << seconds;
    for (const double t : us) EXPECT_GE(t, 0);
  }
  // A call longer than a batch is timed by itself.
  int calls = 0;
  const std::vector<double> us = time_each(0, [&] {
    calls++;
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < std::chrono::microseconds(200)) {
    }
  });
  EXPECT_EQ(calls, int(us.size()) + 1);  // and one to see how long it takes
  for (const double t : us) EXPECT_GE(t, 200);
  EXPECT_GE(time_calls(0, [] {}).median_us, 0);
}

// Batches of c calls after probes of 1, 2, 4 … c make (n+2)c - 1 calls for n times, which together fit the time they
// took.
TEST(Stopwatch, DividesABatchByItsCalls) {
  std::atomic<std::int64_t> calls = 0;
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> us = time_each(0.001, [&] { calls++; });
  const std::chrono::duration<double, std::micro> all = std::chrono::steady_clock::now() - start;
  const std::int64_t parts = std::int64_t(us.size()) + 2;
  EXPECT_EQ((calls + 1) % parts, 0) << calls << " calls, " << us.size() << " times";
  const double batch = double(calls + 1) / double(parts);
  EXPECT_GT(batch, 1);
  EXPECT_LE(std::accumulate(us.begin(), us.end(), 0.0) * batch, all.count());
}

TEST(Stopwatch, GoesOnForTheTimeAsked) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<double> us = time_each(0.05, [] {});
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
  EXPECT_GE(us.size(), 2u);
}

TEST(Stopwatch, LetsErrorsThrough) {
  int calls = 0;
  const auto call = [&] {
    if (++calls == 3) throw std::runtime_error("the third");
  };
  EXPECT_THROW(time_each(1, call), std::runtime_error);
  EXPECT_EQ(calls, 3);
}

void expect_cost(const char *problem, PassKind pass, double multiply_adds, double operations, double read,
                 double written) {
  const Cost c = cost(Problem::parse(problem), pass);
  SCOPED_TRACE(std::string(pass_name(pass)) + " of " + problem);
  EXPECT_EQ(double(c.multiply_adds), multiply_adds);
  EXPECT_EQ(double(c.operations), operations);
  EXPECT_EQ(double(c.bytes_read), read);
  EXPECT_EQ(double(c.bytes_written), written);
  EXPECT_EQ(c.bytes(), read + written);
  EXPECT_EQ(c.intensity(), operations / (read + written));
}

TEST(Cost, OfEachPass) {
  // x 2x4x6x5, y 2x6x4x3, weight 6x4x3x3
  const char *plain = "n=2 ic=4 oc=6 in=6x5 kernel=3 bias=1 activation=relu";
  const double x = 4 * 240, y = 4 * 144, w = 4 * 216, b = 4 * 6, products = 2 * 12 * 216;
  expect_cost(plain, PassKind::forward, products, 2 * products, x + w + b, y);
  expect_cost(plain, PassKind::input_gradient, products, 2 * products, y + w, x);
  expect_cost(plain, PassKind::weight_gradient, products, 2 * products, x + y, w);
  expect_cost(plain, PassKind::bias_gradient, 0, 144, y, b);
  expect_cost(plain, PassKind::activation_gradient, 0, 144, 2 * y, y);
  expect_cost(plain, PassKind::pack_weight, 0, 0, w, w);
  expect_cost(plain, PassKind::train_step, 2 * products, 4 * products, x + w + b + y + 4, w + b + 4);
}

TEST(Cost, OfTypesAndEpilogues) {
  const char *half = "n=2 ic=4 oc=6 in=6x5 kernel=3 type=f16 residual=1 activation=gelu save=pre";
  const double x = 240, y = 144, w = 216, products = 2 * 12 * 216;
  expect_cost(half, PassKind::forward, products, 2 * products, 2 * (x + w + y), 2 * 2 * y);
  expect_cost(half, PassKind::weight_gradient, products, 2 * products, 2 * (x + y), 4 * w);
  expect_cost(half, PassKind::pack_weight, 0, 0, 4 * w, 2 * w);
  const char *bytes = "n=2 ic=4 oc=6 in=6x5 kernel=3 type=u8s8 out_type=";
  const auto quantised = [&](const std::string &words, double scales, double size) {
    expect_cost((bytes + words).c_str(), PassKind::forward, products, 2 * products, x + w + scales, size * y);
  };
  quantised("i32", 4 + 4, 4);
  quantised("f32", 2 * (4 + 4), 4);
  quantised("u8", 2 * (4 + 4) + 8, 1);
  quantised("s8 scale=channel", 2 * (4 + 24) + 8, 1);
}

TEST(Cost, OfOtherOperatorsAndNoBatch) {
  expect_cost("op=transposed ic=2 oc=3 in=5 kernel=4 stride=2", PassKind::forward, 5 * 24, 2 * 5 * 24, 4 * (10 + 24),
              4 * 36);
  expect_cost("op=local ic=2 oc=3 in=5 kernel=2", PassKind::forward, 48, 96, 4 * (10 + 48), 4 * 12);
  expect_cost("op=dense ic=2 oc=3 in=5", PassKind::forward, 30, 60, 4 * (10 + 30), 4 * 3);
  expect_cost("ic=4 oc=6 groups=2 in=5 kernel=2", PassKind::forward, 48 * 1 / 2 * 4, 2 * 48 / 2 * 4, 4 * (20 + 24),
              4 * 24);
  expect_cost("n=0 in=5 kernel=2", PassKind::weight_gradient, 0, 0, 0, 8);
  EXPECT_EQ(Cost().intensity(), 0);
}

TEST(Cost, CountsPast64BitsAndNoFurther) {
  const Count most = Count(-1), half = Count(1) << 64;
  EXPECT_TRUE(times(half, half - 1) == (half - 1) << 64);
  EXPECT_TRUE(times(most, 1) == most);
  EXPECT_TRUE(times(most, 0) == 0);
  EXPECT_THROW(times(half, half), InternalError);
  EXPECT_THROW(times(most, 2), InternalError);
  EXPECT_TRUE(elements({2, 3, 4, 5}) == 120);
  EXPECT_TRUE(positions({2, 3, 4, 5}) == 20);
  EXPECT_TRUE(positions({2, 3}) == 1);
}

// Everybody has five turns of a fifth of the time, not always in the same order.
TEST(Race, KeepsTheLeastTimeAndTheMiddleOne) {
  std::mt19937 random(1);
  std::string order;
  const auto entrant = [&](char name, std::vector<Times> turns) {
    return Racer{std::string(1, name), [&order, name, turns, turn = size_t{0}](double seconds) mutable {
                        EXPECT_DOUBLE_EQ(seconds, 0.2);
                        order += name;
                        return turns.at(turn++);
                      }};
  };
  const std::vector<Times> best = race({entrant('a', {{5, 9}, {3, 8}, {4, 7}, {6, 6}, {5, 5}}), entrant('b', {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}})}, 1, random);
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0].min_us, 3);
  EXPECT_EQ(best[0].median_us, 7);
  EXPECT_EQ(best[1].min_us, 1);
  EXPECT_EQ(best[1].median_us, 3);
  EXPECT_EQ(std::count(order.begin(), order.end(), 'a'), 5);
  EXPECT_EQ(order.size(), 10u);
  EXPECT_NE(order, "ababababab");
}

}  // namespace
}  // namespace convsmith
