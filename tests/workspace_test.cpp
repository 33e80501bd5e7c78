// Memory that kernels ask for: bounded by what `workspace` says, returned, and missed without a crash.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/resource.h>
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <vector>
#include "emitted.h"

namespace convsmith {
namespace {

// Counts what is out, and refuses the n-th request.
struct Counter {
  std::atomic<std::int64_t> now = 0, peak = 0, requests = 0;
  std::int64_t refused = -1;

  static void *allocate(void *user, std::size_t bytes) {
    auto &c = *static_cast<Counter *>(user);
    if (c.requests++ == c.refused) return nullptr;
    auto *memory = static_cast<char *>(std::aligned_alloc(64, (bytes + 64 + 63) / 64 * 64));
    *reinterpret_cast<std::size_t *>(memory) = bytes;
    const std::int64_t out = c.now += std::int64_t(bytes);
    for (std::int64_t peak = c.peak; peak < out && !c.peak.compare_exchange_weak(peak, out);) {
    }
    return memory + 64;
  }
  static void release(void *user, void *memory) {
    char *start = static_cast<char *>(memory) - 64;
    static_cast<Counter *>(user)->now -= std::int64_t(*reinterpret_cast<std::size_t *>(start));
    std::free(start);
  }
  convsmith_allocator allocator() { return {allocate, release, this}; }
};

// A setting whose blocks of a parallel loop take buffers of different sizes.
KernelRequest uneven() {
  KernelRequest request = kernel("uneven", "weight_gradient",
                                 "op=convolution n=2 ic=32 oc=32 groups=4 in=30x18 kernel=2x3 stride=2x1 pad=3:1x2:0 "
                                 "layout=channels_first");
  request.schedule[PassKind::weight_gradient] = {"cpu_direct", "block=8,0,0,1,0 tile=8,8,1,1,1 trim=1"};
  return request;
}

Library layers() {
  return emitted("workspace",
                 {kernel("large", "forward,input_gradient,weight_gradient", "ic=64 oc=64 in=56x56 kernel=3 pad=1"),
                  kernel("strided", "forward,input_gradient,weight_gradient",
                         "ic=32 oc=40 n=3 in=27x29 kernel=3 stride=2 pad=1"),
                  kernel("border", "forward,weight_gradient", "n=3 in=60x65 kernel=5 pad=2 border=replicate"),
                  kernel("solid", "forward,input_gradient,weight_gradient", "ic=16 oc=16 in=12x28x28 kernel=3 pad=1"),
                  kernel("step", "train_step", "ic=8 oc=16 in=40x40 kernel=3 pad=1 bias=1"), uneven()},
                 "host,x86-64")
      .open();
}

TEST(Workspace, HoldsForEveryPassAndNumberOfThreads) {
  const Library library = layers();
  Counter counter;
  const convsmith_allocator allocator = counter.allocator();
  library.table().set_allocator(&allocator);
  std::int64_t asked = 0;
  for (const std::string &level : library.levels())
    for (const Pass &pass : library.passes())
      for (int threads : {1, 2, 4}) {
        library.set_level(level);
        library.set_threads(threads);
        Call call(library, pass.kernel(), pass.name());
        counter.peak = 0;
        ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
        EXPECT_LE(counter.peak, std::int64_t(pass.workspace(threads))) << pass.title() << " on " << threads;
        EXPECT_EQ(counter.now, 0) << pass.title();
        asked += counter.peak;
      }
  EXPECT_GT(asked, 0);
  library.table().set_allocator(nullptr);
}

// What malloc() gave is kept for the next call: no page of it is asked of the system anew. It goes with the library, or before.
TEST(Workspace, OfTheCallBeforeIsTakenAgain) {
  KernelRequest request = kernel("copies", "weight_gradient", "in=256x256 kernel=3 pad=1");
  request.schedule[PassKind::weight_gradient] = {"cpu_lane_sums", "stage=1 strip=256"};  // of both operands, all of them
  std::optional<Library> library = emitted("copies", {request}, "host").open();
  library->set_threads(1);
  mallopt(M_MMAP_THRESHOLD, 1 << 16);  // from here on malloc() asks the system for each large block, and hands it back
  Call call(*library, "copies", "weight_gradient");
  const auto faults = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  };
  const auto in_use = [] {
    const struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
  };
  const std::size_t bytes = in_use(), kept = 512 * 1024, little = 32 * 1024;
  ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  EXPECT_GT(in_use(), bytes + kept);
  const long before = faults();
  for (int i = 0; i < 20; i++) ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  EXPECT_LT(faults() - before, 20 * 8);
  library->table().set_allocator(nullptr);
  EXPECT_LT(in_use(), bytes + little);
  ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  EXPECT_GT(in_use(), bytes + kept);
  library.reset();
  EXPECT_LT(in_use(), bytes + little);
}

// The first request, the second, one in the middle and the last.
TEST(Workspace, IsMissedWithoutACrash) {
  const Library library = layers();
  int missed = 0;
  for (const Pass &pass : library.passes())
    for (int threads : {1, 2}) {
      library.set_threads(threads);
      Counter all;
      const auto run = [&](Counter &counter) {
        const convsmith_allocator allocator = counter.allocator();
        library.table().set_allocator(&allocator);
        Call call(library, pass.kernel(), pass.name());
        const convsmith_status status = call.run();
        library.table().set_allocator(nullptr);
        EXPECT_EQ(counter.now, 0) << pass.title();
        return std::pair(status, std::string(call.error.message));
      };
      EXPECT_EQ(run(all), std::pair(CONVSMITH_OK, std::string()));
      for (const std::int64_t refused : std::set<std::int64_t>{0, 1, all.requests / 2, all.requests - 1}) {
        if (refused < 0 || refused >= all.requests) continue;
        Counter counter;
        counter.refused = refused;
        EXPECT_EQ(run(counter), std::pair(CONVSMITH_OUT_OF_MEMORY,
                                          "workspace_" + pass.kernel() + "_" + pass.name() + ": out of memory"))
            << "request " << refused << " on " << threads << " threads";
        missed++;
      }
    }
  EXPECT_GT(missed, 10);
}

TEST(Workspace, LayersTouchNothingAroundTheirTensors) {
  const Library library = layers();
  for (const std::string &level : library.levels()) {
    library.set_level(level);
    for (const Pass &pass : library.passes()) {
      Call call(library, pass.kernel(), pass.name());
      const Guards guards(call);
      ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
      EXPECT_TRUE(guards.intact()) << pass.title() << " at " << level;
    }
  }
}

// An allocator of the arena kind: what it gave is taken back all at once.
TEST(Workspace, NeedNotBeReleased) {
  const Library library = layers();
  struct Arena {
    alignas(64) char memory[1 << 20];
    std::atomic<std::size_t> used = 0;
    static void *allocate(void *user, std::size_t bytes) {
      auto &a = *static_cast<Arena *>(user);
      const std::size_t at = a.used.fetch_add((bytes + 63) / 64 * 64);
      return at + bytes <= sizeof a.memory ? a.memory + at : nullptr;
    }
  };
  const auto arena = std::make_unique<Arena>();
  const convsmith_allocator allocator = {Arena::allocate, nullptr, arena.get()};
  library.set_threads(1);
  Call call(library, "step", "train_step");
  library.table().set_allocator(&allocator);
  EXPECT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  library.table().set_allocator(nullptr);
  EXPECT_GT(arena->used, 0u);
}

// Lanes past the channels, whose sums are dropped, multiply zeros and not what memory happens to hold: of numbers too small to be normal
// a product takes some hundred cycles.
TEST(Workspace, IsWrittenBeforeItIsMultiplied) {
  const Library library = emitted("written", {kernel("strips", "weight_gradient", "ic=24 oc=24 in=2000 kernel=9 dilation=4 pad=16"),
                                              kernel("groups", "weight_gradient", "ic=120 oc=120 groups=5 in=28x28 kernel=3 stride=2 pad=1"),
                                              kernel("tail", "weight_gradient", "ic=50 oc=10 in=17x31 kernel=3 pad=1"),
                                              kernel("squares", "weight_gradient", "n=4 ic=16 oc=24 in=20x20 kernel=5 pad=2 layout=channels_first"),
                                              kernel("rows", "input_gradient", "n=3 in=120x130 kernel=5 pad=2 border=replicate")},
                                  "host,x86-64")
                              .open();
  library.set_threads(1);  // whose flags are looked at
  int filled = 0;
  const auto signalling = [](void *user, std::size_t bytes) -> void * {
    constexpr std::uint32_t nan = 0x7fa00000;
    const std::size_t words = (bytes + 63) / 64 * 16;
    auto *memory = static_cast<std::uint32_t *>(std::aligned_alloc(64, words * sizeof nan));
    std::fill_n(memory, words, nan);
    ++*static_cast<int *>(user);
    return memory;
  };
  const convsmith_allocator allocator = {signalling, [](void *, void *memory) { std::free(memory); }, &filled};
  library.table().set_allocator(&allocator);
  for (const std::string &level : library.levels()) {
    library.set_level(level);
    for (const Pass &pass : library.passes()) {
      Call call(library, pass.kernel(), pass.name());
      std::feclearexcept(FE_INVALID);
      EXPECT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
      EXPECT_FALSE(std::fetestexcept(FE_INVALID)) << pass.title() << " at " << level;
    }
  }
  EXPECT_GT(filled, 0);
  library.table().set_allocator(nullptr);
}

// Large layers, in parallel and with workspace, from eight threads at once.
TEST(Workspace, IsEachCallersOwn) {
  const Library library = layers();
  library.set_threads(3);
  for (const char *name : {"forward", "weight_gradient"}) {
    Call first(library, "strided", name);
    ASSERT_EQ(first.run(), CONVSMITH_OK);
    const std::vector<float> wanted = first.results();
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++)
      threads.emplace_back([&] {
        Call call(library, "strided", name);
        for (int i = 0; i < 10; i++) {
          call.result().fill(77);
          wrong += call.run() != CONVSMITH_OK || call.results() != wanted;
        }
      });
    for (auto &t : threads) t.join();
    EXPECT_EQ(wrong, 0) << name;
  }
}

}  // namespace
}  // namespace convsmith
