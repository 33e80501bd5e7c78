// The command as a person meets it: what it makes and prints where all is well.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include "convsmith/file.h"
#include "convsmith/npy.h"
#include "tools/support/image.h"
#include "tools/support/process.h"
#include "tools/verify/reference.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

using testing::HasSubstr;

class Command : public testing::Test {
 protected:
  Command() {
    std::string pattern = (fs::temp_directory_path() / "convsmith-command-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    Tensor x(Shape{6, 8}), kernel(Shape{1, 1, 1, 2}), start(Shape{1, 1, 1, 2}), y(Shape{6, 7});
    for (std::int64_t h = 0; h < 6; h++)
      for (std::int64_t w = 0; w < 8; w++) x.at({h, w}) = w < 2 || w > 5;
    for (std::int64_t h = 0; h < 6; h++) y.at({h, 1}) = 1, y.at({h, 5}) = -1;
    kernel.at({0, 0, 0, 0}) = 1, kernel.at({0, 0, 0, 1}) = -1;
    start.at({0, 0, 0, 0}) = -0.58187f, start.at({0, 0, 0, 1}) = 0.03947f;
    write_npy(file("x.npy"), x), write_npy(file("y.npy"), y), write_npy(file("k.npy"), kernel),
        write_npy(file("start.npy"), start);
  }
  ~Command() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::string file(const std::string &name) const { return folder_ + "/" + name; }

  // Words that name a file of the folder begin with @.
  ProcessResult run(std::vector<std::string> words, double timeout_s = 120) const {
    std::vector<std::string> argv = {CONVSMITH_COMMAND};
    for (auto &w : words) {
      const size_t at = w.find('@');
      argv.push_back(at == std::string::npos ? w : w.substr(0, at) + file(w.substr(at + 1)));
    }
    ProcessOptions o;
    o.timeout_s = timeout_s;
    return run_process(argv, o);
  }

  nlohmann::json json(std::vector<std::string> words) const {
    words.push_back("--json");
    const ProcessResult r = run(words);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return nlohmann::json::parse(r.out, nullptr, false);
  }

  std::vector<std::string> learn(std::vector<std::string> more = {}) const {
    std::vector<std::string> words = {"learn",    "--from", "@x.npy", "--to",      "@y.npy",
                                      "--kernel", "1x2",    "--init", "@start.npy"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  std::string folder_;
};

TEST_F(Command, LearnsTheEdgeKernel) {
  const auto j = json(learn({"--lr", "0.03", "--steps", "10", "--out", "@learnt.npy", "--plot", "@loss.svg"}));
  std::string losses;
  for (size_t step : {2, 4, 6, 8, 10}) losses += fmt::format("{:.3f} ", j["losses"][step - 1].get<double>());
  EXPECT_EQ(losses, "11.268 2.573 0.712 0.234 0.086 ");
  EXPECT_EQ(fmt::format("{:.4f} {:.4f}", j["kernel"][0].get<double>(), j["kernel"][1].get<double>()), "0.9558 -1.0140");
  EXPECT_EQ(read_npy(file("learnt.npy")).shape(), (Shape{1, 1, 1, 2}));
  EXPECT_THAT(read_file(file("loss.svg")), HasSubstr("<svg"));
}

TEST_F(Command, FindsTheRateFromTheData) {
  const auto j = json(learn({"--steps", "60"}));
  EXPECT_NEAR(j["curvature"]["largest"].get<double>(), 60, 1e-3);
  EXPECT_NEAR(j["curvature"]["smallest"].get<double>(), 12, 1e-3);
  EXPECT_NEAR(j["rate"].get<double>(), 1.0 / 36, 1e-6);
  EXPECT_NEAR(j["kernel"][0].get<double>(), 1, 1e-4);
  EXPECT_NEAR(j["kernel"][1].get<double>(), -1, 1e-4);
}

TEST_F(Command, RunsEachPassOfTheWorkedExample) {
  EXPECT_EQ(
      run({"run", "in=6x8 kernel=1x2", "--pass", "forward", "--x", "@x.npy", "--weight", "@k.npy", "--out", "@got.npy"})
          .exit_code,
      0);
  EXPECT_EQ(dense<float>(read_npy(file("got.npy"))), dense<float>(read_npy(file("y.npy"))));

  const Tensor x = read_npy(file("x.npy"));
  Tensor turned(Shape{8, 6});
  turned.copy_from(x.permuted({1, 0}));
  write_npy(file("turned.npy"), turned);
  EXPECT_EQ(run({"run", "in=8x6 kernel=1x2", "--pass", "forward", "--x", "@turned.npy", "--weight", "@k.npy", "--out",
                 "@got.npy"})
                .exit_code,
            0);
  EXPECT_EQ(read_npy(file("got.npy")).shape(), (Shape{1, 1, 8, 5}));
  EXPECT_THAT(dense<float>(read_npy(file("got.npy"))), testing::Each(0.f));

  Tensor nine(Shape{3, 3}), four(Shape{1, 1, 2, 2});
  for (int i = 0; i < 9; i++) nine.data<float>()[i] = float(i);
  for (int i = 0; i < 4; i++) four.data<float>()[i] = float(i);
  write_npy(file("nine.npy"), nine), write_npy(file("four.npy"), four);
  EXPECT_EQ(run({"run", "in=3x3 kernel=2", "--pass", "forward", "--x", "@nine.npy", "--weight", "@four.npy", "--out",
                 "@got.npy"})
                .exit_code,
            0);
  EXPECT_EQ(dense<float>(read_npy(file("got.npy"))), (std::vector<float>{19, 25, 37, 43}));

  Tensor ones(Shape{2, 2});
  ones.fill(1);
  write_npy(file("ones.npy"), ones);
  EXPECT_EQ(run({"run", "in=3x3 kernel=2", "--pass", "weight_gradient", "--x", "@nine.npy", "--dy", "@ones.npy",
                 "--out", "@got.npy"})
                .exit_code,
            0);
  EXPECT_EQ(dense<float>(read_npy(file("got.npy"))), (std::vector<float>{8, 12, 20, 24}));
  EXPECT_EQ(run({"run", "in=3x3 kernel=2", "--pass", "input_gradient", "--dy", "@ones.npy", "--weight", "@four.npy",
                 "--out", "@got.npy"})
                .exit_code,
            0);
  EXPECT_EQ(dense<float>(read_npy(file("got.npy"))), (std::vector<float>{0, 1, 1, 2, 6, 4, 2, 5, 3}));

  Tensor rate(Shape{1});
  rate.fill(0.03f);
  write_npy(file("rate.npy"), rate);
  const auto j = json({"run", "in=6x8 kernel=1x2", "--pass", "train_step", "--x", "@x.npy", "--weight", "@start.npy",
                       "--tensor", "target=@y.npy", "--tensor", "rate=@rate.npy", "--out", "@next.npy"});
  EXPECT_NEAR(j["outputs"][1]["value"].get<double>(), 25.027, 1e-3);
  EXPECT_EQ(read_npy(file("next.npy")).shape(), (Shape{1, 1, 1, 2}));
}

TEST_F(Command, AppliesKernelsToPictures) {
  Image image{9, 7, 3, {}};
  for (int i = 0; i < 9 * 7 * 3; i++) image.pixels.push_back(float(i * 37 % 256) / 255);
  write_image(file("in.ppm"), image);
  auto at = [&](int c, int y, int x) {
    return image.pixels[size_t((c * 7 + std::clamp(y, 0, 6)) * 9 + std::clamp(x, 0, 8))];
  };
  ASSERT_EQ(run({"apply", "box:3", "@in.ppm", "-o", "@out.ppm"}).exit_code, 0);
  const Image box = read_image(file("out.ppm"));
  ASSERT_EQ(run({"apply", "edge-x", "@in.ppm", "-o", "@edge.png", "--absolute"}).exit_code, 0);
  const Image edge = read_image(file("edge.png"));
  for (int c = 0; c < 3; c++)
    for (int y = 0; y < 7; y++)
      for (int x = 0; x < 9; x++) {
        double mean = 0;
        for (int dy = -1; dy <= 1; dy++)
          for (int dx = -1; dx <= 1; dx++) mean += at(c, y + dy, x + dx) / 9;
        EXPECT_NEAR(box.pixels[size_t((c * 7 + y) * 9 + x)], mean, 0.51 / 255);
        EXPECT_NEAR(edge.pixels[size_t((c * 7 + y) * 9 + x)], std::abs(at(c, y, x) - at(c, y, x + 1)), 0.51 / 255);
      }
}

TEST_F(Command, EmitsVerifiesAndLists) {
  write_file(file("two.spec"), "# two\nedge : all : in=6x8 kernel=1x2\nblur : forward : in=16x16 kernel=3 pad=1\n");
  const auto m = json({"emit", "@two.spec", "-o", "@out", "--target", "x86-64"});
  EXPECT_EQ(m["kernels"].size(), 2u);
  for (const char *name : {"libtwo.a", "two.h", "two.c", "two.json"})
    EXPECT_TRUE(fs::exists(file("out/" + std::string(name)))) << name;
  const auto v = json({"verify", "in=6x8 kernel=1x2", "--schedules", "all", "-o", "@certificate.json"});
  EXPECT_GT(v["passes"].size(), 8u);
  EXPECT_EQ(nlohmann::json::parse(read_file(file("certificate.json"))), v);
  const auto l = json({"list"});
  for (const char *what : {"operators", "passes", "schedules", "targets", "records"})
    EXPECT_TRUE(l.contains(what)) << what;
  EXPECT_TRUE(json({"cache"}).contains("limit"));
}

TEST_F(Command, QuietPrintsNothing) {
  for (auto &words : {learn({"--steps", "2", "--quiet"}),
                      std::vector<std::string>{"verify", "in=6x8 kernel=1x2", "--quiet"},
                      {"cache", "--quiet"}}) {
    const ProcessResult r = run(words);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(r.out + r.err, "");
  }
}

TEST_F(Command, HelpsWithEverySubcommand) {
  EXPECT_THAT(run({"--help"}).out, HasSubstr("learn"));
  EXPECT_EQ(run({"--version"}).out, "0.1.0\n");
  for (auto [name, option] :
       {std::pair("learn", "--optimizer"), std::pair("apply", "--absolute"), std::pair("emit", "--weights"),
        std::pair("run", "--tensor"), std::pair("verify", "--schedules"), std::pair("list", "WHAT"),
        std::pair("cache", "--clear")}) {
    const ProcessResult r = run({name, "--help"});
    EXPECT_EQ(r.exit_code, 0);
    for (const char *common : {option, "--json", "--quiet", "--target", "--threads"})
      EXPECT_THAT(r.out, HasSubstr(common)) << name;
  }
}

TEST_F(Command, TwoOnAColdCacheBothSucceed) {
  setenv("CONVSMITH_CACHE", file("cache").c_str(), 1);
  ProcessResult results[2];
  std::thread other([&] { results[1] = run(learn({"--steps", "3", "--json"})); });
  results[0] = run(learn({"--steps", "3", "--json"}));
  other.join();
  unsetenv("CONVSMITH_CACHE");
  EXPECT_EQ(results[0].exit_code, 0) << results[0].err;
  EXPECT_EQ(results[1].exit_code, 0) << results[1].err;
  EXPECT_EQ(results[0].out, results[1].out);
}

}  // namespace
}  // namespace convsmith
