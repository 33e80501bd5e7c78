#include "roof.h"
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include "tools/support/stopwatch.h"

namespace convsmith {
namespace {

// So many rounds of multiply-adds that wait for nothing but the multipliers, and the operations in a round.
struct Burst {
  double operations;
  void (*run)(long rounds);
};

#if defined(__x86_64__)
// Written out, as the level may be above the one that this file is compiled for. Twelve sums hide the latency of a
// multiply-add on two units; more than twelve do not fit beside their operands where there are sixteen registers.
constexpr int sums = 12;
#define CONVSMITH_EACH_SUM(text) ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n\t" text "\n\t.endr\n\t"
#define CONVSMITH_BURST(clear, add, end)                                                                               \
  [](long rounds) {                                                                                               \
    asm volatile(CONVSMITH_EACH_SUM(clear) "1:\n\t" CONVSMITH_EACH_SUM(add) "dec %0\n\tjnz 1b\n\t" end              \
                 : "+r"(rounds)                                                                                   \
                 :                                                                                                \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                   "xmm11");                                                                                      \
  }

Burst burst_of(const std::string &level) {
  if (level.starts_with("x86-64-avx512"))
    return {2. * 16 * sums, CONVSMITH_BURST("vpxorq %%zmm\\r, %%zmm\\r, %%zmm\\r", "vfmadd231ps %%zmm\\r, %%zmm\\r, %%zmm\\r", "vzeroupper")};
  if (level == "x86-64-avx2")
    return {2. * 8 * sums, CONVSMITH_BURST("vxorps %%ymm\\r, %%ymm\\r, %%ymm\\r", "vfmadd231ps %%ymm\\r, %%ymm\\r, %%ymm\\r", "vzeroupper")};
  // A multiplication and an addition may start in the same cycle: half of the registers do one, half the other.
  return {4. * sums, CONVSMITH_BURST("xorps %%xmm\\r, %%xmm\\r", ".if \\r < 6\n\tmulps %%xmm\\r, %%xmm\\r\n\t.else\n\taddps %%xmm\\r, %%xmm\\r\n\t.endif", "")};
}
#undef CONVSMITH_BURST
#undef CONVSMITH_EACH_SUM
#else
Burst burst_of(const std::string &) {
  return {2. * 4 * 16, [](long rounds) {
            typedef float Vector __attribute__((vector_size(16)));
            Vector sum[16] = {};
            for (; rounds > 0; rounds--)
              for (auto &s : sum) {
                s = s * s + s;
                asm volatile("" : "+w"(s));
              }
          }};
}
#endif

// Every thread does its part at the same time; the least time of several such turns. Threads wait for each other awake, as a
// scheduler leaves one that has just begun on its maker's processor for some milliseconds.
double least_us(int threads, const std::function<void(int)> &part) {
  constexpr int turns = 15;
  std::atomic<int> arrived{0};
  const auto meet = [&](int times) {
    arrived++;
    while (arrived.load() < times * threads) std::this_thread::yield();
  };
  std::vector<double> us;
  const auto take_turns = [&](int t) {
    for (int turn = 0; turn < turns; turn++) {
      meet(2 * turn + 1);
      const auto start = std::chrono::steady_clock::now();
      part(t);
      meet(2 * turn + 2);
      if (t == 0) us.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; t++) others.emplace_back(take_turns, t);
  take_turns(0);
  for (auto &other : others) other.join();
  return summary_of(us).min_us;
}

}  // namespace

double Roof::bandwidth(double bytes) const {
  if (copies.empty()) return 0;
  auto above = std::find_if(copies.begin(), copies.end(), [&](auto &c) { return c.first >= bytes; });
  if (above == copies.begin()) return above->second;
  if (above == copies.end()) return copies.back().second;
  const auto below = above - 1;
  const double share = std::log(bytes / below->first) / std::log(above->first / below->first);
  return below->second + share * (above->second - below->second);
}

double Roof::us(double operations, double bytes) const {
  return std::max(operations / gflops, bytes / bandwidth(bytes)) / 1e3;
}

nlohmann::json roof_json(const Roof &roof) {
  nlohmann::json j = {{"threads", roof.threads}, {"gflops", roof.gflops}, {"copies", nlohmann::json::array()}};
  for (auto &[bytes, rate] : roof.copies) j["copies"].push_back({{"bytes", bytes}, {"gb_per_s", rate}});
  return j;
}

Roof measure_roof(const std::string &level, int threads) {
  Roof roof;
  roof.threads = threads;
  const Burst burst = burst_of(level);
  const long rounds = 1'000'000;
  roof.gflops = threads * rounds * burst.operations / least_us(threads, [&](int) { burst.run(rounds); }) / 1e3;
  for (size_t bytes = 32 << 10; bytes <= size_t{128} << 20; bytes *= 2) {
    const size_t share = bytes / 2 / size_t(threads);  // read, and as much written
    std::vector<std::unique_ptr<char[]>> from, to;
    for (int t = 0; t < threads; t++) {
      from.emplace_back(new char[share]), to.emplace_back(new char[share]);
      std::memset(from.back().get(), 1, share), std::memset(to.back().get(), 2, share);
    }
    const int repeats = int(std::max<size_t>(1, (size_t{32} << 20) / bytes));
    const double us = least_us(threads, [&](int t) {
      for (int i = 0; i < repeats; i++) {
        std::memcpy(to[size_t(t)].get(), from[size_t(t)].get(), share);
        asm volatile("" : : "r"(to[size_t(t)].get()) : "memory");
      }
    });
    roof.copies.push_back({double(bytes), double(bytes) * repeats / us / 1e3});
  }
  return roof;
}

}  // namespace convsmith
