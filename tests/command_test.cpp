// The command as a person meets it, where all is well: what it computes, against plain arithmetic, and what it prints
// for people and for machines.
#include "command.h"
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>
#include "tools/support/image.h"

namespace fs = std::filesystem;
using testing::HasSubstr;

namespace convsmith {
namespace {

TEST_F(CommandTest, LearnGivesTheWorkedExample) {
  write_edge_example();
  const Words ten_steps = learn({"--lr", "0.03", "--steps", "10", "--init", "@start.npy"});
  const std::string text = succeed(ten_steps + Words{"--out", "@k.npy", "--plot", "@loss.svg"});
  for (const char *line : {"step     2  loss 11.268\n", "step     4  loss 2.573\n", "step     6  loss 0.712\n",
                           "step     8  loss 0.234\n", "step    10  loss 0.086\n", "   0.9558  -1.0140\n"})
    EXPECT_THAT(text, HasSubstr(line));
  const auto j = nlohmann::json::parse(succeed(ten_steps + Words{"--json"}));
  ASSERT_EQ(j["losses"].size(), 10u);
  std::string losses;
  for (size_t step : {2, 4, 6, 8, 10}) losses += fmt::format("{:.3f} ", j["losses"][step - 1].get<double>());
  EXPECT_EQ(losses, "11.268 2.573 0.712 0.234 0.086 ");
  EXPECT_EQ(fmt::format("{:.4f} {:.4f}", j["kernel"][0].get<double>(), j["kernel"][1].get<double>()), "0.9558 -1.0140");
  EXPECT_LT(j["final_loss"], j["losses"][9]);
  EXPECT_EQ(j["problem"], "in=6x8 kernel=1x2");
  EXPECT_EQ(read_array("@k.npy", {1, 1, 1, 2}), (std::vector<float>{j["kernel"][0], j["kernel"][1]}));
  EXPECT_THAT(read("@loss.svg"), HasSubstr("<svg"));
}

TEST_F(CommandTest, LearnFindsTheRateFromTheData) {
  write_edge_example();
  const auto j = nlohmann::json::parse(succeed(learn({"--steps", "60", "--json"})));
  EXPECT_NEAR(j["curvature"]["largest"].get<double>(), 60, 1e-3);
  EXPECT_NEAR(j["curvature"]["smallest"].get<double>(), 12, 1e-3);
  EXPECT_NEAR(j["rate"].get<double>(), 1.0 / 36, 1e-6);
  EXPECT_NEAR(j["kernel"][0].get<double>(), 1, 1e-4);
  EXPECT_NEAR(j["kernel"][1].get<double>(), -1, 1e-4);
}

TEST_F(CommandTest, LearnHoldsTheKernelToAKnownOne) {
  write_edge_example();
  const Words sixty_steps = learn({"--steps", "60", "--json", "--seed", "3"});
  auto j = nlohmann::json::parse(succeed(sixty_steps + Words{"--compare", "edge-x", "--within", "0.001"}));
  EXPECT_EQ(j["known"], (std::vector<double>{1, -1}));
  EXPECT_LT(j["largest_difference"].get<double>(), 0.001);
  EXPECT_EQ(j, nlohmann::json::parse(succeed(sixty_steps + Words{"--compare", "edge-x"})))
      << "another run, other numbers";

  // A tolerance stops early; a wanted output of the same size is learnt with the padding that keeps it.
  j = nlohmann::json::parse(succeed(sixty_steps + Words{"--tolerance", "0.5"}));
  EXPECT_LT(j["losses"].size(), 60u);
  EXPECT_LE(j["losses"].back().get<double>(), 0.5);
  j = nlohmann::json::parse(
      succeed({"learn", "--from", "@x.npy", "--to", "@x.npy", "--kernel", "3", "--json", "--steps", "1"}));
  EXPECT_EQ(j["problem"], "in=6x8 kernel=3 pad=1");
}

TEST_F(CommandTest, LearnFromAPictureAndItsBlurredCopy) {
  std::string ppm = "P3 24 20 255\n";
  for (int i = 0; i < 24 * 20 * 3; i++) ppm += fmt::format("{}\n", (i * i * 37 + i * 101) % 256);
  write("@a.ppm", ppm);
  succeed({"apply", "box:3", "@a.ppm", "-o", "@b.ppm"});
  const auto j = nlohmann::json::parse(
      succeed({"learn", "--from", "@a.ppm", "--to", "@b.ppm", "--kernel", "3", "--optimizer", "momentum", "--steps",
               "200", "--json", "--compare", "box:3", "--within", "0.01"}));
  EXPECT_EQ(j["problem"], "n=3 in=20x24 kernel=3 pad=1 border=replicate");
}

TEST_F(CommandTest, RunForward) {
  write_edge_example();
  EXPECT_EQ(succeed({"run", "in=6x8 kernel=1x2", "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy",
                     "--out", "@out.npy"}),
            "y 1x1x6x7 -> @out.npy\n");
  EXPECT_EQ(read_array("@out.npy", {1, 1, 6, 7}), edge_y());

  // The transposed picture has no edges across.
  std::vector<float> x = edge_x(), transposed(48);
  for (int i = 0; i < 48; i++) transposed[size_t(i % 8 * 6 + i / 8)] = x[size_t(i)];
  write_array("@xt.npy", {8, 6}, transposed);
  succeed({"run", "in=8x6 kernel=1x2", "--pass", "forward", "--x", "@xt.npy", "--weight", "@kernel.npy", "--out",
           "@out.npy"});
  EXPECT_EQ(read_array("@out.npy", {1, 1, 8, 5}), std::vector<float>(40, 0));
}

TEST_F(CommandTest, RunEachPassOfTheSmallExample) {
  write_array("@x.npy", {3, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 8});
  write_array("@w.npy", {2, 2}, {0, 1, 2, 3});
  write_array("@ones.npy", {2, 2}, {1, 1, 1, 1});
  const auto pass = [](const char *name, const Words &tensors) {
    return Words{"run", "in=3x3 kernel=2", "--pass", name, "--out", "@out.npy"} + tensors;
  };
  succeed(pass("forward", {"--x", "@x.npy", "--weight", "@w.npy"}));
  EXPECT_EQ(read_array("@out.npy", {1, 1, 2, 2}), (std::vector<float>{19, 25, 37, 43}));
  succeed(pass("weight_gradient", {"--x", "@x.npy", "--dy", "@ones.npy"}));
  EXPECT_EQ(read_array("@out.npy", {1, 1, 2, 2}), (std::vector<float>{8, 12, 20, 24}));
  succeed(pass("input_gradient", {"--dy", "@ones.npy", "--weight", "@w.npy"}));
  EXPECT_EQ(read_array("@out.npy", {1, 1, 3, 3}), (std::vector<float>{0, 1, 1, 2, 6, 4, 2, 5, 3}));
}

TEST_F(CommandTest, RunGradientsOfTheWorkedExample) {
  write_edge_example();
  const std::string edge = "in=6x8 kernel=1x2 bias=1";
  // dx(i) = dy(i) * 1 + dy(i-1) * -1
  succeed({"run", edge, "--pass", "input_gradient", "--dy", "@y.npy", "--weight", "@kernel.npy", "--out", "@dx.npy"});
  std::vector<float> dx, x = edge_x(), y = edge_y();
  for (int row = 0; row < 6; row++)
    for (float v : {0, 1, -1, 0, 0, -1, 1, 0}) dx.push_back(v);
  EXPECT_EQ(read_array("@dx.npy", {1, 1, 6, 8}), dx);

  // dw(k) = sum of dy(o) x(o+k): the pixels beside the edges
  succeed({"run", edge, "--pass", "weight_gradient", "--x", "@x.npy", "--dy", "@y.npy", "--out", "@dw.npy"});
  std::vector<float> dw(2, 0);
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < 42; i++) dw[size_t(k)] += y[size_t(i)] * x[size_t(i / 7 * 8 + i % 7 + k)];
  EXPECT_EQ(dw, (std::vector<float>{6, -6}));
  EXPECT_EQ(read_array("@dw.npy", {1, 1, 1, 2}), dw);

  y[0] = 5;
  write_array("@dy.npy", {6, 7}, y);
  EXPECT_EQ(succeed({"run", edge, "--pass", "bias_gradient", "--dy", "@dy.npy"}), "dbias 1 = 5\n");
}

TEST_F(CommandTest, RunTrainStepRepeatedGivesTheWorkedExample) {
  write_edge_example();
  write_array("@rate.npy", {1}, {0.03f});
  fs::copy_file(path("@start.npy"), path("@w.npy"));
  std::vector<double> losses;
  for (int step = 0; step < 10; step++) {
    const auto j = nlohmann::json::parse(
        succeed({"run", "in=6x8 kernel=1x2", "--pass", "train_step", "--x", "@x.npy", "--weight", "@w.npy", "--tensor",
                 "target=@y.npy", "--tensor", "rate=@rate.npy", "--output", "weight_out=@w.npy", "--json"}));
    ASSERT_EQ(j["outputs"][1]["name"], "loss");
    losses.push_back(j["outputs"][1]["value"]);
  }
  EXPECT_NEAR(losses[0], 25.027, 0.0005);
  const double printed[] = {11.268, 2.573, 0.712, 0.234, 0.086};
  for (size_t i = 0; i < 5; i++) EXPECT_NEAR(losses[2 * i + 1], printed[i], 0.0005);
  const auto w = read_array("@w.npy", {1, 1, 1, 2});
  EXPECT_NEAR(w[0], 0.9558, 0.00005);
  EXPECT_NEAR(w[1], -1.0140, 0.00005);
}

// Deep kernels read their weights in panels; a file's are packed on the way.
TEST_F(CommandTest, RunTakesWeightsInTheOrderOfFiles) {
  const std::int64_t c = 176;
  const std::string deep = fmt::format("ic={} oc={} in=3x3 kernel=3 pad=1", c, c);
  std::vector<float> x(size_t(c * 9)), w(size_t(c * c * 9)), y(size_t(c * 9)), dx(size_t(c * 9));
  for (size_t i = 0; i < x.size(); i++) x[i] = float(i * 7 % 5) - 2;
  for (size_t i = 0; i < w.size(); i++) w[i] = float(i * i % 11 % 4) - 1;
  for (std::int64_t o = 0; o < c; o++)
    for (std::int64_t i = 0; i < c; i++)
      for (std::int64_t p = 0; p < 9; p++)
        for (std::int64_t k = 0; k < 9; k++) {
          const std::int64_t row = p / 3 + k / 3 - 1, column = p % 3 + k % 3 - 1;
          if (row < 0 || row > 2 || column < 0 || column > 2) continue;
          const std::int64_t at = row * 3 + column, tap = (o * c + i) * 9 + k;
          y[size_t(o * 9 + p)] += w[size_t(tap)] * x[size_t(i * 9 + at)];
          dx[size_t(i * 9 + at)] += w[size_t(tap)] * x[size_t(o * 9 + p)];
        }
  write_array("@x.npy", {1, c, 3, 3}, x);
  write_array("@w.npy", {c, c, 3, 3}, w);
  succeed({"run", deep, "--pass", "forward", "--x", "@x.npy", "--weight", "@w.npy", "--out", "@y.npy"});
  EXPECT_EQ(read_array("@y.npy", {1, c, 3, 3}), y);
  succeed({"run", deep, "--pass", "input_gradient", "--dy", "@x.npy", "--weight", "@w.npy", "--out", "@dx.npy"});
  EXPECT_EQ(read_array("@dx.npy", {1, c, 3, 3}), dx);
}

class ApplyTest : public CommandTest {
 protected:
  static constexpr int width = 9, height = 7;
  using Kernel = std::vector<std::vector<double>>;

  ApplyTest() {
    std::string ppm = fmt::format("P3\n{} {}\n255\n", width, height);
    for (int i = 0; i < 3 * width * height; i++)
      samples_.push_back(i * i * 31 % 256), ppm += fmt::format("{} ", samples_.back());
    write("@in.ppm", ppm + "\n");
  }

  // Held against correlation with the border repeated, clamped and rounded.
  void expect(const std::string &file, const Kernel &kernel, bool absolute = false) const {
    const Image image = read_image(path(file));
    ASSERT_EQ(image.width, width);
    ASSERT_EQ(image.height, height);
    ASSERT_EQ(image.channels, 3);
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
          const double sum = correlation(kernel, c, y, x);
          const double wanted = std::clamp(absolute ? std::abs(sum) : sum, 0.0, 255.0);
          const double got = 255 * image.pixels[size_t((c * height + y) * width + x)];
          EXPECT_NEAR(got, wanted, 0.501) << file << " channel " << c << " row " << y << " column " << x;
        }
  }

 private:
  double correlation(const Kernel &kernel, int c, int y, int x) const {
    const int kh = int(kernel.size()), kw = int(kernel[0].size());
    double sum = 0;
    for (int j = 0; j < kh; j++)
      for (int i = 0; i < kw; i++) {
        const int row = std::clamp(y + j - (kh - 1) / 2, 0, height - 1);
        const int column = std::clamp(x + i - (kw - 1) / 2, 0, width - 1);
        sum += kernel[size_t(j)][size_t(i)] * samples_[size_t((row * width + column) * 3 + c)];
      }
    return sum;
  }

  std::vector<int> samples_;
};

TEST_F(ApplyTest, Edges) {
  EXPECT_EQ(succeed({"apply", "edge-x", "@in.ppm", "-o", "@out.ppm"}),
            "edge-x applied to @in.ppm (9x7, 3 channels) -> @out.ppm\n");
  expect("@out.ppm", {{1, -1}});
  succeed({"apply", "edge-y", "@in.ppm", "-o", "@out.png", "--absolute"});
  expect("@out.png", {{1}, {-1}}, true);
}

TEST_F(ApplyTest, Gaussian) {
  succeed({"apply", "gaussian:1", "@in.ppm", "-o", "@out.ppm"});
  Kernel kernel(5, std::vector<double>(5));
  double sum = 0;
  for (int y = 0; y < 5; y++)
    for (int x = 0; x < 5; x++)
      sum += kernel[size_t(y)][size_t(x)] = std::exp(-((x - 2) * (x - 2) + (y - 2) * (y - 2)) / 2.0);
  for (auto &row : kernel)
    for (double &v : row) v /= sum;
  expect("@out.ppm", kernel);
}

TEST_F(ApplyTest, TheOtherNamesAndAFile) {
  succeed({"apply", "sharpen", "@in.ppm", "-o", "@out.ppm"});
  expect("@out.ppm", {{0, -1, 0}, {-1, 5, -1}, {0, -1, 0}});
  succeed({"apply", "laplacian", "@in.ppm", "-o", "@out.ppm"});
  expect("@out.ppm", {{0, 1, 0}, {1, -4, 1}, {0, 1, 0}});
  succeed({"apply", "box:3", "@in.ppm", "-o", "@out.ppm"});
  expect("@out.ppm", Kernel(3, std::vector<double>(3, 1.0 / 9)));
  succeed({"apply", "box:2", "@in.ppm", "-o", "@out.ppm"});
  expect("@out.ppm", {{0.25, 0.25}, {0.25, 0.25}});
  write_array("@k.npy", {2, 3}, {0.5f, 0, -0.25f, 0, 0.125f, 0.5f});
  succeed({"apply", "@k.npy", "@in.ppm", "-o", "@out.ppm"});
  expect("@out.ppm", {{0.5, 0, -0.25}, {0, 0.125, 0.5}});
}

TEST_F(CommandTest, EmitWritesFourFilesAndTheirCertificate) {
  write("@filters.spec",
        "# two kernels\nedge : forward : in=6x8 kernel=1x2\n\n"
        "blur : forward,input_gradient : in=9x9 kernel=3 pad=1 # same size\n");
  write_array("@w.npy", {1, 1, 3, 3}, std::vector<float>(9, 0.125f));
  const auto emit = [](const std::string &to) {
    return Words{"emit", "@filters.spec", "-o", to, "--weights", "blur=@w.npy"};
  };
  const std::string text = succeed(emit("@out/deep"));
  EXPECT_THAT(text, testing::StartsWith("@out/deep/libfilters.a: "));
  for (const char *line : {"filters_edge_forward", "filters_blur_input_gradient", "exact on integers"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_EQ(listing("@out/deep"), (Words{"filters.c", "filters.h", "filters.json", "libfilters.a"}));
  EXPECT_THAT(read("@out/deep/filters.h"), HasSubstr("filters_blur_forward"));

  const std::string manifest = read("@out/deep/filters.json");
  EXPECT_EQ(succeed(emit("@out/deep") + Words{"--quiet"}), "");
  EXPECT_EQ(read("@out/deep/filters.json"), manifest);
  const auto j = nlohmann::json::parse(succeed(emit("@again") + Words{"--json"}));
  EXPECT_EQ(j, nlohmann::json::parse(manifest));
  EXPECT_EQ(read("@again/libfilters.a"), read("@out/deep/libfilters.a"));
  ASSERT_EQ(j["kernels"].size(), 2u);
  EXPECT_FALSE(j["kernels"][0]["constant_weights"]);
  EXPECT_TRUE(j["kernels"][1]["constant_weights"]);
  EXPECT_GT(j["certificate"]["levels"][0]["passes"][0]["exact_elements"], 0);

  const auto unheld = nlohmann::json::parse(
      succeed({"emit", "in=6x8 kernel=1x2", "-o", "@out", "--passes", "forward", "--no-verify", "--json"}));
  EXPECT_TRUE(unheld["certificate"].is_null());
}

TEST_F(CommandTest, VerifyHoldsEveryPass) {
  const std::string text =
      succeed({"verify", "ic=2 oc=3 in=7x6 kernel=3 pad=1 bias=1 activation=relu", "-o", "@certificate.json"});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 8);
  const auto j = nlohmann::json::parse(read("@certificate.json"));
  Words passes;
  for (auto &p : j["passes"]) {
    passes.push_back(p["pass"]);
    EXPECT_GT(p["exact_elements"], 0) << p;
    EXPECT_LE(p["worst_share_of_bound"], 1) << p;
  }
  EXPECT_EQ(passes, (Words{"forward", "input_gradient", "weight_gradient", "bias_gradient", "activation_gradient",
                           "pack_weight", "pack_weight_for_input_gradient", "train_step"}));
  const auto all = nlohmann::json::parse(succeed(
      {"verify", "in=6x8 kernel=1x2", "--json", "--schedules", "all", "--seed", "9", "-o", "@certificate.json"}));
  EXPECT_EQ(all["seed"], 9);
  EXPECT_GT(all["passes"].size(), 8u) << "expected every schedule";
  EXPECT_EQ(nlohmann::json::parse(read("@certificate.json")), all);
}

TEST_F(CommandTest, ListAndCache) {
  const auto all = nlohmann::json::parse(succeed({"list", "--json"}));
  const std::string text = succeed({"list"});
  for (const char *what : {"operators", "passes", "schedules", "targets", "records"}) {
    EXPECT_TRUE(all.contains(what));
    EXPECT_THAT(text, HasSubstr(std::string(what) + "\n"));
    EXPECT_EQ(nlohmann::json::parse(succeed({"list", what, "--json"})), all[what]);
  }
  EXPECT_THAT(all["schedules"].back().get<std::string>(), testing::StartsWith("reference@"));
  EXPECT_EQ(succeed({"list", "operators"}), "correlation\nconvolution\ntransposed\nlocal\ndense\n");

  setenv("CONVSMITH_CACHE", path("@cache").c_str(), 1);
  write_edge_example();
  const auto cache = [&](const Words &more) { return nlohmann::json::parse(succeed(Words{"cache", "--json"} + more)); };
  EXPECT_EQ(cache({})["entries"], 0);
  succeed({"run", "in=6x8 kernel=1x2", "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy"});
  EXPECT_EQ(cache({})["folder"], "@cache");
  EXPECT_GE(cache({})["entries"], 1);
  EXPECT_GT(cache({})["bytes"], 1000);
  EXPECT_EQ(cache({})["limit"], 200 << 20);
  EXPECT_THAT(succeed({"cache"}), testing::StartsWith("@cache: "));
  EXPECT_EQ(cache({"--clear"})["entries"], 0);
}

TEST_F(CommandTest, QuietRunsWriteTheirFilesAlone) {
  write_edge_example();
  write("@a.ppm", "P3 2 1 255 1 2 3 4 5 6\n");
  const std::vector<Words> quiet = {
      learn({"--steps", "2"}),
      {"run", "in=6x8 kernel=1x2", "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy", "--out", "@o.npy"},
      {"apply", "edge-x", "@a.ppm", "-o", "@o.ppm"},
      {"verify", "in=6x8 kernel=1x2", "--passes", "forward"},
      {"list"},
      {"cache"}};
  for (auto &words : quiet) EXPECT_EQ(succeed(words + Words{"--quiet"}), "");
  EXPECT_EQ(read_array("@o.npy", {1, 1, 6, 7}), edge_y());
  const auto j = nlohmann::json::parse(succeed({"apply", "edge-x", "@a.ppm", "-o", "@o.ppm", "--json", "--quiet"}));
  EXPECT_EQ(j["out"], "@o.ppm");
}

TEST_F(CommandTest, TwoAtOnceOnAColdCacheBothSucceed) {
  write_edge_example();
  setenv("CONVSMITH_CACHE", path("@cache").c_str(), 1);
  ProcessResult results[2];
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; i++)
    threads.emplace_back([&, i] {
      results[i] = run({"run", "in=6x8 kernel=1x2", "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy",
                        "--out", fmt::format("@y{}.npy", i)});
    });
  for (auto &t : threads) t.join();
  for (int i = 0; i < 2; i++) {
    EXPECT_EQ(results[i].exit_code, 0) << results[i].err;
    EXPECT_EQ(results[i].err, "");
    EXPECT_EQ(read_array(fmt::format("@y{}.npy", i), {1, 1, 6, 7}), edge_y());
  }
  for (auto &name : listing("@cache")) EXPECT_FALSE(name.starts_with(".making")) << name;
}

TEST_F(CommandTest, VersionIsOneLine) {
  EXPECT_THAT(succeed({"--version"}), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(CommandTest, HelpNamesEveryOption) {
  const Words shared = {"--help", "--json", "--quiet", "--target", "--threads", "--cc"};
  const std::pair<const char *, Words> subcommands[] = {
      {"learn", {"--from",   "--to",   "--kernel",    "--lr",      "--steps",  "--loss", "--optimizer",
                 "--init",   "--seed", "--tolerance", "--bias",    "--op ",    "--pad",  "--stride",
                 "--border", "--out",  "--plot",      "--compare", "--within", "auto",   "momentum:B"}},
      {"apply", {"KERNEL", "IMAGE", "--output", "--absolute", "gaussian:SIGMA", "box:N"}},
      {"emit",
       {"PROBLEM-or-SPEC", "--output", "--name", "--passes", "--weights", "--tune-for", "--records", "--no-verify"}},
      {"run", {"PROBLEM", "--pass", "--x ", "--weight", "--bias", "--dy", "--y ", "--tensor", "--out ", "--output"}},
      {"verify", {"PROBLEM", "--passes", "--schedules", "--seed", "--output", "extremes"}},
      {"tune", {"PROBLEM-or-SPEC", "--passes", "--only", "--time", "--trials", "--seed", "--baselines", "--log", "--records", "--export", "--html"}},
      {"list", {"WHAT", "operators", "records"}},
      {"cache", {"--clear"}}};
  const std::string all = succeed({"--help"});
  for (auto &[name, options] : subcommands) {
    EXPECT_THAT(all, HasSubstr(fmt::format("\n  {} ", name)));
    const std::string help = succeed({name, "--help"});
    EXPECT_EQ(help, succeed({name, "-h"}));
    EXPECT_THAT(help, HasSubstr(fmt::format("Usage: convsmith {} ", name)));
    for (auto &option : options + shared) EXPECT_THAT(help, HasSubstr(option)) << name;
  }
}

}  // namespace
}  // namespace convsmith
