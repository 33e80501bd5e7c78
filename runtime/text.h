// Numbers in messages. Private to the run-time.
#pragma once
#include <cstdio>
#include <string>

namespace convsmith {

/// Six significant digits, as %g prints them.
inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

}  // namespace convsmith
