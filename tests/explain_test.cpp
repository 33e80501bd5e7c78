// `explain`: counts by plain arithmetic, and the choice and the bytes that `emit` ends with.
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include "command.h"

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

namespace convsmith {
namespace {

class ExplainTest : public CommandTest {
 protected:
  json explained(const std::string &problem, const Words &more = {}) const {
    return json::parse(succeed(Words{"explain", problem, "--json"} + more));
  }
  static json pass(const json &j, const std::string &name) {
    for (auto &p : j["passes"])
      if (p["pass"] == name) return p;
    ADD_FAILURE() << "no " << name << " in " << j;
    return {};
  }
  static std::set<std::string> words(const std::string &text) {
    std::istringstream stream(text);
    return {std::istream_iterator<std::string>(stream), {}};
  }
};

TEST_F(ExplainTest, CountsWeightsPast32Bits) {
  const std::string dense = "op=dense ic=3 oc=100 in=3000x4000";
  EXPECT_THAT(succeed({"explain", dense}),
              AllOf(HasSubstr(dense + "\n"), HasSubstr("3,600,000,000"), HasSubstr("100x1x1x3x3000x4000"),
                    HasSubstr("not available: forward, input_gradient, weight_gradient,"),
                    HasSubstr("more than 2^31-1 in a tensor is not available yet")));
  const json j = explained(dense + " bias=1");
  EXPECT_EQ(j["parameters"], (json{{"weights", 3'600'000'000}, {"biases", 100}, {"total", 3'600'000'100}}));
  EXPECT_EQ(j["weights_by_op"], (json{{"dense", 3'600'000'000}}));
  const json forward = pass(j, "forward");
  EXPECT_EQ(forward["multiply_adds"], 3'600'000'000);
  EXPECT_EQ(forward["operations"], 7'200'000'000);
  EXPECT_EQ(forward["bytes_read"], 4 * (3'600'000'000 + 3 * 3000 * 4000 + 100));
  EXPECT_EQ(forward["bytes_written"], 400);
  EXPECT_EQ(forward["available"], false);
  EXPECT_FALSE(forward.contains("schedule"));
}

TEST_F(ExplainTest, TwoWeightsDoTheSame) {
  const json j = explained("in=3000x4000 kernel=1x2");
  EXPECT_EQ(j["parameters"], (json{{"weights", 2}, {"biases", 0}, {"total", 2}}));
  EXPECT_EQ(j["weights_by_op"],
            (json{{"dense", 3000ull * 4000 * 3000 * 3999}, {"local", 2 * 3000 * 3999}, {"correlation", 2}}));
  EXPECT_EQ(j["input"], (json{1, 1, 3000, 4000}));
  EXPECT_EQ(j["output"], (json{1, 1, 3000, 3999}));
  EXPECT_EQ(pass(j, "forward")["multiply_adds"], 2 * 3000 * 3999);
  EXPECT_EQ(pass(j, "forward")["available"], true);
}

TEST_F(ExplainTest, TheLadder) {
  // (H W)^2, H W (2 delta + 1)^2 and (2 delta + 1)^2, whichever rung is asked about.
  const std::string same = " in=32x32 kernel=3 pad=1";
  const json three = {{"dense", 1'048'576}, {"local", 9216}, {"correlation", 9}};
  EXPECT_EQ(explained("op=correlation" + same)["weights_by_op"], three);
  EXPECT_EQ(explained("op=local" + same)["weights_by_op"], three);
  EXPECT_THAT(succeed({"explain", "op=local" + same}),
              AllOf(HasSubstr("1,048,576\n"), HasSubstr("9,216, this problem\n"), HasSubstr(" 9\n")));
  EXPECT_EQ(explained("op=local" + same)["parameters"]["weights"], 9216);
  EXPECT_EQ(explained("op=dense in=32x32 out=32x32")["parameters"]["weights"], 1'048'576);

  // A dense layer has no groups.
  EXPECT_EQ(explained("op=convolution ic=4 oc=6 groups=2 in=5x6 kernel=3 stride=2")["weights_by_op"],
            (json{{"dense", 4 * 5 * 6 * 6 * 2 * 2}, {"local", 2 * 2 * 6 * 2 * 9}, {"convolution", 6 * 2 * 9}}));
  EXPECT_EQ(explained("op=transposed ic=2 oc=3 in=5x6 kernel=3 stride=2")["weights_by_op"],
            (json{{"dense", 2 * 5 * 6 * 3 * 11 * 13}, {"transposed", 2 * 3 * 9}}));
}

TEST_F(ExplainTest, NothingOverflows) {
  const json j = explained("in=3000000x3000000 kernel=1", {"--passes", "train_step"});
  EXPECT_EQ(j["weights_by_op"]["dense"], "81000000000000000000000000");  // digits, where 64 bits hold no number
  EXPECT_EQ(j["weights_by_op"]["local"], 9'000'000'000'000);
  EXPECT_EQ(pass(j, "train_step")["operations"], 36'000'000'000'000);
  EXPECT_THAT(succeed({"explain", "in=3000000x3000000 kernel=1"}), HasSubstr("81,000,000,000,000,000,000,000,000\n"));
  const json most = explained("ic=3037000499 oc=3037000499 in=1 kernel=1", {"--passes", "forward"});
  EXPECT_EQ(most["parameters"]["weights"], 9'223'372'030'926'249'001);
  EXPECT_EQ(pass(most, "forward")["operations"], 18'446'744'061'852'498'002u);
  EXPECT_EQ(pass(most, "forward")["bytes_read"], "36893488135852998000");
}

TEST_F(ExplainTest, MultiplyAddsOfEachOperator) {
  const auto count = [&](const std::string &problem, const std::string &name) {
    return pass(explained(problem, {"--passes", name}), name)["multiply_adds"];
  };
  for (const char *name : {"forward", "input_gradient", "weight_gradient"}) {
    EXPECT_EQ(count("n=2 ic=3 oc=4 in=9x8 kernel=3 pad=1 stride=2", name), 2 * 4 * 5 * 4 * 3 * 9) << name;
    EXPECT_EQ(count("n=2 ic=4 oc=6 groups=2 in=9x8 kernel=3", name), 2 * 6 * 7 * 6 * 2 * 9) << name;
    EXPECT_EQ(count("n=2 op=transposed ic=3 oc=4 in=5x6 kernel=3 stride=2", name), 2 * 3 * 5 * 6 * 4 * 9) << name;
    EXPECT_EQ(count("n=2 op=local ic=3 oc=4 in=5x6 kernel=3", name), 2 * 4 * 3 * 4 * 3 * 9) << name;
    EXPECT_EQ(count("n=2 op=dense ic=3 oc=4 in=5x6 out=2x3", name), 2 * 4 * 2 * 3 * 3 * 5 * 6) << name;
    EXPECT_EQ(count("n=0 in=5x6 kernel=3", name), 0) << name;
  }
  EXPECT_EQ(count("n=2 ic=3 oc=4 in=9x8 kernel=3 pad=1 stride=2", "train_step"), 2 * (2 * 4 * 5 * 4 * 3 * 9));
  const json j = explained("n=2 oc=4 in=5x6 kernel=3 bias=1 activation=relu");
  for (const char *name : {"bias_gradient", "activation_gradient"}) {
    EXPECT_EQ(pass(j, name)["multiply_adds"], 0);
    EXPECT_EQ(pass(j, name)["operations"], 2 * 4 * 3 * 4);
  }
  const json forward = pass(j, "forward");
  EXPECT_DOUBLE_EQ(forward["operations_a_byte"].get<double>(), 2 * 2 * 4 * 12 * 9 / (4.0 * (60 + 36 + 4 + 96)));
}

TEST_F(ExplainTest, ChoosesAndReadsWhatEmitDoes) {
  for (const std::string problem :
       {"n=2 ic=3 oc=4 in=6x8 kernel=3 pad=1 bias=1 activation=relu layout=channels_first",
        "op=transposed ic=2 oc=8 in=5x6 kernel=3 type=bf16 bias=1 residual=1 save=pre activation=gelu",
        "op=dense ic=2 in=5x6 oc=10 bias=1 residual=1", "op=local oc=3 in=5x6 kernel=3 type=f16",
        "ic=8 oc=8 in=6x8 kernel=3 type=u8s8 out_type=s8 scale=channel bias=1 residual=1",
        "ic=8 oc=8 in=6x8 kernel=3 type=u8s8 out_type=i32 scale=channel", "ic=8 oc=8 in=6x8 kernel=3 type=u8s8"}) {
    SCOPED_TRACE(problem);
    const json j = explained(problem);
    const json manifest =
        json::parse(succeed({"emit", problem, "-o", "@out", "--name", "lib", "--no-verify", "--json"}));
    const json &emitted = manifest["kernels"][0]["passes"];
    EXPECT_EQ(j["problem"], manifest["kernels"][0]["problem"]);
    ASSERT_EQ(j["passes"].size(), emitted.size());
    for (auto &e : emitted) {
      SCOPED_TRACE(e["pass"]);
      const json own = pass(j, e["pass"]), &level = e["levels"][0];
      for (const char *key : {"schedule", "knobs", "why"}) EXPECT_EQ(own[key], level[key]);
      const std::map<std::string, int> sizes = {{"f32", 4}, {"i32", 4}, {"f16", 2}, {"bf16", 2}, {"u8", 1}, {"s8", 1}};
      std::int64_t bytes = 0;
      for (auto &a : e["arguments"]) {
        std::int64_t count = sizes.at(a["type"]);
        for (auto &extent : a["extents"]) count *= extent.get<std::int64_t>();
        bytes += count;
      }
      EXPECT_EQ(own["bytes_read"].get<std::int64_t>() + own["bytes_written"].get<std::int64_t>(), bytes);
    }
  }
}

TEST_F(ExplainTest, OpenExtentsCountAsOne) {
  const std::string open = "n=? ic=2 oc=3 in=?x? kernel=3 stride=2";
  const json j = explained(open);
  EXPECT_EQ(j["counted_as_one"], (json{"n", "in_h", "in_w", "out_h", "out_w"}));
  EXPECT_EQ(j["input"], (json{nullptr, 2, nullptr, nullptr}));
  EXPECT_EQ(j["weights_by_op"], (json{{"correlation", 54}})) << "the others hang on the extents";
  EXPECT_EQ(pass(j, "forward")["multiply_adds"], 54);
  EXPECT_EQ(pass(j, "forward")["available"], true);
  EXPECT_THAT(succeed({"explain", open}), AllOf(HasSubstr("\neach pass, for one n, in_h, in_w, out_h, out_w\n"),
                                                HasSubstr("output      ?x3x?x?\n"), HasSubstr("chosen at ")));
  EXPECT_EQ(explained("n=? in=4x5x6 kernel=2")["counted_as_one"], (json{"n"}));
  EXPECT_THAT(succeed({"explain", edge}), Not(HasSubstr("for one")));
}

TEST_F(ExplainTest, SaysWhyAPassIsNotAvailable) {
  const json fast = explained(edge + " precision=fast");
  EXPECT_EQ(fast["passes"].size(), 6u);
  for (auto &p : fast["passes"]) {
    EXPECT_EQ(p["available"], false);
    EXPECT_EQ(p["reason"], "precision=fast is not available yet, in \"in=6x8 kernel=1x2 precision=fast\"");
  }
  EXPECT_THAT(succeed({"explain", edge + " precision=fast"}), HasSubstr("not available: forward, input_gradient, "));

  const json none = explained(edge, {"--passes", "bias_gradient,forward"});
  EXPECT_EQ(none["passes"][0]["pass"], "forward");
  EXPECT_EQ(none["passes"][0]["available"], true);
  EXPECT_EQ(none["passes"][1], (json{{"pass", "bias_gradient"},
                                     {"available", false},
                                     {"reason", "pass bias_gradient expects bias=1, in \"in=6x8 kernel=1x2\""}}));
  EXPECT_THAT(succeed({"explain", edge, "--passes", "bias_gradient"}),
              AllOf(Not(HasSubstr("multiply-adds")), Not(HasSubstr("chosen")),
                    HasSubstr("\nnot available: bias_gradient\n  pass bias_gradient expects bias=1")));
}

TEST_F(ExplainTest, TellsTheRecord) {
  std::filesystem::create_directory(path("@r"));
  write("@r/x86-64-avx2.rec",
        "in=6x8 kernel=1x2 | forward | * | reference@1 |\n"
        "in=6x8 kernel=1x2 | forward | zen3 | cpu_direct@1 tile=7 | gflops=1\n");
  const auto choice = [&](const std::string &cpu, const std::string &target) {
    return pass(explained(edge, {"--records", "@r", "--tune-for", cpu, "--target", target}), "forward");
  };
  EXPECT_THAT(choice("zen3", "x86-64-avx2")["why"].get<std::string>(), HasSubstr("the record @r/x86-64-avx2.rec:2"));
  EXPECT_EQ(choice("zen3", "x86-64-avx2")["knobs"], "tile=7");
  EXPECT_THAT(choice("zen4", "x86-64-avx2")["why"].get<std::string>(), HasSubstr("the record @r/x86-64-avx2.rec:1"));
  EXPECT_EQ(choice("zen4", "x86-64-avx2")["schedule"], "reference@1");
  EXPECT_THAT(choice("zen3", "x86-64")["why"].get<std::string>(), HasSubstr("no record"));
  EXPECT_EQ(explained(edge, {"--target", "x86-64,x86-64-avx2"})["target"], "x86-64") << "the first";
  EXPECT_EQ(explained(edge, {"--target", "all", "--tune-for", "zen3"})["tune_for"], "zen3");
  fail(2, {"explain", edge, "--records", "@none"}, HasSubstr("records: expected a folder of *.rec files"));
}

TEST_F(ExplainTest, WritesTheLoopsAndTheAssemblyOfOnePass) {
  const Words forward = {"explain", "ic=8 oc=16 in=6x8 kernel=3", "--passes", "forward", "--target", "x86-64-avx2"};
  EXPECT_EQ(succeed(forward + Words{"--assembly", "@f.s", "--quiet"}), "");
  EXPECT_EQ(listing(), (Words{"f.s"}));
  EXPECT_THAT(read("@f.s"), AllOf(HasSubstr("\nforward:"), HasSubstr("vfmadd"), Not(HasSubstr("zmm"))));
  const json j = json::parse(succeed(forward + Words{"--loop-nest", "@f.stmt", "--assembly", "@g.s", "--json"}));
  EXPECT_EQ(j["loop_nest"], "@f.stmt");
  EXPECT_THAT(read("@f.stmt"), AllOf(HasSubstr("for ("), HasSubstr("weight")));
  EXPECT_EQ(read("@f.s"), read("@g.s"));

  // Weights are packed in the order that forward reads: panels of 16 channels.
  const std::string deep = "op=dense in=64x64 oc=50";
  succeed({"explain", deep, "--passes", "pack_weight", "--loop-nest", "@deep.stmt", "--quiet"});
  const json forward_choice = explained(deep, {"--passes", "forward"})["passes"][0];
  EXPECT_THAT(forward_choice["knobs"].get<std::string>(), HasSubstr("panel=16"));
  succeed({"explain", "op=dense in=8x8 oc=50", "--passes", "pack_weight", "--loop-nest", "@plain.stmt", "--quiet"});
  // Beyond the last channel of the last panel are zeros, which plain weights do not have.
  EXPECT_THAT(read("@deep.stmt"), HasSubstr("select("));
  EXPECT_THAT(read("@plain.stmt"), Not(HasSubstr("select(")));
}

TEST_F(ExplainTest, TakesAScheduleInPlaceOfTheChoice) {
  const std::string problem = "ic=8 oc=16 in=6x8 kernel=3";
  const auto forward = [&](const std::string &schedule) {
    return pass(explained(problem, {"--passes", "forward", "--schedule", schedule}), "forward");
  };
  const json presets = forward("cpu_direct"), given = forward("cpu_direct tile=4,2 lanes=8");
  for (auto &own : {presets, given}) {
    EXPECT_THAT(own["schedule"].get<std::string>(), testing::StartsWith("cpu_direct@"));
    EXPECT_EQ(own["why"], "asked for");
  }
  // Knobs that are left out keep their presets.
  std::set<std::string> knobs = words(given["knobs"]);
  EXPECT_TRUE(knobs.erase("tile=4,2") && knobs.erase("lanes=8")) << given["knobs"];
  std::set<std::string> others = words(presets["knobs"]);
  std::erase_if(others, [](auto &knob) { return knob.starts_with("tile=") || knob.starts_with("lanes="); });
  EXPECT_EQ(knobs, others);
  EXPECT_GT(others.size(), 2u);
  EXPECT_THAT(succeed({"explain", problem, "--passes", "forward", "--schedule", "cpu_direct tile=4,2"}),
              AllOf(HasSubstr("  forward                        cpu_direct@"), HasSubstr(" tile=4,2 "), HasSubstr("\n  asked for\n")));
  EXPECT_THAT(forward("reference")["schedule"].get<std::string>(), testing::StartsWith("reference@"));
  // It is what is compiled too.
  for (const char *schedule : {"cpu_direct tile=16,2", "cpu_direct tile=16,5"})
    succeed({"explain", problem, "--passes", "forward", "--schedule", schedule, "--loop-nest", std::string("@") + schedule, "--quiet"});
  EXPECT_NE(read("@cpu_direct tile=16,2"), read("@cpu_direct tile=16,5"));

  const auto refused = [&](const std::string &schedule, const Text &message) {
    fail(2, {"explain", problem, "--passes", "forward", "--schedule", schedule}, message);
  };
  const std::string of = ", for forward of \"" + problem + "\"", form = "knob: expected NAME=INTEGER[,INTEGER...], got ";
  refused("cpu_fast", AllOf(testing::StartsWith("schedule: expected one of "), HasSubstr("cpu_direct, "),
                            testing::EndsWith(", got \"cpu_fast\"")));
  refused("cpu_direct colour=3", "schedule cpu_direct: unknown knob \"colour\"" + of);
  refused("reference tile=3", "schedule reference: unknown knob \"tile\"" + of);
  refused("cpu_direct tile", form + "\"tile\"");
  refused("cpu_direct tile=x", form + "\"tile=x\"");
  refused("cpu_direct tile=1 tile=2", "knob tile: given twice");
  refused("cpu_direct tile=99999", AllOf(HasSubstr("knob tile: entry 0 expected 1 to "), HasSubstr(", got 99999" + of)));
  refused("cpu_pointwise", "schedule cpu_pointwise does not support forward of \"" + problem + "\"");
}

// With what NVIDIA's assembler says, where it is installed, of the capabilities that a level's code is for.
TEST_F(ExplainTest, TellsWhatStartsOnADevice) {
  for (const auto &[level, least] : {std::pair("cuda-7.5", 75), std::pair("cuda-8.0", 80), std::pair("cuda-8.6", 86)}) {
    const json j = explained("ic=8 oc=16 in=6x8 kernel=3", {"--passes", "forward", "--target", level, "--assembly", "@f.ptx"});
    EXPECT_THAT(read("@f.ptx"), HasSubstr(".visible .entry")) << level;
    ASSERT_EQ(j["launches"].size(), 1u) << level;
    EXPECT_GT(j["launches"][0]["threads"], 0) << level;
    for (auto &x : j["launches"][0].value("assembled", json::array())) {
      EXPECT_GE(x["sm"], least);
      EXPECT_EQ(x["spilled_bytes"], 0);
    }
  }
}

TEST_F(ExplainTest, RefusesInOneLine) {
  fail(2, {"explain", edge, "--passes", "forward,weight_gradient", "--assembly", "@a.s"},
       "--assembly: expected one pass, by --passes, got \"forward,weight_gradient\"");
  fail(2, {"explain", edge, "--loop-nest", "@a.stmt"}, "--loop-nest: expected one pass, by --passes, got \"all\"");
  fail(2, {"explain", edge + " precision=fast", "--passes", "forward", "--assembly", "@a.s"},
       "precision=fast is not available yet, in \"in=6x8 kernel=1x2 precision=fast\"");
  fail(2, {"explain", edge, "--passes", "forward", "--assembly", "@none/a.s"},
       "--assembly @none/a.s: expected a file in a folder, but @none is none");
  fail(2, {"explain", edge, "--passes", "forward", "--assembly", "@a", "--loop-nest", "@a"},
       "--loop-nest @a: expected another file than --assembly @a");
  fail(2, {"explain", edge, "--passes", "forward,"}, HasSubstr("pass: expected one of forward, "));
  fail(2, {"explain", edge, "--target", "x86-64,pdp-11"}, HasSubstr("got \"pdp-11\""));
  fail(2, {"explain", "in=6x8"}, HasSubstr("problem: kernel: expected"));
  EXPECT_TRUE(listing().empty());
  EXPECT_EQ(succeed({"explain", edge, "--quiet"}), "");
}

}  // namespace
}  // namespace convsmith
