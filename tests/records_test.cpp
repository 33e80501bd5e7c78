#include "schedules/records.h"
#include "convsmith/error.h"
#include "schedules/levels.h"
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convsmith {
namespace {

const char *const good = "ic=64 oc=64 in=56x56 kernel=3 pad=1 | forward | * | cpu_direct@1 tile=16,6 | gflops=1 halide=21.0.0\n";

Workload workload(const char *problem, PassKind pass = PassKind::forward) {
  return {Problem::parse(problem), pass, parse_targets("x86-64-avx2").at(0)};
}

std::string refusal(const std::string &text) {
  try {
    RecordBook book;
    book.add("x86-64-avx2.rec", text);
  } catch (const Error &e) { return e.what(); }
  return "accepted";
}

TEST(Records, ReadsCommentsAndBlankLines) {
  RecordBook book;
  book.add("x86-64-avx2.rec", std::string("# why\n\n") + good);
  ASSERT_EQ(book.records().size(), 1u);
  EXPECT_EQ(book.records()[0].where, "x86-64-avx2.rec:3");
  EXPECT_EQ(book.records()[0].halide, "21.0.0");
  EXPECT_EQ(book.records()[0].knobs.get("tile", 1, 0), 6);
}

TEST(Records, RefusesWhatItCannotRead) {
  EXPECT_EQ(refusal("nonsense\n"), "x86-64-avx2.rec:1: expected PROBLEM | PASS | CPU | SCHEDULE@VERSION knobs | measured, got 1 fields");
  EXPECT_EQ(refusal("in=8 kernel=3 | sideways | * | reference@1 | \n").substr(0, 44), "x86-64-avx2.rec:1: pass: expected one of for");
  EXPECT_EQ(refusal("kernel=3 in=8 | forward | * | reference@1 | \n"), "x86-64-avx2.rec:1: expected the canonical problem \"in=8 kernel=3\", got \"kernel=3 in=8\"");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward |  | reference@1 | \n"), "x86-64-avx2.rec:1: expected a CPU or *, got nothing");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | reference | \n"), "x86-64-avx2.rec:1: expected SCHEDULE@VERSION, got \"reference\"");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | reference@x | \n"), "x86-64-avx2.rec:1: expected a version after @, got \"x\"");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | reference@9 | \n"), "x86-64-avx2.rec:1: reference@9 is stale: expected version 1");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | cpu_magic@1 | \n").substr(0, 46), "x86-64-avx2.rec:1: schedule: expected one of c");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | cpu_direct@1 tile | \n"), "x86-64-avx2.rec:1: knob: expected NAME=INTEGER[,INTEGER...], got \"tile\"");
  EXPECT_EQ(refusal("in=8 kernel=3 | forward | * | cpu_direct@1 tile=1 tile=2 | \n"), "x86-64-avx2.rec:1: knob tile: given twice");
}

TEST(Records, TheCpusOwnComesBeforeAny) {
  RecordBook book;
  book.add("x86-64-avx2.rec", std::string(good) + "ic=64 oc=64 in=56x56 kernel=3 pad=1 | forward | amd-25-1 | cpu_direct@1 tile=8,6 | \n");
  const Workload w = workload("ic=64 oc=64 in=56x56 kernel=3 pad=1");
  EXPECT_EQ(choose(w, book, "amd-25-1").knobs.get("tile", 0, 0), 8);
  EXPECT_EQ(choose(w, book, "intel-6-143").knobs.get("tile", 0, 0), 16);
  EXPECT_EQ(book.find(workload("ic=64 oc=64 in=56x56 kernel=3 pad=1", PassKind::weight_gradient), "amd-25-1"), nullptr);
  EXPECT_THAT(choose(w, RecordBook(), "amd-25-1").why, testing::HasSubstr("no record"));
}

TEST(Records, AnUnfitKnobIsAnErrorWhenTheLibraryIsBuilt) {
  auto words = [](const char *knobs) -> std::string {
    RecordBook book;
    book.add("x86-64-avx2.rec", fmt::format("in=9x9 kernel=3 | forward | * | {} | \n", knobs));
    try {
      choose(workload("in=9x9 kernel=3"), book, "*");
    } catch (const Error &e) { return e.what(); }
    return "accepted";
  };
  EXPECT_EQ(words("cpu_direct@1 tyle=4"), "schedule cpu_direct: unknown knob \"tyle\", for forward of \"in=9x9 kernel=3\"");
  EXPECT_EQ(words("cpu_direct@1 pad=7"), "schedule cpu_direct: knob pad: entry 0 expected 0 to 2, got 7, for forward of \"in=9x9 kernel=3\"");
  EXPECT_EQ(words("cpu_direct@1 loops=0,0,1,2,3"), "schedule cpu_direct: knob loops: expected a permutation of 0 to 4, got 0,0,1,2,3, for forward of \"in=9x9 kernel=3\"");
  EXPECT_EQ(words("cpu_direct@1 stage=1,1"), "schedule cpu_direct: knob stage: expected at most 1 entries, got 2, for forward of \"in=9x9 kernel=3\"");
  EXPECT_EQ(words("cpu_pointwise@1"), "x86-64-avx2.rec:1: cpu_pointwise does not support this problem");
  EXPECT_EQ(words("cpu_direct@1 tile=7,1,3"), "accepted");
}

TEST(Records, FoldIntoAFile) {
  const auto record = [](const char *problem, const char *cpu, const char *knobs) {
    return Record{"x86-64-avx2", Problem::parse(problem), PassKind::forward, cpu, "cpu_direct", 1, Knobs::parse(knobs), "gflops=2", "21.0.0", ""};
  };
  const std::string head = "# By whom, and why.\n", other = "in=9x9 kernel=3 | forward | * | cpu_direct@1 tile=1 | gflops=1\n";
  const std::string once = fold_records(head + other + good, "x86-64-avx2", {record("in=9x9 kernel=3", "amd-25-1", "tile=8"), record("in=9x9 kernel=3", "*", "tile=4")});
  EXPECT_EQ(once, head + "ic=64 oc=64 in=56x56 kernel=3 pad=1 | forward | * | cpu_direct@1 tile=16,6 | gflops=1 halide=21.0.0\n" +
                      "in=9x9 kernel=3 | forward | * | cpu_direct@1 tile=4 | gflops=2\n" + "in=9x9 kernel=3 | forward | amd-25-1 | cpu_direct@1 tile=8 | gflops=2\n");
  EXPECT_EQ(fold_records(once, "x86-64-avx2", {}), once);
  EXPECT_THROW(fold_records("nonsense\n", "x86-64-avx2", {}), Error);
  // A comment further on belongs to the record after it, and stays with it where this is replaced.
  const std::string noted = head + good + "# Measured twice.\n" + other + "# The end.\n";
  EXPECT_EQ(fold_records(noted, "x86-64-avx2", {record("in=9x9 kernel=3", "*", "tile=4")}),
            head + "ic=64 oc=64 in=56x56 kernel=3 pad=1 | forward | * | cpu_direct@1 tile=16,6 | gflops=1 halide=21.0.0\n" +
                "# Measured twice.\nin=9x9 kernel=3 | forward | * | cpu_direct@1 tile=4 | gflops=2\n# The end.\n");
}

// The files that are checked in: each record fits its problem today.
TEST(Records, BuiltInOnesAreAllUsable) {
  const RecordBook book = RecordBook::built_in();
  for (auto &r : book.records()) {
    const Workload w{r.problem, r.pass, parse_targets(r.target).at(0)};
    EXPECT_NO_THROW(choose(w, book, r.cpu)) << r.where;
  }
}

TEST(Schedules, EveryProblemHasOne) {
  for (PassKind pass : passes_of(Problem::parse("in=6x8 kernel=1x2"))) EXPECT_NE(choose(workload("in=6x8 kernel=1x2", pass), RecordBook(), "*").schedule, nullptr);
  EXPECT_STREQ(schedules().back()->name, "reference");
}

TEST(Targets, NamesAndRefusals) {
  auto words = [](const char *list) -> std::string {
    try {
      parse_targets(list);
    } catch (const Error &e) { return e.what(); }
    return "accepted";
  };
  EXPECT_EQ(level_name(parse_targets("all").at(0)), "x86-64-avx512-fp16");
  EXPECT_EQ(level_name(parse_targets("x86-64,x86-64-avx2").at(0)), "x86-64-avx2");
  EXPECT_EQ(level_name(parse_targets("x86-64-avx2,opencl").at(0)), "opencl");
  EXPECT_EQ(level_name(parse_targets("x86-64-linux-avx2-fma-f16c-avx-sse41").at(0)), "x86-64-avx2");
  const std::string sapphire_rapids = "x86-64-linux-sse41-avx-f16c-fma-avx2-avx512-avx512_skylake-avx512_cannonlake-avx512_sapphirerapids";
  EXPECT_EQ(level_name(parse_targets(sapphire_rapids).at(0)), "x86-64-avx512-fp16");
  EXPECT_THAT(words("pdp-11"), testing::StartsWith("target: expected cuda-8.6, "));
  EXPECT_THAT(words("arm-32-linux"), testing::StartsWith("target arm-32-linux is not available yet"));
  EXPECT_EQ(level_name(parse_targets("arm-64-linux,arm-64-dotprod").at(0)), "arm-64-dotprod");
  EXPECT_THAT(words("arm-64,x86-64"), testing::StartsWith("target arm-64,x86-64: expected targets of one machine"));
  EXPECT_THAT(words(""), testing::StartsWith("target: expected"));
}

}  // namespace
}  // namespace convsmith
