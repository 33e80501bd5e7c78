// The one exception of the C++ interface.
#pragma once
#include <stdexcept>
#include <string>

namespace convsmith {

/// What failed, what was expected and what came, in one line, with the problem text where there is one.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace convsmith
