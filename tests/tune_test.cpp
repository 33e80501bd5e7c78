// `tune`: what it finds, writes and keeps.
#include <csignal>
#include <fmt/format.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <thread>
#include "command.h"
#include "convsmith/file.h"
#include "schedules/records.h"

using nlohmann::json;

namespace convsmith {
namespace {

class TuneTest : public CommandTest {
 protected:
  static Words tune(const Words &more, const std::string &what = edge) {
    return Words{"tune", what, "--threads", "1", "--log", "@trials.jsonl"} + more;
  }
};

void expect_whole(const json &j, size_t tasks) {
  for (const char *key : {"cpu", "level", "halide", "convsmith", "threads", "log"}) EXPECT_TRUE(j[key].is_string()) << key;
  ASSERT_EQ(j["tasks"].size(), tasks);
  for (auto &t : j["tasks"]) {
    EXPECT_GE(t["ratio"], 1.0);
    EXPECT_FALSE(t["present"]["setting"].get<std::string>().empty());
    if (!t["won"]) continue;
    EXPECT_NE(t["present"]["setting"], t["best"]["setting"]);
    EXPECT_LT(t["best"]["us"], t["present"]["us"]);
  }
}

TEST_F(TuneTest, MeasuresAndRemembers) {
  const json first = json::parse(succeed(tune({"--passes", "forward", "--trials", "6", "--json", "-"})));
  expect_whole(first, 1);
  const size_t trials = first["trials"];
  EXPECT_TRUE(trials == 5 || trials == 6) << "one is kept for the best, where there is one to look at more closely: " << trials;
  EXPECT_EQ(first["tasks"][0]["seen"].size(), trials);
  const std::string log = read("@trials.jsonl");
  // What is known is shown without measuring anything; more trials are others.
  const json known = json::parse(succeed(tune({"--passes", "forward", "--time", "0s", "--json", "-"})));
  EXPECT_EQ(known["trials"], 0);
  EXPECT_EQ(known["tasks"][0]["seen"].size(), trials);
  EXPECT_EQ(read("@trials.jsonl"), log);
  const json second = json::parse(succeed(tune({"--passes", "forward", "--trials", "5", "--json", "-"})));
  EXPECT_GT(second["tasks"][0]["seen"].size(), trials);
  const std::string text = read("@trials.jsonl");
  EXPECT_TRUE(text.starts_with(log));
  EXPECT_EQ(size_t(std::count(text.begin(), text.end(), '\n')), trials + second["trials"].get<size_t>());
}

TEST_F(TuneTest, WritesAPageAndATable) {
  write("@two.spec", "edge : forward : in=6x8 kernel=1x2\nsmall : weight_gradient : ic=8 oc=8 in=12x12 kernel=3\n");
  const std::string said = succeed(tune({"--trials", "4", "--html", "@page.html", "--json", "@j.json"}, "@two.spec"));
  EXPECT_THAT(said, AllOf(HasSubstr("2 passes on "), HasSubstr("\nedge "), HasSubstr("\nsmall "), HasSubstr("geometric mean all"), HasSubstr("4 trials, ")));
  expect_whole(json::parse(read("@j.json")), 2);
  EXPECT_THAT(read("@page.html"), AllOf(StartsWith("<!DOCTYPE html>"), HasSubstr("in=6x8 kernel=1x2"), HasSubstr("</html>")));
  EXPECT_THAT(succeed(tune({"--trials", "2", "--only", "small", "--quiet"}, "@two.spec")), "");
}

// A record that a slow one is beaten by joins the file, is used by what is emitted, and is beaten no more.
TEST_F(TuneTest, ExportsWhatIsBetterByMoreThanTheNoise) {
  const std::string problem = "ic=16 oc=32 in=14x14 kernel=3 pad=1", level = json::parse(succeed({"explain", problem, "--json"}))["target"];
  const std::string slow = fmt::format("{} | forward | * | cpu_direct@1 lanes=1 tile=1,1,1,1,1 panel=0 | by hand\n", Problem::parse(problem).str());
  std::filesystem::create_directory(path("@records"));
  write("@records/" + level + ".rec", "# kept\n" + slow);
  const Words words = tune({"--passes", "forward", "--trials", "12", "--records", "@records", "--export", "@records", "--json", "-"}, problem);
  const json j = json::parse(succeed(words));
  ASSERT_TRUE(j["tasks"][0]["won"].get<bool>()) << j.dump();
  EXPECT_GT(j["tasks"][0]["ratio"], 2);
  EXPECT_EQ(j["exported"]["records"], 1);
  const RecordBook book = RecordBook::load(path("@records"));
  ASSERT_EQ(book.records().size(), 2u) << "the one for any CPU stays";
  EXPECT_THAT(read("@records/" + level + ".rec"), StartsWith("# kept\n"));
  const Record &r = book.records()[0].cpu == "*" ? book.records()[1] : book.records()[0];
  EXPECT_EQ(r.cpu, j["cpu"]);
  EXPECT_EQ(r.halide, halide_version());
  EXPECT_THAT(r.measured, AllOf(StartsWith("gflops="), HasSubstr(" ratio="), HasSubstr(" threads=1 "), HasSubstr(" date=20")));
  const json now = json::parse(succeed({"explain", problem, "--passes", "forward", "--records", "@records", "--json"}));
  EXPECT_THAT(now["passes"][0]["why"].get<std::string>(), HasSubstr(", which measured gflops="));
  EXPECT_EQ(fmt::format("{} {}", now["passes"][0]["schedule"].get<std::string>(), now["passes"][0]["knobs"].get<std::string>()), j["tasks"][0]["best"]["setting"]);
  // What was measured against the slow one says how the others do against the new one: nothing is spent twice.
  const std::string before = read("@trials.jsonl");
  const json known = json::parse(succeed(tune({"--passes", "forward", "--time", "0s", "--records", "@records", "--export", "@records", "--json", "-"}, problem)));
  EXPECT_FALSE(known["tasks"][0]["won"].get<bool>());
  EXPECT_EQ(known["exported"]["records"], 0);
  EXPECT_EQ(read("@trials.jsonl"), before);
  // A record of another run that was faster yet is not replaced.
  for (const char *folder : {"@slow", "@faster"}) std::filesystem::create_directory(path(folder));
  write("@slow/" + level + ".rec", slow);
  const std::string faster = std::regex_replace(read("@records/" + level + ".rec"), std::regex("gflops=[0-9.]+"), "gflops=999999.0");
  write("@faster/" + level + ".rec", faster);
  const json again = json::parse(succeed(tune({"--passes", "forward", "--time", "0s", "--records", "@slow", "--export", "@faster", "--json", "-"}, problem)));
  EXPECT_TRUE(again["tasks"][0]["won"].get<bool>()) << again;
  EXPECT_EQ(again["exported"]["records"], 0);
  EXPECT_EQ(read("@faster/" + level + ".rec"), faster);
}

// A pass that cannot be tried does not cost the others their results.
TEST_F(TuneTest, GoesOnAfterAPassThatFails) {
  const std::string level = json::parse(succeed({"explain", edge, "--json"}))["target"];
  std::filesystem::create_directory(path("@records"));
  write("@records/" + level + ".rec", "in=6x9 kernel=1x2 | forward | * | cpu_direct@1 lanes=999 | by hand\n");
  write("@mixed.spec", "wide : forward : in=6x9 kernel=1x2\nedge : forward : in=6x8 kernel=1x2\n");
  const ProcessResult r = run(tune({"--trials", "2", "--records", "@records", "--json", "@tuned.json", "--quiet"}, "@mixed.spec"));
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, AllOf(StartsWith("wide forward is left out: "), HasSubstr("lanes")));
  const json j = json::parse(read("@tuned.json"));
  ASSERT_EQ(j["tasks"].size(), 1u);
  EXPECT_EQ(j["tasks"][0]["kernel"], "edge");
  ASSERT_EQ(j["failed"].size(), 1u);
  EXPECT_EQ(j["failed"][0]["kernel"], "wide");
}

TEST_F(TuneTest, ComparesWithHalidesOwnSchedulers) {
  const json j = json::parse(succeed(tune({"--passes", "forward", "--trials", "3", "--baselines", "--json", "-"}, "ic=16 oc=16 in=14x14 kernel=3")));
  std::set<std::string> names;
  for (auto &b : j["tasks"][0]["baselines"]) {
    names.insert(b["name"]);
    EXPECT_TRUE(b.contains("fault") || b["us"] > 0) << b.dump();
  }
  EXPECT_EQ(names, (std::set<std::string>{"Adams2019", "Mullapudi2016"}));
  EXPECT_THAT(j["tasks"][0]["best"]["setting"].get<std::string>(), testing::Not(testing::AnyOf(StartsWith("Adams"), StartsWith("Mullapudi"))));
}

TEST_F(TuneTest, ASignalKeepsWhatIsFinished) {
  write("@run.sh", fmt::format("\"$1\" tune '{}' --threads 1 --log '{}' --time 1h & pid=$!\n"
                               "while [ $(cat '{}' 2>/dev/null | wc -l) -lt 2 ]; do sleep 0.1; done\n"
                               "kill -TERM $pid; wait $pid; echo status $?\n",
                               edge, path("@trials.jsonl"), path("@trials.jsonl")));
  const ProcessResult r = run_process({"/bin/bash", path("@run.sh"), CONVSMITH_COMMAND}, {.timeout_s = 60});
  EXPECT_THAT(r.out, AllOf(HasSubstr("geometric mean"), EndsWith("status 130\n")));
  EXPECT_EQ(r.err, "convsmith: interrupted\n");
  EXPECT_GE(json::parse(succeed(tune({"--time", "0s", "--json", "-"})))["tasks"][0]["seen"].size(), 2u);
}

TEST_F(TuneTest, SaysWhatItCouldNotRead) {
  write("@trials.jsonl", "nonsense\n");
  const ProcessResult r = run(tune({"--time", "0s", "--quiet"}));
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_EQ(r.err, "@trials.jsonl: 1 line could not be read and was moved to @trials.jsonl.bad\n");
  EXPECT_EQ(read("@trials.jsonl.bad"), "nonsense\n");
}

TEST_F(TuneTest, RefusesInOneLine) {
  for (const char *time : {"", "10", "m", "-1s", "1h30m", "infs"})
    fail(2, tune({"--time", time}), fmt::format("--time: expected a time as in 90s, 10m or 2h, got \"{}\"", time));
  fail(2, {"tune"}, "PROBLEM-or-SPEC is required; see convsmith tune --help");
  fail(2, tune({}, "in=6x8"), HasSubstr("kernel"));
  fail(2, tune({}, "@missing.spec"), "@missing.spec: cannot read: No such file or directory");
  fail(2, tune({}, "n=? in=6x8 kernel=3"), HasSubstr("expected known extents of at least 1, got \"n=? in=6x8 kernel=3\""));
  fail(2, {"tune", edge, "--threads", "0"}, HasSubstr("--threads: expected numbers from 1 to 1024"));
  fail(2, tune({"--passes", "pack_weight"}), HasSubstr("with passes pack_weight, got none"));
  fail(2, tune({"--html", "@none/p.html"}), "--html @none/p.html: expected a file in a folder, but @none is none");
  fail(2, tune({"--target", "arm-64"}), "target arm-64: expected one that this machine can run");
  fail(2, tune({"--records", "@none"}), HasSubstr("records: expected a folder of *.rec files"));
  fail(2, tune({"--trials", "-1"}), HasSubstr("--trials: expected a whole number"));
}

}  // namespace
}  // namespace convsmith
