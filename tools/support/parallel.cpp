#include "tools/support/parallel.h"
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace convsmith {

void in_parallel(std::size_t count, const std::function<void(std::size_t)> &job) {
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex lock;
  auto work = [&] {
    for (std::size_t i; (i = next++) < count;) try {
        job(i);
      } catch (...) {
        std::lock_guard held(lock);
        if (!failure) failure = std::current_exception();
        next = count;
      }
  };
  std::vector<std::thread> threads;
  for (std::size_t t = 1; t < std::min<std::size_t>(count, std::max(1u, std::thread::hardware_concurrency())); t++) threads.emplace_back(work);
  work();
  for (auto &t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace convsmith
