// The search, over stand-ins that misbehave, over kernels that do, and through kills.
#include "tools/tune/tuner.h"
#include <dirent.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <thread>
#include "convsmith/file.h"
#include "emitted.h"
#include "stand_in_tools.h"
#include "tools/support/process.h"

namespace convsmith {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

int open_descriptors() {
  int count = 0;
  for (auto &entry : std::filesystem::directory_iterator("/proc/self/fd")) count += !entry.path().empty();
  return count;
}

bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;  // else ECHILD
}

std::string fault_of(const std::function<void()> &work) {
  try {
    work();
  } catch (const Fault &f) { return f.what(); }
  return "";
}

// What comes of a stand-in program, or of a kernel of the misbehaving library, that is checked, called and checked again.
std::string fault_of_stand_in(const std::string &kind) {
  StandInTools tools(0);
  const Proposal p{"stand_in", fmt::format("kind={} us=5 draw=1", kind), 1};
  return fault_of([&] {
    Contestant c(tools.program(p), tools.job(stand_in_task(), p, "none"), stand_in_options().limits);
    c.check();
    c.time(1, 0);
    c.check();
  });
}

std::string fault_of_kernel(const std::string &kernel, double seconds = 10) {
  const ContestantLimits limits{seconds, std::size_t{4} << 30};
  const ContestantJob job{CONVSMITH_MISBEHAVING_LIBRARY, "misbehaving", kernel, "forward", "in=6x8 kernel=1x2", "", {1, 2}, 1};
  return fault_of([&] {
    Contestant c({own_executable(), "contestant"}, job, limits);
    const std::string digest = c.check();
    for (const int threads : job.threads) c.time(threads, 0.01);
    if (c.check() != digest) throw Fault("another result later");
  });
}

TEST(Contestant, ThatIsSoundIsTimed) {
  EXPECT_EQ(fault_of_stand_in("sound"), "");
  EXPECT_EQ(fault_of_kernel("sound"), "");
}

TEST(Contestant, ThatMisbehavesIsContained) {
  const int before = open_descriptors();
  EXPECT_EQ(fault_of_stand_in("exits"), "ended with exit status 0");
  EXPECT_EQ(fault_of_stand_in("dies"), "died of signal 11");
  EXPECT_EQ(fault_of_stand_in("garbage"), "answered nonsense");
  EXPECT_EQ(fault_of_stand_in("other_number"), "answered nonsense");
  EXPECT_EQ(fault_of_stand_in("no_times"), "answered nonsense");
  EXPECT_EQ(fault_of_stand_in("negative"), "answered nonsense");
  EXPECT_EQ(fault_of_stand_in("half_a_frame"), "ended with exit status 0");
  EXPECT_EQ(fault_of_stand_in("hangs"), "took more than 0.3 s");
  EXPECT_EQ(fault_of_stand_in("grandchild"), "ended with exit status 1");
  EXPECT_EQ(fault_of_stand_in("closes"), "closed its output");
  EXPECT_EQ(fault_of_stand_in("floods"), "said too much");
  EXPECT_EQ(fault_of_stand_in("wrong"), "differs at element 3");
  EXPECT_FALSE(has_children());
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Contestant, AKernelThatMisbehavesIsContained) {
  EXPECT_EQ(fault_of_kernel("segmentation_fault"), "died of signal 11");
  EXPECT_EQ(fault_of_kernel("illegal_instruction"), "died of signal 4");
  EXPECT_EQ(fault_of_kernel("aborts"), "died of signal 6");
  EXPECT_EQ(fault_of_kernel("exits"), "ended with exit status 0");
  EXPECT_EQ(fault_of_kernel("endless", 1), "took more than 1 s");
  EXPECT_EQ(fault_of_kernel("grandchild"), "ended with exit status 1");
  EXPECT_THAT(fault_of_kernel("closes_output"), testing::AnyOf("ended with exit status 1", "closed its output"));
  EXPECT_THAT(fault_of_kernel("out_of_bounds"), HasSubstr("wrote beside its result"));
  EXPECT_THAT(fault_of_kernel("writes_its_input"), testing::Not(""));
  EXPECT_THAT(fault_of_kernel("one_wrong_element"), StartsWith("forward of \"in=6x8 kernel=1x2\""));
  EXPECT_THAT(fault_of_kernel("nan_element"), StartsWith("forward of \"in=6x8 kernel=1x2\""));
  EXPECT_THAT(fault_of_kernel("uninitialised_read"), testing::Not(""));
  EXPECT_THAT(fault_of_kernel("depends_on_threads"), testing::Not(""));
  EXPECT_THAT(fault_of_kernel("other_each_run"), testing::Not(""));
  EXPECT_THAT(fault_of_kernel("wrong_later"), testing::Not(""));
  EXPECT_FALSE(has_children());
}

// Printing is no fault: nobody listens. It must not be taken for an answer.
TEST(Contestant, WhatAKernelPrintsGoesNowhere) {
  EXPECT_EQ(fault_of_kernel("prints_garbage"), "");
  EXPECT_THAT(fault_of_kernel("prints_a_gigabyte", 0.5), testing::AnyOf("", StartsWith("took more than")));
}

#ifndef __SANITIZE_ADDRESS__
TEST(Contestant, TakesNoMoreMemoryThanItMay) { EXPECT_EQ(fault_of_kernel("takes_ten_gigabytes"), "died of signal 11"); }
#endif

TEST(Tuner, ThousandTrialsThatMisbehaveEndWithASoundWinner) {
  const int before = open_descriptors();
  StandInTools tools(30);
  TrialLog log("");
  const auto start = Tuner::Clock::now();
  const TuneResult r = Tuner(tools, log, stand_in_options()).tune(stand_in_task(), start + 120s, 1000);
  EXPECT_EQ(r.trials, 1000);
  EXPECT_GT(r.faults, 150);
  EXPECT_LT(Tuner::Clock::now() - start, 120s);
  EXPECT_TRUE(r.won());
  EXPECT_EQ(StandInTools::word(r.best, "kind"), "sound");
  double best = 100;
  std::set<std::string> kinds;
  for (auto &[key, t] : log.trials()) {
    const std::string kind = StandInTools::word({"stand_in", key.knobs, 1}, "kind");
    EXPECT_EQ(kind == "sound", t.fault.empty()) << key.knobs << ": " << t.fault;
    if (t.fault.empty()) best = std::min(best, t.us);
    kinds.insert(kind);
  }
  EXPECT_EQ(kinds.size(), StandInTools::faults().size() + 1);
  EXPECT_LE(r.us, best * 1.02) << "what is better by less than a hundredth is not looked for";
  EXPECT_NEAR(r.ratio, 100 / r.us, 1e-9);
  EXPECT_FALSE(has_children());
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Tuner, FindsNothingWhereAllAreFaulty) {
  StandInTools tools(100);
  TrialLog log("");
  const TuneResult r = Tuner(tools, log, stand_in_options()).tune(stand_in_task(), Tuner::Clock::now() + 60s, 30);
  EXPECT_FALSE(r.won());
  EXPECT_EQ(r.best.text(), r.present.text());
  EXPECT_EQ(r.faults, r.trials);
}

TEST(Tuner, ASecondRunSpendsNothingTwice) {
  const TestFolder folder;
  StandInTools tools(20, folder / "measured");
  TuneResult first, second;
  {
    TrialLog log(folder / "log");
    first = Tuner(tools, log, stand_in_options()).tune(stand_in_task(), Tuner::Clock::now() + 60s, 60);
  }
  const auto measured = std::filesystem::file_size(folder / "measured");
  {
    TrialLog log(folder / "log");
    EXPECT_EQ(log.trials().size(), 60u);
    EXPECT_EQ(Tuner(tools, log, stand_in_options()).known(stand_in_task()).best.text(), first.best.text());
    second = Tuner(tools, log, stand_in_options()).tune(stand_in_task(), Tuner::Clock::now() + 60s, 60);
    EXPECT_EQ(log.trials().size(), 60u + size_t(second.trials));
  }
  EXPECT_GE(second.ratio, first.ratio);
  EXPECT_LE(std::filesystem::file_size(folder / "measured") - measured, std::uintmax_t(second.trials));
  // Another CPU's, another compiler's or another version's say nothing.
  TuneOptions other = stand_in_options();
  other.cpu = "another";
  TrialLog log(folder / "log");
  EXPECT_TRUE(Tuner(tools, log, other).known(stand_in_task()).seen.empty());
  other = stand_in_options(), other.halide = "another";
  EXPECT_TRUE(Tuner(tools, log, other).known(stand_in_task()).seen.empty());
}

// What was found against another choice is measured anew against this one before it may win.
TEST(Tuner, WhatIsKnownIsHeldAgainstWhatIsUsedNow) {
  struct Improved : StandInTools {
    Improved() : StandInTools(0) {}
    Proposal present(const TuneTask &) override { return {"stand_in", "kind=sound us=99.0000 draw=7", 1}; }
    std::vector<Proposal> propose(const TuneTask &, int, std::uint64_t, const Proposal *) override { return {}; }
  } improved;
  StandInTools tools(0);
  TrialLog log("");
  const TuneResult first = Tuner(tools, log, stand_in_options()).tune(stand_in_task(), Tuner::Clock::now() + 60s, 100);
  ASSERT_LT(first.us, 90);
  Trial bridge = *log.find(first.seen.front().key);  // the new choice took turns with the old one, too
  bridge.key.knobs = "kind=sound us=99.0000 draw=7", bridge.us = 99, bridge.against_us = 100, bridge.key.rung = 3;
  log.append(bridge);
  const TuneResult second = Tuner(improved, log, stand_in_options()).tune(stand_in_task(), Tuner::Clock::now() + 60s, 100);
  EXPECT_EQ(second.trials, 1);
  EXPECT_EQ(second.best.text(), first.best.text());
  EXPECT_NEAR(second.ratio, 99 / first.us, 1e-9);
}

// Of a tuner that is killed nothing stays behind, not even a kernel that never comes back (only what such a kernel itself
// has started ends when it likes). Its orphans are ours while this lives.
struct Orphanage {
  Orphanage() { prctl(PR_SET_CHILD_SUBREAPER, 1); }
  ~Orphanage() { prctl(PR_SET_CHILD_SUBREAPER, 0); }
};

void expect_no_orphans() {
  const auto deadline = Tuner::Clock::now() + 60s;  // far longer than the few seconds that a stand-in's own child sleeps
  while (Tuner::Clock::now() < deadline) {
    int status = 0;
    const pid_t orphan = waitpid(-1, &status, WNOHANG);
    if (orphan < 0) return;
    if (orphan == 0) std::this_thread::sleep_for(10ms);
  }
  ADD_FAILURE() << "a child of a killed process still runs";
}

TEST(Contestant, EndsWithWhoMeasuresIt) {
  const Orphanage orphans_are_ours;
  ProcessOptions options;
  options.timeout_s = 1;
  ASSERT_TRUE(run_process({own_executable(), "measure-endless"}, options).timed_out);
  expect_no_orphans();
}

TEST(Tuner, KilledAHundredTimesItRepeatsNothing) {
  const Orphanage orphans_are_ours;
  const TestFolder folder;
  const std::string log_file = folder / "log", count_file = folder / "measured";
  std::mt19937 random(1);
  size_t finished = 0;
  std::uintmax_t measured = 0;
  for (int kill = 0; kill < 100; kill++) {
    ProcessOptions options;
    options.timeout_s = 0.02 + double(random() % 400) / 1000;  // within a start, a build, a check or a turn
    const ProcessResult r = run_process({own_executable(), "tune-stand-ins", log_file, count_file}, options);
    ASSERT_TRUE(r.timed_out) << r.err;
    TrialLog log(log_file);
    EXPECT_EQ(log.quarantined(), 0);
    const std::string text = read_file(log_file);
    const size_t lines = size_t(std::count(text.begin(), text.end(), '\n'));
    ASSERT_EQ(lines, log.trials().size()) << "a trial was finished twice";
    std::error_code none;
    const auto now = std::filesystem::exists(count_file, none) ? std::filesystem::file_size(count_file) : 0;
    ASSERT_LE(now - measured, lines - finished + 1) << "a finished trial was measured again";
    finished = lines, measured = now;
  }
  EXPECT_GT(finished, 200u);
  expect_no_orphans();
}

}  // namespace
}  // namespace convsmith
