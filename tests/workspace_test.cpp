// Memory that kernels ask for: bounded by what `workspace` says, returned, and missed without a crash.
#include "emitted.h"
#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>

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
    for (std::int64_t peak = c.peak; peak < out && !c.peak.compare_exchange_weak(peak, out);) {}
    return memory + 64;
  }
  static void release(void *user, void *memory) {
    char *start = static_cast<char *>(memory) - 64;
    static_cast<Counter *>(user)->now -= std::int64_t(*reinterpret_cast<std::size_t *>(start));
    std::free(start);
  }
  convsmith_allocator allocator() { return {allocate, release, this}; }
};

Library layers() {
  return emitted("workspace",
                 {kernel("large", "forward,input_gradient,weight_gradient", "ic=64 oc=64 in=56x56 kernel=3 pad=1"),
                  kernel("strided", "forward,input_gradient,weight_gradient", "ic=32 oc=40 n=3 in=27x29 kernel=3 stride=2 pad=1"),
                  kernel("solid", "forward,input_gradient,weight_gradient", "ic=16 oc=16 in=12x28x28 kernel=3 pad=1"),
                  kernel("step", "train_step", "ic=8 oc=16 in=40x40 kernel=3 pad=1 bias=1")},
                 "host")
      .open();
}

TEST(Workspace, HoldsForEveryPassAndNumberOfThreads) {
  const Library library = layers();
  Counter counter;
  const convsmith_allocator allocator = counter.allocator();
  library.table().set_allocator(&allocator);
  std::int64_t asked = 0;
  for (const Pass &pass : library.passes())
    for (int threads : {1, 2, 4}) {
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

TEST(Workspace, IsMissedWithoutACrash) {
  const Library library = layers();
  int missed = 0;
  for (const Pass &pass : library.passes()) {
    for (int threads : {1, 2}) {
      library.set_threads(threads);
      for (std::int64_t refused : {0, 1, 2, 3}) {
        Counter counter;
        counter.refused = refused;
        const convsmith_allocator allocator = counter.allocator();
        library.table().set_allocator(&allocator);
        Call call(library, pass.kernel(), pass.name());
        const convsmith_status status = call.run();
        if (counter.requests > refused) {
          EXPECT_EQ(status, CONVSMITH_OUT_OF_MEMORY) << pass.title();
          EXPECT_STREQ(call.error.message, ("workspace_" + pass.kernel() + "_" + pass.name() + ": out of memory").c_str());
          missed++;
        } else {
          EXPECT_EQ(status, CONVSMITH_OK) << call.error.message;
        }
        EXPECT_EQ(counter.now, 0) << pass.title();
        library.table().set_allocator(nullptr);
      }
    }
  }
  EXPECT_GT(missed, 10);
}

}  // namespace
}  // namespace convsmith
