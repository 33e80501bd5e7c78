// `bench`: what it writes, and whom it lets stand beside ours. Peers are shell scripts that compute with the command,
// or badly.
#include <fmt/format.h>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include "command.h"

using nlohmann::json;

namespace convsmith {
namespace {

class BenchTest : public CommandTest {
 protected:
  BenchTest() { write("@edge.spec", "edge : forward : in=6x8 kernel=1x2\n"); }

  static Words bench(const Words &more, const std::string &set = "@edge.spec") {
    return Words{"bench", set, "--seconds", "0", "--threads", "1"} + more;
  }

  // A peer that does so before it answers to prepare PASS THREADS FOLDER RESULT PROBLEM.
  std::string peer(const std::string &name, const std::string &prepare, const std::string &first = "ok Stand-in 1.0",
                   const std::string &time = "ok 100 200") const {
    write("@" + name + ".sh", fmt::format("echo '{}'\n"
                                          "while read -r line; do\n"
                                          "  set -- $line\n"
                                          "  case $1 in\n"
                                          "  prepare) pass=$2 threads=$3 folder=$4 result=$5; shift 5; {}; echo ok;;\n"
                                          "  time) echo {};;\n"
                                          "  *) echo ok;;\n"
                                          "  esac\n"
                                          "done\n",
                                          first, path(prepare), time));
    return name + "=/bin/sh @" + name + ".sh";
  }
  void expect_page(const Words &words) const {
    const std::string page = read("@page.html");
    for (auto &word : words) EXPECT_NE(page.find(word), std::string::npos) << word;
  }

  static std::string computed() {
    return CONVSMITH_COMMAND
        " run \"$*\" --pass $pass --x $folder/x.npy --weight $folder/weight.npy --out $result >&2 --quiet";
  }
};

void expect_row(const json &row, const std::string &problem, const std::string &pass, int threads) {
  SCOPED_TRACE(row.dump());
  EXPECT_EQ(row["problem"], problem);
  EXPECT_EQ(row["pass"], pass);
  EXPECT_EQ(row["threads"], threads);
  for (const char *key : {"us_min", "us_median", "gflops", "roof"}) {
    ASSERT_TRUE(row[key].is_number()) << key;
    EXPECT_TRUE(std::isfinite(row[key].get<double>()) && row[key].get<double>() > 0) << key;
  }
  EXPECT_LE(row["us_min"], row["us_median"]);
  EXPECT_TRUE(row["peers"].is_object());
  EXPECT_NEAR(row["gflops"].get<double>() * row["us_min"].get<double>() * 1e3, row["operations"].get<double>(),
              1e-9 * row["operations"].get<double>());
}

TEST_F(BenchTest, WritesARowAPass) {
  const std::string said = succeed(bench({"--json", "@j.json", "--html", "@page.html"}));
  const json j = json::parse(read("@j.json"));
  ASSERT_EQ(j["rows"].size(), 1u);
  expect_row(j["rows"][0], edge, "forward", 1);
  EXPECT_EQ(j["rows"][0]["kernel"], "edge");
  EXPECT_EQ(j["rows"][0]["peers"], json::object());
  EXPECT_EQ(j["rows"][0]["operations"], 2 * 2 * 6 * 7);
  EXPECT_EQ(j["rows"][0]["bytes"], 4 * (48 + 2 + 42));
  EXPECT_FALSE(j["rows"][0].contains("refused"));
  EXPECT_EQ(j["set"], path("@edge.spec"));
  for (const char *key : {"cpu", "level", "halide"}) EXPECT_TRUE(j[key].is_string()) << key;
  ASSERT_EQ(j["roofs"].size(), 1u);
  EXPECT_EQ(j["roofs"][0]["threads"], 1);
  EXPECT_GT(j["roofs"][0]["gflops"], 0);
  EXPECT_GT(j["roofs"][0]["copies"].size(), 2u);
  ASSERT_EQ(j["means"].size(), 3u);  // by pass and threads, by pass, of all
  for (auto &mean : j["means"]) {
    EXPECT_EQ(mean["rows"], 1);
    EXPECT_NEAR(mean["roof"].get<double>(), j["rows"][0]["roof"].get<double>(), 1e-12);
  }
  EXPECT_THAT(said, AllOf(StartsWith("1 thread: "), HasSubstr("\nkernel "), HasSubstr("\nedge "),
                          HasSubstr("\ngeometric mean all ")));
  expect_page({"<!DOCTYPE html>", path("@edge.spec"), ">edge<", "</html>"});
  EXPECT_EQ(listing(), (Words{"edge.spec", "j.json", "page.html"}));
}

TEST_F(BenchTest, PrintsNothingButJson) {
  const json j = json::parse(succeed(bench({"--json", "-"})));
  ASSERT_EQ(j["rows"].size(), 1u);
  expect_row(j["rows"][0], edge, "forward", 1);
  EXPECT_EQ(listing(), Words{"edge.spec"});
}

TEST_F(BenchTest, PicksKernelsPassesBatchesAndThreads) {
  write("@two.spec", "edge : forward,weight_gradient : in=6x8 kernel=1x2\nother : forward : in=5 kernel=2\n");
  json j = json::parse(succeed(
      {"bench", "@two.spec", "--seconds", "0", "--json", "-", "--threads", "2,1", "--only", "dge", "--batch", "1,3"}));
  ASSERT_EQ(j["rows"].size(), 8u);
  for (size_t i = 0; i < 8; i++) {
    const bool three = i / 4;
    expect_row(j["rows"][i], three ? "n=3 " + edge : edge, i / 2 % 2 ? "weight_gradient" : "forward", i % 2 ? 1 : 2);
    EXPECT_EQ(j["rows"][i]["batch"], three ? 3 : 1);
  }
  EXPECT_EQ(j["roofs"].size(), 2u);
  EXPECT_EQ(j["means"].back()["of"], "all");
  EXPECT_EQ(j["means"].back()["rows"], 8);

  j = json::parse(succeed(bench({"--json", "-", "--passes", "weight_gradient"}, "@two.spec")));
  ASSERT_EQ(j["rows"].size(), 1u);
  expect_row(j["rows"][0], edge, "weight_gradient", 1);
  EXPECT_FALSE(j["rows"][0].contains("batch"));
}

TEST_F(BenchTest, TimesAPeerThatComputesTheSame) {
  const json j = json::parse(succeed(bench({"--json", "-", "--peer", peer("theirs", computed()), "--peer",
                                            peer("silent", ":", "ok Says nothing", "ok 7 8")})));
  EXPECT_EQ(j["peers"], (json{{"theirs", "Stand-in 1.0"}, {"silent", "Says nothing"}}));
  const json &row = j["rows"][0];
  EXPECT_EQ(row["peers"], (json{{"theirs", {{"us_min", 100.0}, {"us_median", 200.0}}},
                                {"silent", {{"us_min", 7.0}, {"us_median", 8.0}}}}));
  EXPECT_FALSE(row.contains("refused")) << row;
  EXPECT_NEAR(j["means"][0]["ratios"]["silent"].get<double>(), 7 / row["us_min"].get<double>(), 1e-9);
}

TEST_F(BenchTest, RefusesAPeerThatComputesSomethingElse) {
  write_array("@wrong.npy", {1, 1, 6, 7}, std::vector<float>(42, 3));
  std::vector<float> bad(42, 0);
  bad[5] = NAN;
  write_array("@bad.npy", {1, 1, 6, 7}, bad);
  const json j = json::parse(
      succeed(bench({"--json", "-", "--html", "@page.html", "--peer", peer("wrong", "cp @wrong.npy $result"), "--peer",
                     peer("bad", "cp @bad.npy $result"), "--peer",
                     peer("unable", "echo no border of that kind; continue"), "--peer", peer("right", computed())})));
  const json &row = j["rows"][0];
  expect_row(row, edge, "forward", 1);
  EXPECT_EQ(row["refused"].size(), 3u);
  EXPECT_THAT(row["refused"]["wrong"].get<std::string>(),
              AllOf(StartsWith("another result: differs by "), EndsWith(" of the largest element")));
  EXPECT_EQ(row["refused"]["bad"], "another result: differs by inf of the largest element");
  EXPECT_EQ(row["refused"]["unable"], "border of that kind");
  ASSERT_EQ(row["peers"].size(), 1u);
  EXPECT_EQ(row["peers"]["right"]["us_min"], 100);
  EXPECT_EQ(j["means"].back()["ratios"].size(), 1u);
  expect_page({"another result: differs by ", "border of that kind"});
}

TEST_F(BenchTest, LeavesOutAPeerThatCannotRunHere) {
  const ProcessResult r = run(bench({"--json", "-", "--peer", peer("theirs", ":", "no such library")}));
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_EQ(r.err, "peer theirs: such library\n");
  const json j = json::parse(r.out);
  EXPECT_FALSE(j.contains("peers"));
  EXPECT_EQ(j["rows"][0]["peers"], json::object());
}

TEST_F(BenchTest, APeerThatFailsIsLeftOutFromThereOn) {
  write("@two.spec", "edge : forward : in=6x8 kernel=1x2\nwide : forward : in=6x9 kernel=1x2\n");
  const auto bench_with = [&](const std::string &failing, const std::string &why) {
    const ProcessResult r = run(bench({"--json", "-", "--peer", failing, "--peer", peer("right", computed())}, "@two.spec"));
    EXPECT_EQ(r.exit_code, 0);
    EXPECT_THAT(r.err, AllOf(StartsWith("peer theirs is left out from here on: " + why), EndsWith("\n")));
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    const json j = json::parse(r.out);
    ASSERT_EQ(j["rows"].size(), 2u);
    for (auto &row : j["rows"]) {
      EXPECT_THAT(row["refused"]["theirs"].get<std::string>(), StartsWith(why));
      EXPECT_EQ(row["peers"].size(), 1u) << row;
    }
  };
  bench_with(peer("theirs", "exit 3"), "/bin/sh: ended before it answered \"prepare forward 1 ");
  bench_with(peer("theirs", computed(), "ok x", "ok soon"), "peer theirs: expected two times to \"time 0\", got \"soon\"");
}

TEST_F(BenchTest, NamesEachPeerOnce) {
  fail(2, bench({"--quiet", "--peer", peer("theirs", ":"), "--peer", peer("theirs", ":")}), "--peer: two are called theirs: rename one");
  fail(2, bench({"--quiet", "--against", "presets", "--peer", peer("presets", ":")}), "--peer: expected another name than that of --against, got presets");
  const ProcessResult r = run(bench({"--json", "-", "--peer", peer("theirs", ":", "ok")}));
  EXPECT_EQ(r.err, "peer theirs: said ok without its name and version\n");
}

TEST_F(BenchTest, TakesASchedule) {
  for (const char *schedule : {"reference", "cpu_direct tile=1"}) {
    const json j = json::parse(succeed(bench({"--json", "-", "--schedule", schedule})));
    ASSERT_EQ(j["rows"].size(), 1u) << schedule;
    expect_row(j["rows"][0], edge, "forward", 1);
  }
  fail(2, bench({"--quiet", "--schedule", "cpu_direct colour=3"}),
       "schedule cpu_direct: unknown knob \"colour\", for forward of \"" + edge + "\"");
}

TEST_F(BenchTest, HoldsRecordsAgainstPresets) {
  for (const char *against : {"presets", "reference", "open"}) {
    const json j = json::parse(succeed(bench({"--json", "-", "--against", against})));
    ASSERT_EQ(j["rows"].size(), 1u) << against;
    expect_row(j["rows"][0], edge, "forward", 1);
    EXPECT_GT(j["rows"][0]["peers"][against]["us_min"], 0) << against;
    EXPECT_GT(j["means"][0]["ratios"][against], 0) << against;
  }
  EXPECT_THAT(succeed(bench({"--against", "presets", "--schedule", "reference"})), HasSubstr(" presets ratio"));
  fail(2, bench({"--quiet", "--against", "cpu_fast"}), StartsWith("schedule: expected one of "));
}

TEST_F(BenchTest, RefusesInOneLine) {
  for (const char *threads : {"0", "-1", "x", "1,", ",1", "1,,2", "1.5", "", "1 2", "9999999"})
    fail(2, {"bench", "@edge.spec", "--threads", threads},
         AllOf(HasSubstr("--threads"), HasSubstr("expected"), EndsWith(fmt::format("got \"{}\"", threads))));
  for (const char *option : {"", "theirs", "theirs=", "=program"})
    fail(2, bench({"--peer", option}), fmt::format("--peer: expected NAME=PROGRAM ARGUMENT..., got \"{}\"", option));
  fail(2, bench({"--peer", "theirs=/no/such/program"}), "/no/such/program: cannot run: no such program");
  fail(2, bench({"--peer", "theirs=true"}), "true: ended before it answered \"\"");
  fail(2, bench({"--peer", "theirs=echo hello"}),
       "peer theirs: expected \"ok\" or \"no REASON\" to \"\", got \"hello\"");
  fail(2, {"bench"}, "SPEC is required; see convsmith bench --help");
  fail(2, bench({}, "@missing.spec"), "@missing.spec: cannot read: No such file or directory");
  fail(2, bench({}, "@."), "@.: cannot read: Is a directory");
  write("@bad.spec", "edge : forwards : in=6x8 kernel=1x2\n");
  fail(2, bench({}, "@bad.spec"), StartsWith("@bad.spec:1: pass: expected one of forward, "));
  fail(2, bench({"--seconds", "-1"}), HasSubstr("--seconds: expected a number of at least 0, got \"-1\""));
  fail(2, bench({"--json", "@none/j.json"}), "--json @none/j.json: expected a file in a folder, but @none is none");
  fail(2, bench({"--html", "@none/p.html"}), "--html @none/p.html: expected a file in a folder, but @none is none");
  fail(2, bench({"--json", "@out", "--html", "@out"}), HasSubstr("expected another file than"));
  fail(2, bench({"--target", "arm-64"}), "target arm-64: expected one that this machine can run");
  EXPECT_EQ(listing(), (Words{"bad.spec", "edge.spec"}));
}

// Found when the first kernel's turn comes.
TEST_F(BenchTest, RefusesWordsOfProblemsInOneLine) {
  fail(2, bench({"--quiet", "--passes", "backward"}),
       AllOf(StartsWith("pass: expected one of forward, "), EndsWith("got \"backward\"")));
  fail(2, bench({"--quiet", "--batch", "x"}),
       "--batch: expected numbers from 1 to 999999, separated by commas, got \"x\"");
  fail(2, bench({"--quiet", "--schedule", "cpu_fast"}),
       AllOf(StartsWith("schedule: expected one of "), EndsWith("got \"cpu_fast\"")));
}

#ifdef CONVSMITH_GPU_BENCH
// The program for GPUs: on OpenCL, and with a driver of CUDA that computes nothing, which must not pass.
TEST_F(BenchTest, TheProgramForGpusChecksAndTimes) {
  const auto gpu = [&](const Words &more) { return run_process(Words{CONVSMITH_GPU_BENCH, "--seconds", "0"} + more); };
  write("@peer.sh", "echo ok Stand-in 1.0\nwhile read -r line; do\n  case $line in time*) echo ok 100 200;; *) echo ok;; esac\ndone\n");
  const ProcessResult timed = gpu({"--level", "opencl", "--peer", "theirs=/bin/sh " + path("@peer.sh"), "--json", path("@gpu.json")});
  EXPECT_EQ(timed.exit_code, 0) << timed.err;
  const json j = json::parse(read("@gpu.json"));
  EXPECT_EQ(j["level"], "opencl");
  ASSERT_EQ(j["rows"].size(), 5u) << timed.out;
  for (auto &row : j["rows"]) {
    EXPECT_EQ(row["check"], row["kernel"] == "layer" ? "bits" : "none") << row;
    EXPECT_GT(row["us_min"], 0);
    EXPECT_EQ(row["peers"]["theirs"]["us_min"], 100);
  }
  EXPECT_THAT(timed.out, HasSubstr("geometric mean weight_gradient"));

  const ProcessResult idle = run_process({"env", "LD_LIBRARY_PATH=" CONVSMITH_STAND_IN_CUDA, CONVSMITH_GPU_BENCH, "--level", "cuda-8.0", "--only", "layer"});
  EXPECT_EQ(idle.exit_code, 1);
  EXPECT_THAT(idle.out, StartsWith("cuda-8.0 on stand-in (9.0): 25600 GFLOP/s, 500 GB/s, nominal\n"));
  EXPECT_THAT(idle.err, HasSubstr("bench/gpu: 3 of 3 rows: another result than the processor's"));
}
#endif

}  // namespace
}  // namespace convsmith
