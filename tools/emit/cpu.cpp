#include "library.h"
#include <fmt/format.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace convsmith {

std::string this_cpu() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  __get_cpuid(0, &a, &b, &c, &d);
  const char *vendor = b == 0x68747541 ? "amd" : b == 0x756e6547 ? "intel" : "x86";
  __get_cpuid(1, &a, &b, &c, &d);
  const unsigned base = (a >> 8) & 15, family = base == 15 ? base + ((a >> 20) & 255) : base;
  const unsigned model = ((a >> 4) & 15) + (base >= 6 ? (a >> 12) & 0xf0 : 0);
  return fmt::format("{}-{}-{}", vendor, family, model);
#else
  return "*";
#endif
}

}  // namespace convsmith
