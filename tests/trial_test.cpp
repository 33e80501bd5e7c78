// The log of trials: appended to, killed in the middle, damaged, shared.
#include "tools/tune/trial.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <algorithm>
#include <filesystem>
#include <thread>
#include "convsmith/file.h"
#include "emitted.h"

namespace convsmith {
namespace {

Trial trial(int number, const std::string &fault = "") {
  Trial t;
  t.key = {"amd-26-2", "21.0.0", "x86-64-avx2", "in=6x8 kernel=1x2", "forward", "1,2", "cpu_direct@1", fmt::format("tile={}", number), 0};
  t.fault = fault, t.us = fault.empty() ? 1.1 * number : 0, t.against = "cpu_direct tile=1", t.against_us = 3.3, t.noise = 0.01;
  t.seed = 18446744073709551615u, t.date = "2026-11-25", t.convsmith = "0.1.0";
  return t;
}

size_t lines(const std::string &file) {
  const std::string text = read_file(file);
  return size_t(std::count(text.begin(), text.end(), '\n'));
}

TEST(Trials, ComeBackAsTheyWere) {
  const TestFolder folder;
  const std::string file = folder / "deep/er/trials.jsonl";
  {
    TrialLog log(file);
    log.append(trial(3)), log.append(trial(4, "died of \"signal\" 11\n\xff"));
  }
  const TrialLog log(file);
  ASSERT_EQ(log.trials().size(), 2u);
  const Trial *t = log.find(trial(3).key);
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->us, 1.1 * 3);
  EXPECT_EQ(t->seed, 18446744073709551615u);
  EXPECT_EQ(t->against, "cpu_direct tile=1");
  EXPECT_EQ(log.find(trial(4).key)->fault.substr(0, 16), "died of \"signal\"");
  EXPECT_EQ(log.find(trial(5).key), nullptr);
}

TEST(Trials, ATornLineIsDropped) {
  const TestFolder folder;
  const std::string file = folder / "log", whole = trial_line(trial(1)) + "\n" + trial_line(trial(2)) + "\n";
  for (size_t cut = whole.size() / 2 + 1; cut < whole.size(); cut += 7) {
    write_file(file, whole.substr(0, cut));
    TrialLog log(file);
    EXPECT_EQ(log.trials().size(), 1u);
    EXPECT_EQ(log.quarantined(), 0);
    log.append(trial(2));
    EXPECT_EQ(read_file(file), whole);
  }
}

TEST(Trials, WhatIsNoTrialIsSetAsideThoughItHasNoEnd) {
  const TestFolder folder;
  const std::string file = folder / "log";
  write_file(file, trial_line(trial(1)) + "\nnotes of somebody's");
  const TrialLog log(file);
  EXPECT_EQ(log.trials().size(), 1u);
  EXPECT_EQ(log.quarantined(), 1);
  EXPECT_EQ(read_file(file + ".bad"), "notes of somebody's\n");
  write_file(folder / "other", "{\"my\": \"results\"}");
  EXPECT_EQ(TrialLog(folder / "other").quarantined(), 1);
  EXPECT_EQ(read_file(folder / "other.bad"), "{\"my\": \"results\"}\n");
}

TEST(Trials, ACorruptLineIsSetAsideAndTheOthersStay) {
  const TestFolder folder;
  const std::string file = folder / "log";
  std::string edited = trial_line(trial(2));
  edited.replace(edited.find("tile=2"), 6, "tile=9");
  write_file(file, trial_line(trial(1)) + "\n" + edited + "\nnonsense\n{\"sum\":1}\n\n" + trial_line(trial(3)) + "\n");
  {
    const TrialLog log(file);
    EXPECT_EQ(log.trials().size(), 2u);
    EXPECT_EQ(log.quarantined(), 4);
  }
  EXPECT_EQ(read_file(file), trial_line(trial(1)) + "\n" + trial_line(trial(3)) + "\n");
  EXPECT_EQ(read_file(file + ".bad"), edited + "\nnonsense\n{\"sum\":1}\n\n");
  EXPECT_EQ(TrialLog(file).quarantined(), 0);
}

// One is killed in the middle of a line while another is at work.
TEST(Trials, ATornLineOfAnotherProcessCostsOnlyItself) {
  const TestFolder folder;
  const std::string file = folder / "log";
  TrialLog log(file);
  log.append(trial(1));
  write_file(file, read_file(file) + trial_line(trial(2)).substr(0, 40));
  log.append(trial(3));
  const TrialLog again(file);
  EXPECT_EQ(again.trials().size(), 2u);
  EXPECT_EQ(again.quarantined(), 1);
}

TEST(Trials, ManyWritersShareAFile) {
  const TestFolder folder;
  const std::string file = folder / "log";
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; w++)
    writers.emplace_back([&, w] {
      TrialLog log(file);
      for (int i = 0; i < 25; i++) log.append(trial(w * 100 + i + 1));
    });
  for (auto &w : writers) w.join();
  EXPECT_EQ(TrialLog(file).trials().size(), 100u);
  EXPECT_EQ(lines(file), 100u);
}

TEST(Trials, NumbersThatAreNoneAreRefused) {
  Trial t = trial(1), read;
  EXPECT_TRUE(read_trial(trial_line(t), read));
  t.us = 0;
  EXPECT_FALSE(read_trial(trial_line(t), read));
  t = trial(1), t.against_us = -1;
  EXPECT_FALSE(read_trial(trial_line(t), read));
}

}  // namespace
}  // namespace convsmith
