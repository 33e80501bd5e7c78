// The thread pool of every emitted library (tools/emit/threads.c), by itself: its text, with what it takes from
// c_layer.c.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
constexpr bool forks = false;  // the sanitizer takes no new threads in a child
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"  // of fences; all that the pool's order is atomic, so nothing false comes of it
#endif
#else
constexpr bool forks = true;
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool instrumented = true;
#else
constexpr bool instrumented = false;
#endif

namespace convsmith {
namespace {

using task_function = int (*)(void *call, int index, std::uint8_t *closure);
std::int32_t the_threads = -1;
bool the_parallel_for = false;
int callers_do_par_for(void *, task_function, int, int size, std::uint8_t *) { return -size; }

// One in so many of the pool's steps comes after a pause, so that threads meet where they seldom do, on a machine of
// one processor too. 0: none.
std::atomic<unsigned> shaken = 0;

void shake(unsigned seldom = 1) {
  thread_local std::mt19937 random{unsigned(gettid())};
  const unsigned one_in = seldom * shaken.load(std::memory_order_relaxed);
  if (one_in == 0 || random() % one_in != 0) return;
  if (random() % 2) std::this_thread::sleep_for(std::chrono::microseconds(random() % 50));
  else std::this_thread::yield();
}

// Loads that are not relaxed are those of who waits, thousands before a sleep.
#define __atomic_load_n(from, order) (shake((order) == __ATOMIC_RELAXED ? 1 : 128), __atomic_load_n(from, order))
#define __atomic_store_n(...) (shake(), __atomic_store_n(__VA_ARGS__))
#define __atomic_exchange_n(...) (shake(), __atomic_exchange_n(__VA_ARGS__))
#define __atomic_compare_exchange_n(...) (shake(), __atomic_compare_exchange_n(__VA_ARGS__))
#define __atomic_fetch_add(...) (shake(), __atomic_fetch_add(__VA_ARGS__))
#define __atomic_fetch_sub(...) (shake(), __atomic_fetch_sub(__VA_ARGS__))
#define __atomic_sub_fetch(...) (shake(), __atomic_sub_fetch(__VA_ARGS__))
#define pthread_cond_wait(...) (shake(), pthread_cond_wait(__VA_ARGS__))
#define pthread_mutex_lock(...) (shake(), pthread_mutex_lock(__VA_ARGS__))
#include "tools/emit/threads.c"
#undef __atomic_load_n
#undef __atomic_store_n
#undef __atomic_exchange_n
#undef __atomic_compare_exchange_n
#undef __atomic_fetch_add
#undef __atomic_fetch_sub
#undef __atomic_sub_fetch
#undef pthread_cond_wait
#undef pthread_mutex_lock

using Clock = std::chrono::steady_clock;

void set_threads(int threads) { __atomic_store_n(&the_threads, threads, __ATOMIC_RELEASE); }

struct Threads : testing::Test {
  ~Threads() override {
    shaken = 0;
    end_threads();
    the_parallel_for = false;
  }
};

// A loop and what its tasks did, in plain numbers: a task that the pool does not order before the loop's end is a data
// race, which the thread sanitizer sees. It outlives its loop, so that a task that comes too late is seen too.
struct Loop {
  Loop(int first, int count) : min(first), runs(std::size_t(std::max(count, 0))), threads(runs.size()) {}

  int run(std::function<int(int)> body = {}) {
    task = std::move(body);
    const int status = halide_do_par_for(this, step, min, int(runs.size()), reinterpret_cast<std::uint8_t *>(this));
    over = true;
    return status;
  }
  // Whether each task ran once and nothing else did.
  bool once() const {
    return late == 0 && astray == 0 && std::all_of(runs.begin(), runs.end(), [](int count) { return count == 1; });
  }
  std::size_t different_threads() const {
    auto ids = threads;
    std::sort(ids.begin(), ids.end());
    return std::size_t(std::unique(ids.begin(), ids.end()) - ids.begin());
  }

  static int step(void *call, int index, std::uint8_t *closure) {
    Loop &loop = *reinterpret_cast<Loop *>(closure);
    if (loop.over) loop.late++;
    const std::int64_t i = std::int64_t(index) - loop.min;
    if (call != closure || i < 0 || i >= std::int64_t(loop.runs.size())) return loop.astray++, 0;
    loop.runs[std::size_t(i)]++;
    loop.threads[std::size_t(i)] = std::this_thread::get_id();
    return loop.task ? loop.task(index) : 0;
  }

  const int min;
  std::vector<int> runs;
  std::vector<std::thread::id> threads;
  std::function<int(int)> task;
  std::atomic<bool> over = false;
  std::atomic<int> late = 0, astray = 0;
};

// Tasks, one a thread, that all wait for each other: a worker that is not there, or is not woken, stops them.
bool all_meet(int threads) {
  std::atomic<int> here = 0;
  const auto start = Clock::now();
  Loop loop(0, threads);
  const int status = loop.run([&](int) {
    here++;
    for (int turn = 1; here < threads; turn++) {
      if (turn % 64 == 0) std::this_thread::yield();
      if (turn % 65536 == 0 && Clock::now() - start > std::chrono::seconds(10)) return 1;
    }
    return 0;
  });
  return status == 0 && loop.once() && loop.different_threads() == std::size_t(threads);
}

// Nothing, less than workers look for the next loop, about as long, or until all of them sleep.
void pause(std::mt19937 &random) {
  const auto end = Clock::now() + std::chrono::nanoseconds(random() % 80'000);
  switch (random() % 4) {
    case 0:
      return;
    case 1:
      return std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
    default:
      while (Clock::now() < end) rest();
  }
}

int threads_of_this_process() {
  int count = 0;
  for ([[maybe_unused]] auto &entry : std::filesystem::directory_iterator("/proc/self/task")) count++;
  return count;
}

// A thread that was joined may be listed for a moment yet.
bool becomes(int threads) {
  for (int i = 0; i < 2000 && threads_of_this_process() != threads; i++)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return threads_of_this_process() == threads;
}

TEST_F(Threads, RunEachTaskOnce) {
  for (int threads = 1; threads <= 8; threads++) {
    set_threads(threads);
    for (const int size : {-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64, 1000})
      for (const int min : {0, 1, -7, 1'000'000, INT32_MAX - 1000, INT32_MIN}) {
        Loop loop(min, size);
        ASSERT_EQ(loop.run(), 0);
        ASSERT_TRUE(loop.once()) << size << " tasks from " << min << " by " << threads << " threads";
      }
  }
}

TEST_F(Threads, AllTakePart) {
  for (int threads = 1; threads <= 8; threads++) {
    set_threads(threads);
    ASSERT_TRUE(all_meet(threads)) << threads;
    EXPECT_EQ(the_workers, threads - 1);
  }
}

TEST_F(Threads, RunLoopsOneAfterAnother) {
  std::mt19937 random(1);
  std::vector<std::unique_ptr<Loop>> loops;
  for (const int threads : {2, 3, 8}) {
    set_threads(threads);
    for (int i = 0; i < 4000; i++) {
      const int size = int(1 + random() % (i % 8 ? 12 : 200)), min = int(random() % 100) - 50;
      const bool works = random() % 4 == 0;
      loops.push_back(std::make_unique<Loop>(min, size));
      std::atomic<int> sum = 0;
      ASSERT_EQ(loops.back()->run([&](int index) {
        for (int turn = 0; works && turn < index % 50 * 20; turn++) rest();
        return sum += index, 0;
      }),
                0);
      ASSERT_EQ(sum, size * min + size * (size - 1) / 2) << "loop " << i << " by " << threads << " threads";
      ASSERT_TRUE(loops.back()->once()) << "loop " << i << " by " << threads << " threads";
      if (i % 2) pause(random);
    }
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (auto &loop : loops) ASSERT_TRUE(loop->once()) << "a task ran after its loop's end";
}

TEST_F(Threads, WakeUpWheneverTheyFellAsleep) {
  std::mt19937 random(2);
  for (const int threads : {2, 3, 6}) {
    set_threads(threads);
    for (int i = 0; i < 500; i++) {
      ASSERT_TRUE(all_meet(threads)) << "loop " << i << " by " << threads << " threads";
      pause(random);
    }
  }
}

// Whatever a thread is about to do when another goes on.
TEST_F(Threads, AreHeldUpAnywhere) {
  std::mt19937 random(8);
  std::vector<std::unique_ptr<Loop>> loops;
  for (const int threads : {2, 4})
    for (const unsigned one_in : {3u, 10u, 30u}) {
      set_threads(threads);
      shaken = one_in;
      for (int i = 0; i < 500; i++) {
        loops.push_back(std::make_unique<Loop>(i, 2 + int(random() % 6)));
        const int bad = i % 8 == 0 ? i : -1;
        ASSERT_EQ(loops.back()->run([&](int index) { return index == bad ? 3 : 0; }), bad == i ? 3 : 0);
        ASSERT_TRUE(loops.back()->once()) << "loop " << i << " by " << threads << " threads";
        if (i % 4 != 0) continue;
        ASSERT_TRUE(all_meet(threads)) << "loop " << i << " by " << threads << " threads";
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 400));
      }
    }
  shaken = 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (auto &loop : loops) ASSERT_TRUE(loop->once()) << "a task ran after its loop's end";
}

TEST_F(Threads, CallersAtTheSameTimeShareThemNot) {
  set_threads(4);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (unsigned c = 0; c < 4; c++)
    callers.emplace_back([&, c] {
      std::mt19937 random(3 + c);
      for (int i = 0; i < 1000; i++) {
        Loop loop(int(c), int(random() % 20));
        if (loop.run() != 0 || !loop.once()) wrong++;
        if (i % 4 == 0) pause(random);
      }
    });
  for (auto &caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(all_meet(4)) << "the pool is free again";
}

TEST_F(Threads, ALoopWithinATaskIsItsOwn) {
  set_threads(4);
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 100; i++) {
    Loop outer(0, 6);
    ASSERT_EQ(outer.run([&](int o) {
      Loop inner(o, 5);
      const int status = inner.run([&](int k) {
        Loop innermost(k, 3);
        if (innermost.run() != 0 || !innermost.once() || innermost.different_threads() != 1) wrong++;
        return 0;
      });
      if (status != 0 || !inner.once() || inner.different_threads() != 1) wrong++;
      return 0;
    }),
              0);
    ASSERT_TRUE(outer.once());
  }
  EXPECT_EQ(wrong, 0);
  // A loop of one task leaves the pool to the loop within.
  Loop outer(0, 1);
  EXPECT_EQ(outer.run([](int) { return all_meet(4) ? 0 : 1; }), 0);
}

TEST_F(Threads, ReturnTheFirstStatusThatIsNotZero) {
  set_threads(3);
  for (int bad = 0; bad < 20; bad++) {
    Loop loop(0, 20);
    EXPECT_EQ(loop.run([&](int index) { return index == bad ? 7 + bad : 0; }), 7 + bad);
    EXPECT_TRUE(loop.once()) << "the other tasks run all the same";
    EXPECT_EQ(Loop(0, 20).run(), 0) << "the next loop knows nothing of it";
  }
  Loop all(0, 20);
  const int status = all.run([](int index) { return -1 - index; });
  EXPECT_TRUE(all.once() && status >= -20 && status <= -1) << status;
  // Another status comes only when the first is there.
  Loop two(0, 2);
  EXPECT_EQ(two.run([](int index) {
    while (index == 1 && __atomic_load_n(&the_loop.status, __ATOMIC_ACQUIRE) == 0) std::this_thread::yield();
    return index == 0 ? 5 : 6;
  }),
            5);
  // By one thread, nothing is done after it.
  set_threads(1);
  Loop one(0, 20);
  EXPECT_EQ(one.run([](int index) { return index == 4 || index == 6 ? index : 0; }), 4);
  EXPECT_EQ(std::count(one.runs.begin(), one.runs.end(), 1), 5);
}

TEST_F(Threads, TheirNumberChangesBetweenLoops) {
  const int others = threads_of_this_process();
  std::mt19937 random(4);
  for (int i = 0; i < 200; i++) {
    const int threads = int(2 + random() % 7);
    set_threads(threads);
    if (i % 3) pause(random);
    ASSERT_TRUE(i % 2 ? all_meet(threads) : Loop(0, 50).run() == 0) << threads;
    ASSERT_EQ(the_workers, threads - 1);
  }
  set_threads(1);
  Loop serial(0, 10);
  EXPECT_EQ(serial.run(), 0);
  EXPECT_EQ(serial.different_threads(), 1u);
  end_threads();
  EXPECT_EQ(the_workers, 0);
  EXPECT_TRUE(becomes(others));
  end_threads();
  set_threads(3);
  EXPECT_TRUE(all_meet(3)) << "they begin anew";
}

TEST_F(Threads, EndWhateverTheyDo) {
  const int others = threads_of_this_process();
  std::mt19937 random(5);
  for (int i = 0; i < 200; i++) {
    set_threads(int(2 + random() % 5));
    ASSERT_EQ(Loop(0, 1 + i % 7).run(), 0);
    pause(random);
    end_threads();
    ASSERT_EQ(the_workers, 0);
  }
  EXPECT_TRUE(becomes(others));
}

TEST_F(Threads, LeaveTheLoopToTheCallersOwn) {
  the_parallel_for = true;
  set_threads(4);
  EXPECT_EQ(Loop(0, 5).run(), -5);
  EXPECT_EQ(run_loop(nullptr, nullptr, 6), -6);
  EXPECT_EQ(the_workers, 0);
}

TEST_F(Threads, RunACallersOwnLoop) {
  set_threads(3);
  std::vector<int> runs(1000);
  const auto body = [](void *context, std::int32_t i) { return (*static_cast<std::vector<int> *>(context))[std::size_t(i)]++, 0; };
  EXPECT_EQ(run_loop(body, &runs, 1000), 0);
  EXPECT_EQ(runs, std::vector<int>(1000, 1));
  EXPECT_EQ(run_loop(body, nullptr, 0), 0);
  EXPECT_EQ(run_loop([](void *, std::int32_t i) { return int(i == 4) * 77; }, nullptr, 9), 77);
}

// So that a core finds again what it had in its cache. Each thread's first task waits for the others' to begin.
TEST_F(Threads, BeginWithTheirOwnShare) {
  set_threads(3);
  ASSERT_TRUE(all_meet(3));
  for (const auto &[size, begins] : {std::pair(12, std::set{0, 4, 8}), std::pair(7, std::set{0, 2, 4}), std::pair(3, std::set{0, 1, 2})}) {
    std::mutex lock;
    std::map<std::thread::id, int> first;
    std::atomic<int> here = 0;
    const auto start = Clock::now();
    Loop loop(0, size);
    ASSERT_EQ(loop.run([&](int i) {
      {
        const std::lock_guard held(lock);
        if (first.emplace(std::this_thread::get_id(), i).second) here++;
      }
      while (here < 3)
        if (Clock::now() - start > std::chrono::seconds(10)) return 1;
        else std::this_thread::yield();
      return 0;
    }),
              0);
    EXPECT_TRUE(loop.once());
    EXPECT_EQ(first[std::this_thread::get_id()], 0);
    std::set<int> firsts;
    for (auto &[thread, i] : first) firsts.insert(i);
    EXPECT_EQ(firsts, begins) << size;
  }
}

TEST_F(Threads, LeaveSignalsToTheCaller) {
  set_threads(2);
  std::atomic<int> blocked = 0;
  const auto caller = std::this_thread::get_id();
  ASSERT_TRUE(all_meet(2));
  std::atomic<int> here = 0;
  ASSERT_EQ(Loop(0, 2).run([&](int) {
    here++;
    while (here < 2) std::this_thread::yield();
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    if ((std::this_thread::get_id() == caller) == (sigismember(&mask, SIGINT) == 0)) blocked++;
    return 0;
  }),
            0);
  EXPECT_EQ(blocked, 2);
}

// What a child process does; its exit status. One that hangs is ended by the alarm.
int in_a_child(const std::function<bool()> &work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    _exit(work() ? 0 : 1);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(Threads, AreNotTheChildsAfterAFork) {
  if (!forks) GTEST_SKIP() << "not with this sanitizer";
  std::mt19937 random(6);
  set_threads(4);
  for (int i = 0; i < 20; i++) {
    ASSERT_TRUE(all_meet(4));
    if (i % 2) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // all asleep
    else pause(random);
    const auto several_loops = [&] {
      for (int k = 0; k < 40; k++) {
        if (!all_meet(4)) return false;
        pause(random);
      }
      end_threads();
      return the_workers == 0 && becomes(1);
    };
    ASSERT_EQ(in_a_child(several_loops), 0) << "fork " << i;
    ASSERT_EQ(in_a_child([] { return true; }), 0);
    ASSERT_TRUE(all_meet(4)) << "the parent's go on";
  }
  // A child of a child, and one that ends the usual way.
  ASSERT_EQ(in_a_child([&] { return all_meet(3) && in_a_child([] { return all_meet(4); }) == 0 && all_meet(4); }), 0);
  EXPECT_TRUE(instrumented || in_a_child([]() -> bool { std::exit(Loop(0, 9).run()); }) == 0);
}

TEST_F(Threads, AForkWhileOthersFallAsleepOrWakeUp) {
  if (!forks) GTEST_SKIP() << "not with this sanitizer";
  set_threads(4);
  std::atomic<bool> stop = false;
  std::thread caller([&] {
    std::mt19937 random(7);
    while (!stop) {
      Loop(0, 8).run();
      pause(random);
    }
  });
  for (int i = 0; i < 60; i++) {
    const int status = in_a_child([] {
      for (int k = 0; k < 20; k++) {
        Loop loop(0, 9);
        if (loop.run() != 0 || !loop.once()) return false;
        if (k % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
      }
      return true;
    });
    EXPECT_EQ(status, 0) << "fork " << i;
    if (status != 0) break;
  }
  stop = true;
  caller.join();
}

TEST_F(Threads, ALoopEndsWhereNoneCanBeStarted) {
  if (instrumented) GTEST_SKIP() << "the sanitizer's own memory passes the limit";
  const int status = in_a_child([] {
    std::ifstream file("/proc/self/statm");
    rlim_t pages = 0;
    file >> pages;
    rlimit limit{};
    limit.rlim_cur = limit.rlim_max = pages * rlim_t(sysconf(_SC_PAGESIZE)) + (rlim_t{4} << 20);  // less than a stack
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    set_threads(1000);
    for (int i = 0; i < 10; i++) {
      Loop loop(0, 100);
      if (loop.run() != 0 || !loop.once() || the_workers > 100) return false;
    }
    return true;
  });
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace convsmith
