// One variant of one schedule gives the same bits at any number of threads, with the library's own threads and with
// a caller's loop.
#include "tools/emit/library.h"
#include "convsmith/library.h"
#include "tools/verify/reference.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <random>
#include <thread>

namespace convsmith {
namespace {

class Reproducible : public testing::TestWithParam<const char *> {};

int run_backwards(void *, int (*body)(void *, std::int32_t), void *context, std::int32_t count) {
  int status = 0;
  for (std::int32_t i = count; i-- > 0 && !status;) status = body(context, i);
  return status;
}

TEST_P(Reproducible, SameBitsAtOneTwoFourThreads) {
  const Problem p = Problem::parse(GetParam());
  EmitOptions o;
  o.name = "threads";
  const KernelRequest request{"k", parse_passes(p.bias ? "forward,input_gradient,weight_gradient,bias_gradient" : "forward,input_gradient,weight_gradient", p), p, "", {}};
  const Library library = Library::open(cached_library({request}, o), o.name);
  std::mt19937_64 random(7);
  for (const Pass &pass : library.passes()) {
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (int i = 0; i < pass.arguments(); i++) {
      tensors.push_back({pass.argument_name(i), pass.make(pass.argument_name(i))});
      if (i >= pass.arguments() - pass.outputs()) continue;
      float *data = tensors.back().second.data<float>();
      for (std::int64_t e = 0; e < tensors.back().second.elements(); e++) data[e] = float(random() >> 40) * 0x1p-23f - 1;
    }
    const Tensor &result = tensors.back().second;
    std::vector<std::vector<float>> results;
    for (int threads : {1, 2, 4, 0}) {
      library.set_threads(threads);
      result.fill(77);
      pass.run(tensors);
      results.push_back(dense<float>(result));
    }
    library.table().set_parallel_for(run_backwards, nullptr);
    result.fill(77);
    pass.run(tensors);
    library.table().set_parallel_for(nullptr, nullptr);
    results.push_back(dense<float>(result));
    for (auto &r : results) EXPECT_EQ(r, results[0]) << pass.name() << " of " << p.str();
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, Reproducible,
                         testing::Values("ic=64 oc=64 in=56x56 kernel=3 pad=1 bias=1", "ic=32 oc=40 n=3 in=27x29 kernel=3 stride=2 pad=1",
                                         "ic=48 oc=48 groups=48 in=56x56 kernel=3 pad=1", "ic=24 oc=24 in=4000 kernel=9 dilation=4",
                                         "ic=16 oc=16 in=12x28x28 kernel=3 pad=1"));

}  // namespace
}  // namespace convsmith
