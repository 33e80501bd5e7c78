// Sixteen and eight bits: training with master weights in f32, and the instructions that multiply bytes.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <algorithm>
#include "convsmith/curvature.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/trainer.h"
#include "emitted.h"
#include "tools/emit/kernel_job.h"
#include "tools/support/process.h"

namespace convsmith {
namespace {

class HalfTraining : public testing::TestWithParam<const char *> {};

// The kernel [1, -1] from the dark band, in 16 bits. Steps below the spacing of the type would be lost on its own
// weights; the master weights add them up.
TEST_P(HalfTraining, LearnsWithMasterWeights) {
  const std::string type = GetParam();
  const Library library =
      emitted("half", {kernel("edge", "forward,weight_gradient,input_gradient", "in=6x8 kernel=1x2 type=" + type),
                       kernel("layer", "all", "n=2 ic=3 oc=4 in=7x7 kernel=3 pad=1 bias=1 activation=relu type=" + type)}, "host")
          .open();
  Conv conv(library, "edge");
  EXPECT_EQ(conv.weight().type(), CONVSMITH_F32);
  Tensor x({1, 1, 6, 8}), target({1, 1, 6, 7}), start({1, 1, 1, 2});
  for (int h = 0; h < 6; h++) {
    for (const int w : {0, 1, 6, 7}) x.at({0, 0, h, w}) = 1;
    target.at({0, 0, h, 1}) = 1, target.at({0, 0, h, 5}) = -1;
  }
  start.at({0, 0, 0, 0}) = -0.58187f, start.at({0, 0, 0, 1}) = 0.03947f;
  conv.set_weight(start);
  TrainOptions o;
  o.steps = 700, o.rate = 0.001;
  const TrainResult result = train(conv, x, target, o);
  EXPECT_NEAR(conv.weight().at({0, 0, 0, 0}), 1, 0.01);
  EXPECT_NEAR(conv.weight().at({0, 0, 0, 1}), -1, 0.01);
  EXPECT_LT(result.losses.back(), 1e-3 * result.losses.front());
  EXPECT_EQ(conv.forward(x).type(), type == "f16" ? CONVSMITH_F16 : CONVSMITH_BF16);

  // Gradients far below the smallest number of f16 survive the way back.
  Conv layer(library, "layer");
  layer.initialise(1);
  const Tensor input({2, 3, 7, 7});
  fill_integers(input, 1);
  TrainOptions tiny;
  tiny.steps = 1, tiny.rate = 1e4;
  tiny.loss = Loss::parse("mean_squared");
  const Tensor wanted = layer.forward(input).as(CONVSMITH_F32).clone();
  for (std::int64_t i = 0; i < wanted.elements(); i++) wanted.data<float>()[i] += 1e-2f;
  EXPECT_NO_THROW(train(layer, input, wanted, tiny));
  float largest = 0;
  for (const Parameter &p : layer.parameters()) largest = std::max(largest, p.gradient.largest_magnitude());
  EXPECT_GT(largest, 0);
}

// The gradients that it is made of are far below the smallest number of f16 too.
TEST_P(HalfTraining, KnowsItsCurvature) {
  const std::string problem = "in=64x64 kernel=3 pad=1";
  const Library library = emitted("half_curve", {kernel("half", "all", problem + " type=" + GetParam()), kernel("whole", "all", problem)}, "host").open();
  const Tensor x({1, 1, 64, 64});
  for (std::int64_t i = 0; i < x.elements(); i++) x.data<float>()[i] = float(i * 37 % 101) * 0x1p-13f;
  Conv half(library, "half"), whole(library, "whole");
  const Curvature found = curvature(half, x, Loss::parse("mean_squared")), wanted = curvature(whole, x, Loss::parse("mean_squared"));
  EXPECT_NEAR(found.largest, wanted.largest, 0.02 * wanted.largest);
}

INSTANTIATE_TEST_SUITE_P(Types, HalfTraining, testing::Values("f16", "bf16"));

std::string assembly_of(const char *target, const char *problem) {
  TestFolder folder;
  KernelJob job;
  job.problem = problem, job.pass = "forward", job.target = target, job.cpu = "*";
  job.function = "f", job.object = folder / "f.o", job.assembly = folder / "f.s";
  compile_kernel(job);
  return read_file(job.assembly);
}

std::int64_t count(const std::string &text, const std::string &word) {
  std::int64_t n = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) n++;
  return n;
}

// Four bytes of each operand are multiplied and summed by one instruction; nothing widens them first.
TEST(ByteProducts, UseTheInstructionForThem) {
  const char *problem = "ic=64 oc=64 in=28x28 kernel=3 pad=1 type=u8s8 out_type=u8 scale=channel bias=1";
  const std::string vnni = assembly_of("x86-64-avx512-vnni", problem), dotprod = assembly_of("arm-64-dotprod", problem);
  for (const std::string &text : {vnni, assembly_of("x86-64-avx512-fp16", problem)}) {
    EXPECT_GE(count(text, "vpdpbusd"), 24);
    EXPECT_EQ(count(text, "vpmaddwd"), 0);
  }
  EXPECT_GE(count(dotprod, "sdot"), 16);
  EXPECT_EQ(count(dotprod, "smlal"), 0);
  // Where there is no such instruction: pairs of 16 bits.
  EXPECT_GE(count(assembly_of("x86-64-avx2", problem), "vpmaddwd"), 8);
}

// The ARM levels of an archive under an emulator: each right on small integers, and taken only where it is there.
TEST(Arm, LevelsAreRightUnderAnEmulator) {
  const std::string cc = "aarch64-linux-gnu-gcc";
  if (!has_command(cc) || !has_command("qemu-aarch64")) GTEST_SKIP() << "needs " << cc << " and qemu-aarch64";
  EmitOptions o;
  o.name = "demo", o.targets = "arm-64-dotprod,arm-64", o.cc = cc;
  std::vector<KernelRequest> kernels = demo_kernels();
  kernels.push_back(kernel("bytes", "forward", "ic=13 oc=20 in=7x9 kernel=3 pad=1 type=u8s8 out_type=i32"));
  kernels.push_back(kernel("half", "forward", "ic=5 oc=7 in=9x11 kernel=3 pad=1 type=f16"));
  const std::filesystem::path folder = std::filesystem::path(cached_library(kernels, o)).parent_path();
  TestFolder scratch;
  for (const char *program : {"levels.c", "bytes.c"}) {
    std::vector<std::string> command = {cc, "-std=c99", "-static", consumer_source(program), "-o", scratch / "program",
                                        "-I" + folder.string(), (folder / "libdemo.a").string()};
    command.insert(command.end(), c_library.begin(), c_library.end());
    output_of(command);
    const auto run = [&](const char *cpu) { return lines_of(output_of({"qemu-aarch64", "-cpu", cpu, scratch / "program"})); };
    if (program == std::string("bytes.c")) {
      EXPECT_THAT(run("max"), testing::ElementsAre("arm-64-dotprod: 0 wrong", "arm-64: 0 wrong"));
      continue;
    }
    EXPECT_THAT(run("max"), testing::ElementsAre("chosen: arm-64-dotprod", "arm-64-dotprod: 0 wrong", "arm-64-dotprod: 0 wrong", "arm-64: 0 wrong"));
    EXPECT_THAT(run("cortex-a53"),
                testing::ElementsAre("chosen: arm-64", "arm-64: 0 wrong",
                                     "arm-64-dotprod: status 3, stays so: level arm-64-dotprod: this processor lacks some of its instructions",
                                     "arm-64: 0 wrong"));
  }
}

TEST(Arm, RefusesACompilerForAnotherMachine) {
  TestFolder folder;
  EmitOptions o;
  o.name = "k", o.folder = folder.path(), o.targets = "arm-64";
  try {
    emit_library({kernel("k", "forward", "in=8 kernel=3")}, o);
    FAIL();
  } catch (const Error &e) { EXPECT_THAT(e.what(), testing::StartsWith("--cc cc: expected a C compiler for arm-64, got one for ")); }
}

}  // namespace
}  // namespace convsmith
