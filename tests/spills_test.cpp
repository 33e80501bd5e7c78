// The hot loops of the schedules keep their sums in registers: with AVX-512, for which the presets are tuned first, no vector
// goes to the stack and back; elsewhere no more than one for every four multiply-adds, in the loops at the borders.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <algorithm>
#include <map>
#include <regex>
#include <sstream>
#include "convsmith/file.h"
#include "tools/emit/kernel_job.h"
#include "tools/support/temporary_folder.h"

namespace convsmith {
namespace {

struct Loop {
  size_t first, last;  // lines
  int multiply_adds = 0, spilled = 0;
};

// The loops of an assembly that hold no other: from a label to a jump back to it.
std::vector<Loop> innermost_loops(const std::string &assembly, bool arm) {
  const std::regex label(R"(^(\.LBB\w+):)"), jump(arm ? R"(^\s+(b|b\.\w+|cbn?z|tbn?z)\s.*(\.LBB\w+))" : R"(^\s+(j\w+)\s+(\.LBB\w+))");
  std::vector<std::string> lines;
  std::map<std::string, size_t> labels;
  std::vector<Loop> loops;
  std::istringstream text(assembly);
  for (std::string line; std::getline(text, line);) {
    std::smatch found;
    if (std::regex_search(line, found, label)) labels[found[1]] = lines.size();
    else if (std::regex_search(line, found, jump) && labels.count(found[2])) loops.push_back({labels[found[2]], lines.size()});
    lines.push_back(line);
  }
  std::vector<Loop> innermost;
  for (Loop loop : loops) {
    if (std::any_of(loops.begin(), loops.end(), [&](const Loop &o) {
          return (o.first != loop.first || o.last != loop.last) && o.first >= loop.first && o.last <= loop.last;
        }))
      continue;
    for (size_t i = loop.first; i <= loop.last; i++) {
      const std::string code = lines[i].substr(0, lines[i].find(arm ? "//" : "#"));
      loop.multiply_adds += code.find(arm ? "\tfmla\t" : "vfmadd") != std::string::npos;
      const bool vector = arm ? std::regex_search(code, std::regex(R"(\sq\d+,)")) : code.find("mm") != std::string::npos;
      const bool stack = arm ? code.find("[sp") != std::string::npos : code.find("(%rsp") != std::string::npos;
      loop.spilled += vector && stack;
    }
    innermost.push_back(loop);
  }
  return innermost;
}

struct HotLoop {
  const char *problem, *pass, *schedule;
  int multiply_adds;  // at least, in the largest of the innermost loops
};

std::ostream &operator<<(std::ostream &out, const HotLoop &h) { return out << h.pass << " of \"" << h.problem << "\""; }

class Spills : public testing::TestWithParam<HotLoop> {};

TEST_P(Spills, SumsStayInRegisters) {
  const HotLoop &h = GetParam();
  for (const char *target : {"x86-64-avx512", "x86-64-avx2", "arm-64"}) {
    const TemporaryFolder folder;
    KernelJob job;
    job.problem = h.problem, job.pass = h.pass, job.target = target, job.cpu = "*";
    job.function = "kernel", job.object = folder / "kernel.o", job.assembly = folder / "kernel.s";
    EXPECT_EQ(compile_kernel(job).schedule, h.schedule);
    int most = 0;
    for (const Loop &loop : innermost_loops(read_file(job.assembly), job.target == "arm-64")) {
      EXPECT_LE(loop.multiply_adds ? loop.spilled : 0, job.target == "x86-64-avx512" ? 0 : loop.multiply_adds / 4)
          << target << ": " << loop.spilled << " of vectors in a loop of " << loop.multiply_adds << " multiply-adds, line " << loop.first;
      most = std::max(most, loop.multiply_adds);
    }
    EXPECT_GE(most, h.multiply_adds) << target;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Schedules, Spills,
    testing::Values(HotLoop{"ic=64 oc=64 in=56x56 kernel=3 pad=1", "forward", "cpu_direct", 12},
                    HotLoop{"ic=64 oc=64 in=56x56 kernel=3 pad=1", "input_gradient", "cpu_direct", 12},
                    HotLoop{"ic=64 oc=256 in=56x56 kernel=1", "forward", "cpu_direct", 12},
                    HotLoop{"ic=64 oc=64 in=56x56 kernel=3 pad=1", "weight_gradient", "cpu_partial_sums", 12},
                    HotLoop{"ic=32 oc=32 groups=32 in=112x112 kernel=3 pad=1", "forward", "cpu_direct", 32},
                    HotLoop{"ic=32 oc=32 groups=32 in=112x112 kernel=3 pad=1", "weight_gradient", "cpu_partial_sums", 9},
                    HotLoop{"in=512x512 kernel=5 pad=2", "forward", "cpu_direct", 40},
                    HotLoop{"in=512x512 kernel=5 pad=2", "weight_gradient", "cpu_lane_sums", 20}));

TEST(SpillsTest, SeesWhatItLooksFor) {
  const std::string body = "\tvmovups\t%ymm1, 32(%rsp)\n\tvfmadd231ps\t%ymm0, %ymm1, %ymm2\n";
  const auto one = innermost_loops(".LBB0_1:\n.LBB0_2:\n" + body + "\tjne\t.LBB0_2\n\tjmp\t.LBB0_1\n", false);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].multiply_adds, 1);
  EXPECT_EQ(one[0].spilled, 1);
  const auto arm = innermost_loops(".LBB0_2:\n\tldr\tq3, [sp, #16]\n\tfmla\tv1.4s, v2.4s, v3.s[0]\n\tb.ne\t.LBB0_2\n", true);
  ASSERT_EQ(arm.size(), 1u);
  EXPECT_EQ(arm[0].multiply_adds, 1);
  EXPECT_EQ(arm[0].spilled, 1);
}

}  // namespace
}  // namespace convsmith
