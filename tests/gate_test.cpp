// The exact gate: every pass of every problem at every schedule equals 64-bit integers bit for bit, and real data stays
// within the bound that follows from the length of the sum.
#include "convsmith/error.h"
#include "random_problem.h"
#include "schedules/levels.h"
#include "tools/verify/gate.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <mutex>
#include <thread>

namespace convsmith {
namespace {

// What a gate says of a problem; empty where it passes.
std::string failure(const Problem &p, const GateOptions &options, std::vector<GateFigures> *figures = nullptr) {
  try {
    const auto found = gate(p, options);
    if (figures) *figures = found;
  } catch (const std::exception &e) { return e.what(); }
  return "";
}

// Two at a time, each compiled in a child of its own, the levels taking turns. A problem that fails is shrunk to the smallest that still
// does.
void gate_all(const std::vector<Problem> &problems, const GateOptions &all, const std::vector<std::string> &levels = {"host"}) {
  std::atomic<size_t> next = 0;
  std::mutex lock;
  std::int64_t exact = 0, kernels = 0;
  std::vector<std::string> failures;
  auto work = [&] {
    for (size_t i; (i = next++) < problems.size();) {
      GateOptions options = all;
      options.target = levels[i % levels.size()];
      std::vector<GateFigures> figures;
      const auto start = std::chrono::steady_clock::now();
      const std::string what = failure(problems[i], options, &figures);
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
      const std::string which = fmt::format("\"{}\" at {}", problems[i].str(), options.target);
      // Said at once, as the test may be ended before it does.
      if (taken.count() > 30) std::cout << fmt::format("{:.0f} s: {}\n", taken.count(), which) << std::flush;
      std::string smallest;
      if (!what.empty()) {
        std::cout << fmt::format("{}: {}\n", which, what) << std::flush;
        const Problem p = shrunk(problems[i], [&](const Problem &q) { return !failure(q, options).empty(); });
        smallest = fmt::format("{}: {}\n  smallest that fails: \"{}\": {}", which, what, p.str(), failure(p, options));
      }
      std::lock_guard held(lock);
      for (auto &g : figures) exact += g.figures.exact_elements, kernels++;
      if (!what.empty()) failures.push_back(smallest);
    }
  };
  std::thread other(work);
  work();
  other.join();
  for (auto &f : failures) ADD_FAILURE() << f;
  EXPECT_GT(exact, 0);
  std::cout << fmt::format("{} problems, {} kernels, {} elements exact\n", problems.size(), kernels, exact);
}

int problem_count() {
  const char *count = std::getenv("CONVSMITH_PROBLEMS");
  return count ? std::atoi(count) : 500;
}

GateOptions random_options() {
  GateOptions o;
  o.seed = test_seed();
  o.most_products = 4'000'000;
  o.compile_seconds = 300;  // mostly a few, on a machine that does nothing else
  std::cout << fmt::format("CONVSMITH_SEED={}\n", o.seed) << std::flush;  // said even where the test is ended by its time
  return o;
}

std::vector<std::string> random_levels() {
  const Halide::Target host = host_target();
  std::vector<std::string> levels = {"host"};
  if (host.has_feature(Halide::Target::AVX2)) levels.push_back("x86-64-avx2");
  if (host.arch == Halide::Target::X86) levels.push_back("x86-64");
  return levels;
}

// Splits the random problems over several tests, so that they can run beside each other.
void gate_random(int part) {
  const GateOptions o = random_options();
  std::mt19937_64 random(o.seed * 4 + std::uint64_t(part));
  std::vector<Problem> list;
  for (int i = 0; i < problem_count() / 4; i++) list.push_back(random_problem(random));
  gate_all(list, o, random_levels());
}

TEST(Gate, RandomProblemsFirstQuarter) { gate_random(0); }
TEST(Gate, RandomProblemsSecondQuarter) { gate_random(1); }
TEST(Gate, RandomProblemsThirdQuarter) { gate_random(2); }
TEST(Gate, RandomProblemsLastQuarter) { gate_random(3); }

// At what is chosen for them, in tasks and blocks that small ones have none of.
TEST(Gate, LayersOfRandomSizes) {
  GateOptions o = random_options();
  o.every_schedule = false, o.most_products = GateOptions().most_products;
  std::mt19937_64 random(~o.seed);
  std::vector<Problem> list;
  for (int i = 0; i < std::max(1, problem_count() / 40); i++) list.push_back(random_layer(random));
  gate_all(list, o, random_levels());
}

// Real layers, cut down: large enough for every schedule's parallel loops, cuts and copies.
TEST(Gate, LayersAtEverySchedule) {
  std::vector<Problem> list;
  for (const char *text : {
           "ic=64 oc=64 in=28x28 kernel=3 pad=1 bias=1",
           "ic=64 oc=128 in=28x28 kernel=1",
           "ic=16 oc=32 in=31x56 kernel=1x3 pad=1:0x0",  // a row of one tap with a border
           "ic=32 oc=64 in=29x31 kernel=3 stride=2 pad=1",
           "ic=3 oc=64 in=57x57 kernel=7 stride=2 pad=3",
           "ic=128 oc=128 in=7x7 kernel=3 pad=1",
           "ic=64 oc=64 groups=64 in=40x40 kernel=3 pad=1",
           "ic=96 oc=64 groups=16 in=20x21 kernel=3 stride=2 pad=1",
           "ic=80 oc=80 in=28x28 kernel=1 bias=1 activation=relu",
           "ic=16 oc=32 in=30x600 kernel=3 pad=1",  // rows as blocks, in strips of which the last is short
           "ic=32 oc=64 groups=2 in=10x20x20 kernel=3 pad=1",
           "ic=24 oc=24 in=2000 kernel=9 dilation=4 pad=16",
           "ic=16 oc=16 in=8x20x20 kernel=3 pad=1",
           "n=4 ic=16 oc=24 in=20x20 kernel=5 pad=2 layout=channels_first",
           "n=3 in=120x130 kernel=5 pad=2 border=replicate",
           "ic=50 oc=10 in=17x31 kernel=3 pad=1",
           "op=transposed ic=64 oc=32 in=14x14 kernel=4 stride=2 pad=1 bias=1 activation=relu",
           "op=transposed in=? kernel=1 stride=2 pad=-1:4 out_pad=1",
           "op=transposed in=2 kernel=1 stride=2 pad=-1:4 out_pad=1",
           "op=local n=4 ic=8 oc=16 in=24x24 kernel=3 pad=1",
           "op=local n=3 in=40x50 kernel=5 pad=2 border=reflect",
           "op=local ic=16 oc=8 in=9x7 kernel=3 pad=1 layout=channels_first",
           "op=dense n=16 ic=16 in=12x12 oc=40 bias=1",
           "ic=32 oc=64 in=28x28 kernel=3 pad=1 border=reflect residual=1 activation=leaky_relu:0.1",
           "ic=32 oc=64 in=28x28 kernel=3 pad=1 type=f16 save=pre activation=gelu bias=1",
           "ic=32 oc=64 in=28x28 kernel=3 pad=1 type=bf16",
           "ic=64 oc=64 in=28x28 kernel=3 pad=1 type=u8s8 out_type=u8 scale=channel bias=1",
           "n=? ic=32 oc=48 in=?x? kernel=3 stride=2 pad=1 bias=1 activation=relu",
           "n=? in=?x? kernel=5 pad=2 border=replicate",
           "n=? ic=3 oc=3 groups=3 in=?x? kernel=5 pad=2 border=reflect bias=1 activation=relu",
           "ic=3 oc=32 in=30x33 kernel=3 stride=2 pad=1",
           "ic=24 oc=8 in=10x10 kernel=5 pad=2 border=replicate",
           "op=transposed in=6 kernel=2 dilation=3 pad=3 out_pad=2",
           "ic=40 oc=40 groups=40 in=?x? kernel=3 pad=1 bias=1 save=pre activation=silu",
           "ic=24 oc=24 groups=24 in=?x9x? kernel=3 pad=1",
           "ic=8 oc=8 groups=8 in=?x? kernel=3 stride=1x2 pad=1",
           "ic=32 oc=32 groups=32 in=?x?x? kernel=3 stride=1x1x2 pad=1",
           "ic=24 oc=64 in=36x36 kernel=1 bias=1 layout=channels_first",
           "n=? ic=16 oc=40 in=?x? kernel=1 layout=channels_first",
           "ic=100 oc=64 in=?x? kernel=1",
           "ic=96 oc=256 in=?x? kernel=3 pad=1",
           "ic=3 oc=24 in=?x? kernel=3 stride=2 pad=1",
           "ic=40 oc=100 in=? kernel=9 pad=4",
           "n=2 ic=3 oc=20 in=24x26 kernel=3 pad=1 residual=1 activation=relu layout=channels_first",
           "ic=4 oc=24 in=5x8x16 kernel=3 pad=1 layout=channels_first",
           // Strides with many residues, patches read side by side, and panels that the channels do not fill.
           "ic=3 oc=200 in=32x48 kernel=16 stride=16",
           "n=2 ic=3 oc=20 in=24x24 kernel=4 stride=4 bias=1 activation=relu residual=1",
           "n=? ic=2 oc=9 in=?x20 kernel=3x5 stride=2x5 pad=1x0",
           "ic=5 oc=7 in=6x8x8 kernel=2 stride=2 type=f16",
           "ic=20 oc=24 in=30x31 kernel=5 stride=4 pad=1",
           "n=? ic=20 oc=24 in=?x? kernel=6x5 stride=4 dilation=1x3 pad=2:1",
           "ic=40 oc=40 groups=40 in=20x20 kernel=5 stride=4 pad=1",
           "op=transposed ic=24 oc=20 in=40 kernel=20 stride=12 pad=4 bias=1 activation=gelu save=pre",
           "op=convolution ic=6 oc=9 in=20x20x9 kernel=3x2x3 stride=3x4x2 pad=1 border=replicate",
           "op=local ic=5 oc=6 in=20x23 kernel=3x5 stride=4x5 pad=1",
           "ic=20 oc=24 in=30x30 kernel=3 stride=4",
           "op=transposed ic=24 oc=20 in=7x7 kernel=3 stride=4 bias=1",
           "groups=24 ic=24 oc=24 in=?x? kernel=5 stride=7",
           "op=convolution ic=9 oc=5 in=60000 kernel=2 stride=50000",
           "ic=20 oc=24 in=30x31 kernel=3x4 stride=6x8 dilation=4x3 pad=2",
           "ic=12 oc=12 in=150x140 kernel=1 stride=100",
           "ic=20 oc=24 in=30x31 kernel=5 stride=4 dilation=2 pad=-1:3 layout=channels_first",
           "ic=128 oc=130 in=9x9 kernel=3 pad=1 bias=1 activation=relu",
           "n=? ic=2 oc=3 in=?x? kernel=3 stride=4 pad=1:0 bias=1",
           "ic=3 oc=4 in=30x50 kernel=3 stride=2 pad=1 border=wrap bias=1 activation=relu",
           "op=transposed ic=2 oc=3 groups=1 in=?x?x? kernel=3x2x4 stride=1x2x3 pad=1 bias=1",
           "op=dense n=5 ic=16 in=12x12 oc=70 bias=1",
           "op=transposed ic=150 oc=100 in=6x7 kernel=3 stride=2 pad=1 bias=1 layout=channels_first",  // packed within a training step
           // How many images or positions there are, known only when run: few and many, and strips of images.
           "n=? ic=128 oc=136 in=12x13 kernel=3 pad=1 bias=1 activation=relu",
           "ic=136 oc=120 in=?x? kernel=3 stride=2 pad=1",
           "n=? ic=6 oc=9 in=12x12 kernel=3 pad=1 bias=1",
           "n=? ic=24 oc=24 groups=24 in=9x10 kernel=3 pad=1",
           "n=? ic=5 oc=24 in=60 kernel=5 layout=channels_first",
           "op=dense n=? ic=30 in=7 oc=41 bias=1 activation=relu",
           "op=dense n=? ic=64 in=6x6 oc=70",
           "n=20 op=dense ic=64 in=6x6 oc=70 layout=channels_first",
           // Channels first, each filtered by itself: images of a group each.
           "n=2 ic=24 oc=24 groups=24 in=15x14 kernel=3 pad=1 bias=1 activation=relu residual=1 layout=channels_first",
           "ic=40 oc=40 groups=40 in=?x? kernel=5 stride=2 pad=2 layout=channels_first bias=1",
           "op=transposed ic=12 oc=12 groups=12 in=7x7 kernel=4 stride=2 pad=1 layout=channels_first type=f16",
           "ic=20 oc=20 groups=20 in=40 kernel=5 dilation=2 pad=4 border=reflect layout=channels_first activation=gelu",
           "ic=9 oc=9 groups=9 in=6x8x12 kernel=3 pad=1 border=wrap layout=channels_first save=pre activation=tanh",
           "n=3 ic=70 oc=70 groups=70 in=7x7 kernel=5 pad=2 layout=channels_first",
       })
    list.push_back(Problem::parse(text));
  gate_all(list, {});
}

TEST(Gate, KnobsAtTheirExtremes) {
  std::vector<Problem> list;
  for (const char *text : {
           "ic=5 oc=19 in=13x17 kernel=3x2 stride=2x1 pad=1 bias=1",
           "ic=9 oc=16 groups=1 in=40 kernel=5 dilation=2 pad=3:1",
           "ic=16 oc=16 groups=16 in=24x24 kernel=3 pad=1",
           "op=local n=3 ic=2 oc=9 in=9x11 kernel=3x2 stride=2x1 pad=1",
           "n=2 ic=5 oc=19 in=13x17 kernel=1 layout=channels_first",
           "ic=6 oc=19 in=13x9 kernel=3x2 pad=1 type=u8s8 out_type=s8",
           "n=? ic=5 oc=19 in=?x? kernel=3x2 stride=2x1 pad=1",
       })
    list.push_back(Problem::parse(text));
  GateOptions o;
  o.extremes = true;
  o.seed = test_seed();
  std::cout << fmt::format("CONVSMITH_SEED={}\n", o.seed);
  if (!std::getenv("CONVSMITH_LONG")) o.every = 4;
  gate_all(list, o);
}

// Without the generated assertions, as libraries are emitted.
TEST(Gate, WithoutAssertions) {
  std::vector<Problem> list;
  for (const char *text : {"in=6x8 kernel=1x2", "ic=3 oc=5 in=9x7 kernel=3 pad=1 bias=1 activation=relu", "ic=16 oc=16 in=12x12 kernel=1"})
    list.push_back(Problem::parse(text));
  GateOptions o;
  o.assertions = false;
  gate_all(list, o);
}

}  // namespace
}  // namespace convsmith
