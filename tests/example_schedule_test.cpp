// docs/adding-a-schedule.md: its schedule is this one, and gives what the reference schedule gives.
#include <gtest/gtest.h>
#include "convsmith/file.h"
#include "example_schedule.h"
#include "generators/kernel_generator.h"
#include "schedules/levels.h"

namespace convsmith {
namespace {

Halide::Buffer<float> buffer_of(const BufferSpec &spec) {
  std::vector<int> extents;
  for (auto &dim : spec.dims) extents.push_back(dim.extent);
  return Halide::Buffer<float>(extents);
}

Halide::Buffer<float> result_of(const Schedule &schedule, const std::string &problem) {
  const Workload w{Problem::parse(problem), PassKind::forward, host_target()};
  const std::vector<BufferSpec> specs = find_operator(w).buffers(w);
  std::vector<Halide::ImageParam> inputs = described_inputs(w);
  Stages s = find_operator(w).build(w, {inputs.begin(), inputs.end()});
  EXPECT_TRUE(schedule.supports(s, w)) << problem;
  schedule.apply(s, presets(schedule, s, w), w);
  schedule_rest(s, w);
  for (size_t i = 0; i < inputs.size(); i++) {
    Halide::Buffer<float> b = buffer_of(specs[i]);
    int next = int(i);
    b.for_each_value([&](float &value) { value = float((next = (next * 5 + 3) % 17) - 8); });
    inputs[i].set(b);
  }
  Halide::Buffer<float> result = buffer_of(specs[inputs.size()]);
  s.result().realize(result, w.target);
  return result;
}

TEST(ExampleSchedule, EqualsTheReference) {
  for (const char *problem : {"ic=5 oc=20 in=9x11 kernel=3 pad=1", "n=2 ic=6 oc=34 groups=2 in=7x8 kernel=3x2 stride=2 bias=1",
                              "ic=3 oc=17 in=4x5x6 kernel=2 pad=1 border=reflect"}) {
    const Halide::Buffer<float> got = result_of(example_rows, problem), want = result_of(find_schedule("reference"), problem);
    got.for_each_element([&](const int *at) { EXPECT_EQ(got(at), want(at)) << problem; });
  }
}

TEST(ExampleSchedule, IsTheOneInTheDocs) {
  const std::string doc = read_file(CONVSMITH_SOURCE "/docs/adding-a-schedule.md"),
                    code = read_file(CONVSMITH_SOURCE "/tests/example_schedule.cpp");
  const size_t from = doc.find("```cpp\n") + 7, end = doc.find("```", from);
  ASSERT_LT(end, doc.size());
  EXPECT_NE(code.find(doc.substr(from, end - from)), std::string::npos);
}

}  // namespace
}  // namespace convsmith
