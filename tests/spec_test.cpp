// The sets of bench/sets: each parses, and each of its kernels can be had.
#include <gtest/gtest.h>
#include <filesystem>
#include "convsmith/file.h"
#include "tools/emit/library.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

TEST(Spec, EverySetParses) {
  int sets = 0;
  for (auto &entry : fs::directory_iterator(CONVSMITH_SOURCE "/bench/sets")) {
    const std::string path = entry.path().string();
    SCOPED_TRACE(path);
    EXPECT_EQ(entry.path().extension(), ".spec");
    EXPECT_TRUE(read_file(path).starts_with("#")) << "the first line says what the set is";
    std::vector<KernelRequest> kernels;
    ASSERT_NO_THROW(kernels = read_spec(path));
    EXPECT_FALSE(kernels.empty());
    for (auto &k : kernels) {
      EXPECT_FALSE(k.passes.empty()) << k.name;
      EXPECT_TRUE(k.weight.empty() && k.schedule.empty()) << k.name;
      for (const PassKind pass : k.passes) EXPECT_NO_THROW(require_available(k.problem, pass)) << k.name;
      EXPECT_EQ(Problem::parse(k.problem.str()).str(), k.problem.str());
      // The command makes its operands.
      EXPECT_GT(k.problem.n, 0) << k.name;
      for (int a = 0; a < k.problem.rank; a++) EXPECT_GT(k.problem.in[a], 0) << k.name;
    }
    sets++;
  }
  EXPECT_GE(sets, 10);
}

}  // namespace
}  // namespace convsmith
