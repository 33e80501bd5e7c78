// Jobs that wait for child processes, as many at once as the machine has processors.
#pragma once
#include <cstddef>
#include <functional>

namespace convsmith {

/// Calls job(0) … job(count-1), in this order but several at a time. The first exception ends it, once those that have begun
/// are over, and is thrown again.
void in_parallel(std::size_t count, const std::function<void(std::size_t)> &job);

}  // namespace convsmith
