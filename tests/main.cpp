// The tests' own main: compiles kernels in child processes of itself, as the command does.
#include "tools/emit/kernel_job.h"
#include <cstdlib>
#include <gtest/gtest.h>
#include <string_view>

int main(int argc, char **argv) {
  if (argc == 2 && std::string_view(argv[1]) == "kernel-worker") return convsmith::kernel_worker();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
