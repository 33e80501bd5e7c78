// The tests' own main: compiles kernels in child processes of itself, as the command does.
#include "stand_in_tools.h"
#include "tools/emit/kernel_job.h"
#include "tools/tune/contestant.h"
#include <cstdlib>
#include <gtest/gtest.h>
#include <string_view>

int main(int argc, char **argv) {
  if (argc == 2 && std::string_view(argv[1]) == "kernel-worker") return convsmith::kernel_worker();
  if (argc == 2 && std::string_view(argv[1]) == "contestant") return convsmith::contestant_worker();
  if (argc == 4 && std::string_view(argv[1]) == "tune-stand-ins") return convsmith::tune_stand_ins(argv[2], argv[3]);
  if (argc == 2 && std::string_view(argv[1]) == "measure-endless") return convsmith::measure_endless();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
