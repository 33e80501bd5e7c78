// Kernels for a GPU, run on OpenCL and Vulkan by processors that stand in for one (PoCL, lavapipe), and on CUDA where there
// is such a device; those for CUDA are assembled too, where NVIDIA's assembler is installed.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cstdlib>
#include <iostream>
#include <random>
#include "convsmith/error.h"
#include "convsmith/trainer.h"
#include "convsmith/file.h"
#include "edge_data.h"
#include "emitted.h"
#include "random_problem.h"
#include "tools/measure/cuda_device.h"
#include "tools/measure/ptx.h"
#include "tools/support/temporary_folder.h"
#include "tools/verify/gate.h"

namespace convsmith {
namespace {

using testing::HasSubstr;

class Gpu : public testing::TestWithParam<const char *> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()).starts_with("cuda") && !cuda_device()) GTEST_SKIP() << "no device for CUDA is here";
  }
  void hold(const std::vector<const char *> &problems, bool every_schedule, bool extremes = false) const {
    GateOptions o;
    o.target = GetParam(), o.every_schedule = every_schedule, o.extremes = extremes, o.every = 6;
    std::int64_t exact = 0;
    for (const char *text : problems) {
      try {
        for (auto &g : gate(Problem::parse(text), o)) exact += g.figures.exact_elements;
      } catch (const std::exception &e) { ADD_FAILURE() << text << ": " << e.what(); }
    }
    EXPECT_GT(exact, 0);
  }
};

TEST_P(Gpu, Correlations) {
  hold({
           "in=6x8 kernel=1x2",
           "ic=3 oc=5 in=9x7 kernel=3 pad=1 bias=1 activation=relu",
           "n=2 ic=16 oc=24 in=13x17 kernel=3x2 stride=2x1 pad=1 residual=1",
           "ic=24 oc=24 in=200 kernel=9 dilation=4 pad=16",
           "ic=6 oc=10 in=5x6x7 kernel=3 pad=1",
           "ic=50 oc=10 in=17x11 kernel=3 pad=1 layout=channels_first save=pre activation=silu bias=1",
           "op=convolution ic=2 oc=3 in=9x8 kernel=3 pad=1:0 activation=gelu",
           "ic=4 oc=4 in=9x9 kernel=2 stride=3 pad=1",
       },
       false);
}

TEST_P(Gpu, Groups) {
  hold({
           "ic=32 oc=32 groups=32 in=20x20 kernel=3 pad=1",
           "ic=6 oc=12 groups=6 in=9x9 kernel=3 stride=2 pad=1",
           "ic=12 oc=8 groups=4 in=11x7 kernel=3 pad=1 layout=channels_first",
           "ic=3 oc=3 groups=3 in=20x30 kernel=5 pad=2",
       },
       false);
}

TEST_P(Gpu, Borders) {
  hold({
           "n=2 in=20x30 kernel=5 pad=2 border=replicate",
           "ic=8 oc=8 in=9x10 kernel=3 pad=1 border=reflect",
           "ic=3 oc=4 in=30 kernel=5 pad=2 border=wrap",
       },
       false);
}

TEST_P(Gpu, OtherOperators) {
  hold({
           "op=transposed ic=16 oc=8 in=7x7 kernel=4 stride=2 pad=1 bias=1 activation=relu",
           "op=transposed ic=3 oc=2 in=5 kernel=3 stride=3 out_pad=1",
           "op=local n=3 ic=2 oc=9 in=9x11 kernel=3x2 stride=2x1 pad=1",
           "op=local n=2 in=8x9 kernel=3 pad=1",
           "op=dense n=4 ic=3 in=5x6 oc=20 bias=1",
       },
       false);
}

TEST_P(Gpu, EightBits) {
  hold({"ic=16 oc=24 in=10x10 kernel=3 pad=1 type=u8s8 out_type=u8 scale=channel bias=1",
        "ic=3 oc=5 in=9x7 kernel=3 pad=1 type=u8s8 out_type=i32"},
       false);
}

TEST_P(Gpu, SixteenBits) {
  hold({"ic=16 oc=24 in=10x10 kernel=3 pad=1 type=f16 bias=1", "ic=3 oc=5 in=9x7 kernel=3 pad=1 type=bf16",
        "ic=16 oc=16 in=9 kernel=3 pad=1 type=bf16 bias=1 residual=1 activation=relu", "ic=8 oc=8 groups=8 in=9x9 kernel=3 border=wrap type=f16"},
       false);
}

TEST_P(Gpu, OpenExtents) {
  hold({"n=? ic=16 oc=20 in=?x? kernel=3x2 stride=2x1 pad=1", "n=? in=?x? kernel=5 pad=2 border=replicate"}, false);
}

TEST_P(Gpu, EverySchedule) {
  hold({
           "ic=64 oc=64 in=14x14 kernel=3 pad=1",  // in chunks, in shared memory
           "ic=32 oc=48 in=12x12 kernel=1 bias=1",
           "ic=5 oc=19 in=13x17 kernel=3x2 stride=2x1 pad=1",
           "op=transposed ic=5 oc=6 in=4x5 kernel=3 stride=5x4",  // residues past what a thread holds
       },
       true);
}

TEST_P(Gpu, KnobsAtTheirExtremes) { hold({"ic=16 oc=20 in=9x11 kernel=3x2 stride=1x2 pad=1"}, true, true); }

// $CONVSMITH_GPU_PROBLEMS of them; types that a level does not take are tried by the tests above.
TEST_P(Gpu, RandomProblems) {
  const char *count = std::getenv("CONVSMITH_GPU_PROBLEMS");
  std::cout << fmt::format("CONVSMITH_SEED={}\n", test_seed()) << std::flush;
  std::mt19937_64 random(test_seed());
  GateOptions o;
  o.target = GetParam(), o.every_schedule = false, o.seed = test_seed(), o.most_products = 1'000'000;
  for (int left = count ? std::atoi(count) : 5; left > 0; left--) {
    const Problem p = random_problem(random);
    try {
      gate(p, o);
    } catch (const std::exception &e) { ADD_FAILURE() << p.str() << ": " << e.what(); }
  }
}

std::vector<KernelRequest> edge_kernels() {
  return {kernel("edge", "forward,train_step", "in=6x8 kernel=1x2"), kernel("pair", "forward", "in=6x7 kernel=1x2")};
}

TEST_P(Gpu, TensorsStayWhereTheyAre) {
  const Library library = emitted("stay", edge_kernels(), GetParam()).open();
  ASSERT_EQ(library.level(), GetParam());
  const Pass first = library.pass("edge", "forward"), second = library.pass("pair", "forward");
  const Tensor x = first.fit("x", edge_input()), weight = first.fit("weight", row({1, -1}));
  const Tensor middle = first.make("y"), y = second.make("y"), expected_middle = first.make("y"), expected = second.make("y");
  first({{"x", x}, {"weight", weight}, {"y", expected_middle}});
  second({{"x", expected_middle}, {"weight", weight}, {"y", expected}});

  const convsmith_copies before = library.copies();
  const Tensor x_there = library.to_device(x), weight_there = library.to_device(weight);
  const Tensor middle_there = library.to_device(middle), y_there = library.to_device(y);
  const convsmith_copies loaded = library.copies();
  EXPECT_EQ(loaded.to_device - before.to_device, 4 * (48 + 2 + 42 + 36));
  for (int i = 0; i < 3; i++) {
    first({{"x", x_there}, {"weight", weight_there}, {"y", middle_there}});
    second({{"x", middle_there}, {"weight", weight_there}, {"y", y_there}});
  }
  library.synchronize();
  const convsmith_copies after = library.copies();
  EXPECT_EQ(after.to_device, loaded.to_device);
  EXPECT_EQ(after.to_host, loaded.to_host);
  EXPECT_EQ(y.at({0, 0, 0, 2}), 0) << "the host's own elements before they are asked for";
  library.to_host(y_there);
  EXPECT_EQ(library.copies().to_host - after.to_host, 4 * 36);
  for (std::int64_t i = 0; i < y.elements(); i++) EXPECT_EQ(y.data<float>()[i], expected.data<float>()[i]) << i;
}

// The worked example, learnt by the training step alone: what changes stays on the device.
TEST_P(Gpu, LearnsTheEdgeOnTheDevice) {
  const Library library = emitted("stay", edge_kernels(), GetParam()).open();
  const Pass step = library.pass("edge", "train_step");
  const Pass forward = library.pass("edge", "forward");
  const Tensor edges = forward.make("y");
  forward({{"x", forward.fit("x", edge_input())}, {"weight", forward.fit("weight", row({1, -1}))}, {"y", edges}});
  const Tensor x = library.to_device(step.fit("x", edge_input())), target = library.to_device(step.fit("target", edges));
  const Tensor rate_host = step.make("rate");
  rate_host.fill(0.03f);
  const Tensor rate = library.to_device(rate_host);
  std::vector<Tensor> weight = {library.to_device(step.fit("weight", row({-0.58187f, 0.03947f}))),
                                library.to_device(step.make("weight_out"))};
  const Tensor loss = library.to_device(step.make("loss"));
  const convsmith_copies loaded = library.copies();
  for (int i = 0; i < 60; i++)
    step({{"x", x}, {"weight", weight[size_t(i % 2)]}, {"target", target}, {"rate", rate}, {"weight_out", weight[size_t((i + 1) % 2)]}, {"loss", loss}});
  EXPECT_EQ(library.copies().to_device, loaded.to_device);
  EXPECT_EQ(library.copies().to_host, loaded.to_host);
  library.to_host(weight[0]);
  library.to_host(loss);
  EXPECT_NEAR(weight[0].data<float>()[0], 1, 1e-3);
  EXPECT_NEAR(weight[0].data<float>()[1], -1, 1e-3);
  EXPECT_LT(loss.data<float>()[0], 1e-4);
}

// `train` does the same, with and without momentum: a step brings back its loss, and with momentum the weights.
TEST_P(Gpu, TrainsALayerOnTheDevice) {
  const Library library = emitted("learn", {kernel("edge", "forward,weight_gradient,train_step", "in=6x8 kernel=1x2")}, GetParam()).open();
  for (const double momentum : {0., 0.5}) {
    Conv layer(library, "edge");
    layer.set_weight(row({1, -1}));
    const Tensor edges = layer.forward(edge_input()).clone();
    TrainOptions options;
    options.rate = 0.03 * (1 - momentum), options.momentum = momentum;
    std::vector<convsmith_copies> copies;
    TrainResult result;
    for (const int steps : {1, 11, 60}) {
      layer.set_weight(row({-0.58187f, 0.03947f}));
      const convsmith_copies before = library.copies();
      options.steps = steps, result = train(layer, edge_input(), edges, options);
      const convsmith_copies after = library.copies();
      copies.push_back({after.to_device - before.to_device, after.to_host - before.to_host});
    }
    const int weights = momentum != 0 ? 8 : 0;
    EXPECT_EQ(copies[1].to_device - copies[0].to_device, 10 * weights);
    EXPECT_EQ(copies[1].to_host - copies[0].to_host, 10 * (4 + weights));
    for (const auto &[step, loss] : {std::pair(2, 11.268), {4, 2.573}, {6, 0.712}, {8, 0.234}, {10, 0.086}})
      if (momentum == 0) {
        EXPECT_NEAR(result.losses[size_t(step - 1)], loss, 0.0005) << step;
      }
    EXPECT_NEAR(layer.weight().at({0, 0, 0, 0}), 1, 1e-3);
    EXPECT_NEAR(layer.weight().at({0, 0, 0, 1}), -1, 1e-3);
  }
}

TEST_P(Gpu, RefusesWhatItCannotDo) {
  const std::string levels = std::string(GetParam()) + ",x86-64";
  const Library library = emitted("both", edge_kernels(), levels).open();
  ASSERT_EQ(library.level(), GetParam());
  const Pass forward = library.pass("edge", "forward");
  const Tensor x = forward.fit("x", edge_input()), weight = forward.fit("weight", row({1, -1}));
  const Tensor there = library.to_device(x);
  library.set_level("x86-64");
  EXPECT_THAT(message_of([&] { forward({{"x", there}, {"weight", weight}, {"y", forward.make("y")}}); }),
              HasSubstr("x: is on another device than that of level x86-64"));
  EXPECT_THAT(message_of([&] { library.to_device(x); }), HasSubstr("the level in use, x86-64, is not a device's"));
  forward({{"x", x}, {"weight", weight}, {"y", forward.make("y")}});
  library.set_level(GetParam());
  Call call(library, "edge", "forward");
  convsmith_tensor &flipped = call["x"];
  flipped.data = static_cast<float *>(flipped.data) + 40;
  flipped.stride[2] = -flipped.stride[2];
  EXPECT_NE(call.run(), CONVSMITH_OK);
  EXPECT_THAT(call.error.message, HasSubstr("stride"));
  EXPECT_THAT(message_of([&] { library.to_host(x); }), HasSubstr("expected a tensor on a device"));

  // Rows further apart than the tensor on the device has them.
  Call apart(library, "edge", "forward");
  convsmith_tensor &rows = apart["x"];
  ASSERT_EQ(library.table().device->to_device(&rows, &apart.error), CONVSMITH_OK) << apart.error.message;
  rows.stride[0] *= 2, rows.stride[1] *= 2, rows.stride[2] *= 2;
  EXPECT_EQ(apart.run(), CONVSMITH_BAD_ARGUMENT);
  EXPECT_THAT(apart.error.message, HasSubstr("x: expected at most the 48 elements that it was put on the device with, got 88"));
  library.table().device->release(&rows);
}

TEST_P(Gpu, SaysWhereMemoryIsShort) {
  // lavapipe takes as much as the system lends, until that ends the process.
  if (std::string(GetParam()) == "vulkan") GTEST_SKIP() << "lavapipe has no end of memory";
  const Library library = emitted("stay", edge_kernels(), GetParam()).open();
  const convsmith_device &device = *library.table().device;
  convsmith_tensor t{nullptr, CONVSMITH_F32, 2, {1 << 20, 1 << 20}, {1 << 20, 1}, nullptr};  // 4 TiB
  convsmith_error error{};
  EXPECT_EQ(device.to_device(&t, &error), CONVSMITH_OUT_OF_MEMORY) << error.message;
  EXPECT_THAT(error.message, HasSubstr("out of memory on the device"));
  EXPECT_EQ(t.device, nullptr);
  const Pass forward = library.pass("edge", "forward");
  const Tensor y = forward.make("y");
  forward({{"x", forward.fit("x", edge_input())}, {"weight", forward.fit("weight", row({1, -1}))}, {"y", y}});
  EXPECT_EQ(y.at({0, 0, 0, 1}), 1);
}

INSTANTIATE_TEST_SUITE_P(On, Gpu, testing::Values("opencl", "vulkan", "cuda-8.0"), [](const auto &p) {
  const std::string level = p.param;
  return level.substr(0, level.find('-'));
});

// Where there is no device a library says so, and runs on the processor only where that is allowed.
TEST(GpuFallback, IsAskedFor) {
  setenv("OCL_ICD_VENDORS", "/nonexistent", 1);
  const Library alone = emitted("stay", edge_kernels(), "opencl").open();
  EXPECT_EQ(alone.level(), "none");
  const Pass forward = alone.pass("edge", "forward");
  const Tensor x = forward.fit("x", edge_input()), weight = forward.fit("weight", row({1, -1}));
  EXPECT_THAT(message_of([&] { forward({{"x", x}, {"weight", weight}, {"y", forward.make("y")}}); }), HasSubstr("no device was found for opencl"));

  const Library both = emitted("both", edge_kernels(), "opencl,x86-64").open();
  const Pass also = both.pass("edge", "forward");
  const Tensor y = also.make("y");
  EXPECT_THAT(message_of([&] { also({{"x", x}, {"weight", weight}, {"y", y}}); }), HasSubstr("the level \"any\" allows the processor"));
  EXPECT_THAT(message_of([&] { both.set_level("opencl"); }), HasSubstr("no such device was found"));
  both.set_level("any");
  EXPECT_EQ(both.level(), "x86-64");
  also({{"x", x}, {"weight", weight}, {"y", y}});
  EXPECT_EQ(y.at({0, 0, 0, 1}), 1);
}

// A processor's kernel may index the same tensors unlike a GPU's: its channels are groups here, the GPU's one group's channels.
TEST(GpuFallback, IndexesTensorsAsItsKernelsDo) {
  setenv("OCL_ICD_VENDORS", "/nonexistent", 1);
  const std::string problem = "n=2 ic=8 oc=8 groups=8 in=14x15 kernel=3 pad=1 layout=channels_first";
  const Library library = emitted("mixed", {kernel("each", "forward,input_gradient", problem)}, "opencl,x86-64").open();
  library.set_level("any");
  for (const auto &[name, from, to] : {std::tuple("forward", "x", "y"), std::tuple("input_gradient", "dy", "dx")}) {
    const Pass pass = library.pass("each", name);
    const Tensor in = pass.make(from), weight = pass.make("weight"), out = pass.make(to);
    const auto element = [](std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) { return float((n * 7 + c * 5 + h * 3 + w) % 11); };
    const auto each = [&](auto what) {
      for (std::int64_t i = 0; i < in.elements(); i++) what(i / (15 * 14 * 8), i / (15 * 14) % 8, i / 15 % 14, i % 15);
    };
    each([&](auto n, auto c, auto h, auto w) { in.at({n, c, h, w}) = element(n, c, h, w); });
    for (std::int64_t c = 0; c < 8; c++) weight.at({c, 0, 1, 1}) = float(c + 1);
    pass({{from, in}, {"weight", weight}, {to, out}});
    int wrong = 0;
    each([&](auto n, auto c, auto h, auto w) { wrong += out.at({n, c, h, w}) != float(c + 1) * element(n, c, h, w); });
    EXPECT_EQ(wrong, 0) << name;
  }
}

KernelJob cuda_job(const std::string &problem, const std::string &pass, const TemporaryFolder &folder) {
  KernelJob job;
  job.problem = problem, job.pass = pass, job.target = "cuda-7.5", job.cpu = "*", job.function = "kernel";
  job.object = folder / "kernel.o", job.assembly = folder / "kernel.ptx";
  return job;
}

struct Assembled {
  const char *problem, *pass;
};

// Sums stay in registers: nothing is spilled at any capability.
TEST(Cuda, KernelsAssembleWithoutSpills) {
  const auto ptxas = find_ptxas();
  if (!ptxas) GTEST_SKIP() << "ptxas, of the CUDA toolkit, is not installed";
  const TemporaryFolder folder;
  int kernels = 0;
  for (const auto &[problem, pass] : std::vector<Assembled>{
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1", "forward"},
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1", "input_gradient"},
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1", "weight_gradient"},
           {"n=8 ic=512 oc=128 in=28x28 kernel=1", "forward"},
           {"n=8 ic=512 oc=128 in=28x28 kernel=1", "input_gradient"},
           {"n=8 ic=512 oc=128 in=28x28 kernel=1", "weight_gradient"},
           {"n=8 ic=128 oc=128 in=56x56 kernel=3 stride=2 pad=1", "forward"},
           {"n=8 ic=128 oc=128 in=56x56 kernel=3 stride=2 pad=1", "input_gradient"},
           {"n=8 ic=128 oc=128 in=56x56 kernel=3 stride=2 pad=1", "weight_gradient"},
           {"n=8 ic=144 oc=144 groups=144 in=56x56 kernel=3 pad=1", "forward"},
           {"n=8 ic=144 oc=144 groups=144 in=56x56 kernel=3 pad=1", "weight_gradient"},
           {"n=3 in=1080x1920 kernel=5 pad=2 border=replicate", "forward"},
           {"n=3 in=1080x1920 kernel=5 pad=2 border=replicate", "weight_gradient"},
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1 bias=1", "bias_gradient"},
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1 type=f16", "forward"},
           {"n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1 type=bf16", "forward"},
           {"in=?x? kernel=3 stride=2 pad=1 border=replicate", "input_gradient"},
       }) {
    const KernelJob job = cuda_job(problem, pass, folder);
    const KernelResult made = compile_kernel(job);
    EXPECT_FALSE(made.launches.empty());
    for (const int sm : {75, 80, 90})
      for (auto &k : assemble_ptx(*ptxas, job.assembly, sm)) {
        EXPECT_EQ(k.spilled_bytes, 0) << pass << " of \"" << problem << "\" at sm_" << sm << ", " << made.schedule << " " << made.knobs;
        for (auto &l : made.launches)
          if (l.kernel == k.name) {
            EXPECT_GE(occupancy(sm, l.threads, k.registers, l.shared_bytes), 0.1) << pass << " of \"" << problem << "\"";
            kernels++;
          }
      }
  }
  EXPECT_GE(kernels, 3 * 17);
}

// Channels of both operands lie side by side: of 4x4 sums and eight channels all reads are of four elements.
TEST(Cuda, ReadsFourElementsAtOnce) {
  const TemporaryFolder folder;
  for (const char *pass : {"forward", "input_gradient", "weight_gradient"}) {
    const KernelJob job = cuda_job("n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1", pass, folder);
    compile_kernel(job);
    const std::string ptx = read_file(job.assembly);
    int fours = 0, others = 0;
    for (size_t at = 0; (at = ptx.find("ld.global.nc.", at)) != std::string::npos; at++)
      (ptx.substr(at + 13, 6) == "v4.b32" || ptx.substr(at + 13, 6) == "v2.b64" ? fours : others)++;
    EXPECT_GE(fours, 4) << pass;
    EXPECT_LE(others, std::string(pass) == "weight_gradient" ? 1 : 0) << pass << ": one in the sum of the partial sums";
    EXPECT_EQ(ptx.find("ld.shared"), std::string::npos) << pass;
  }
}

// More than Halide's bounds showed beforehand: the slices of a cut.
TEST(Cuda, RefusesMoreSharedMemoryThanABlockHas) {
  const TemporaryFolder folder;
  KernelJob job = cuda_job("n=8 ic=64 oc=64 in=56x56 kernel=3 pad=1", "weight_gradient", folder);
  job.schedule = "gpu_partial_sums", job.knobs = "tile=4,2,1 thread=8,16 chunk=16,1,1 cut=0,2,0 unroll=8";
  EXPECT_THAT(message_of([&] { compile_kernel(job); }), HasSubstr("1609728 bytes of shared memory: expected at most 49152"));
}

// Source: NVIDIA's occupancy calculator.
TEST(Cuda, Occupancy) {
  EXPECT_DOUBLE_EQ(occupancy(80, 256, 32, 0), 1);
  EXPECT_DOUBLE_EQ(occupancy(80, 256, 64, 0), 0.5);
  EXPECT_DOUBLE_EQ(occupancy(80, 128, 32, 48 * 1024), 3 * 4 / 64.);
  EXPECT_DOUBLE_EQ(occupancy(75, 1024, 64, 0), 1);
  EXPECT_DOUBLE_EQ(occupancy(90, 128, 255, 0), 8 / 64.);
}

}  // namespace
}  // namespace convsmith
