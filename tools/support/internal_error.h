// A fault of our own, not of what we were given.
#pragma once
#include <stdexcept>

namespace convsmith {

/// A fault of ours, not of the input: exit status 3.
class InternalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace convsmith
