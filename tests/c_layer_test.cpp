// What the C layer refuses, in its own words and with nothing written, and what it takes.
#include "emitted.h"
#include "tools/verify/reference.h"
#include <atomic>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

namespace convsmith {
namespace {

class CLayer : public testing::Test {
 protected:
  const Library library = demo().open();

  // The message of a call that must fail with this status, its results untouched.
  std::string refusal(Call &call, convsmith_status status = CONVSMITH_BAD_ARGUMENT) {
    EXPECT_EQ(call.run(), status);
    EXPECT_EQ(call.error.status, status);
    EXPECT_THAT(call.results(), testing::Each(77.f));
    return call.error.message;
  }
};

TEST_F(CLayer, RefusesWhatDoesNotFit) {
  const auto changed = [&](auto change) {
    Call call(library, "odd", "forward");
    change(call);
    return refusal(call);
  };
  EXPECT_EQ(changed([](Call &c) { c["x"].data = nullptr; }), "demo_odd_forward: x: expected data, got a null pointer");
  EXPECT_EQ(changed([](Call &c) { c["x"].type = CONVSMITH_U8; }), "demo_odd_forward: x: expected f32 of 4 axes, got u8 of 4");
  EXPECT_EQ(changed([](Call &c) { c["x"].type = 99; }), "demo_odd_forward: x: expected f32 of 4 axes, got an unknown type of 4");
  EXPECT_EQ(changed([](Call &c) { c["x"].type = -1; }), "demo_odd_forward: x: expected f32 of 4 axes, got an unknown type of 4");
  EXPECT_EQ(changed([](Call &c) { c["bias"].rank = 2; }), "demo_odd_forward: bias: expected f32 of 1 axes, got f32 of 2");
  EXPECT_EQ(changed([](Call &c) { c["x"].extent[3] = 12; }), "demo_odd_forward: x: axis 3: expected 11 elements, got 12");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[1] = 2; }), "demo_odd_forward: x: axis 1: expected a stride of 1, got 2");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[3] = 6; }), "demo_odd_forward: x: axis 3: expected a stride of 5, got 6");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = 54; }), "demo_odd_forward: x: axis 2: expected a stride of at least 55, got 54");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = -55; }), "demo_odd_forward: x: axis 2: expected a stride of at least 55, got -55");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = std::int64_t(1) << 40; }), "demo_odd_forward: x: axis 2: a stride of 1099511627776 leads past 2^31 elements");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = INT64_MAX; }), "demo_odd_forward: x: axis 2: a stride of 9223372036854775807 leads past 2^31 elements");
  EXPECT_EQ(changed([](Call &c) { c["x"].data = static_cast<char *>(c["x"].data) + 1; }), "demo_odd_forward: x: the data is not aligned to its elements");
  EXPECT_EQ(changed([](Call &c) { c["weight"].stride[0] = 3; }), "demo_odd_forward: weight: axis 0: expected a stride of 1, got 3");
}

TEST_F(CLayer, RefusesResultsOverInputs) {
  Call call(library, "odd", "train_step");
  call["weight_out"].data = call["weight"].data;
  EXPECT_EQ(refusal(call), "demo_odd_train_step: weight_out must not overlap weight");
  Call shifted(library, "odd", "activation_gradient");
  shifted["dpre"].data = static_cast<float *>(shifted["dy"].data) + 3;
  EXPECT_EQ(shifted.run(), CONVSMITH_BAD_ARGUMENT);
}

TEST_F(CLayer, TakesNullWhereItMay) {
  Call call(library, "odd", "forward");
  EXPECT_EQ(call.pass->run(call.descriptors.data(), nullptr), CONVSMITH_OK);
  call["x"].data = nullptr;
  EXPECT_EQ(call.pass->run(call.descriptors.data(), nullptr), CONVSMITH_BAD_ARGUMENT);
  EXPECT_EQ(call.pass->run(nullptr, &call.error), CONVSMITH_BAD_ARGUMENT);
  EXPECT_STREQ(call.error.message, "demo_odd_forward: expected arguments, got a null pointer");
}

// Rows of a wider image: the same numbers, and nothing between the rows is touched.
TEST_F(CLayer, TakesRowsThatLieFurtherApart) {
  Call dense_call(library, "odd", "forward"), call(library, "odd", "forward");
  ASSERT_EQ(dense_call.run(), CONVSMITH_OK);
  const std::int64_t wide = 80;
  std::vector<float> x(9 * wide, 1e30f), y(9 * wide, 55.f);
  for (int h = 0; h < 9; h++) std::memcpy(&x[h * wide], call.tensor("x").data<float>() + h * 55, 55 * sizeof(float));
  call["x"].data = x.data(), call["x"].stride[2] = wide, call["y"].data = y.data(), call["y"].stride[2] = wide;
  ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  for (int h = 0; h < 9; h++)
    for (int i = 0; i < wide; i++) ASSERT_EQ(y[h * wide + i], i < 77 ? dense_call.result().data<float>()[h * 77 + i] : 55.f) << h << " " << i;
}

TEST_F(CLayer, PacksFromAnyOrderEvenBackwards) {
  Call call(library, "odd", "pack_weight");
  const Tensor from = call.tensor("from");
  // Columns of taps from the last to the first: a flipped view.
  call["from"].data = from.data<float>() + 2, call["from"].stride[3] = -1;
  ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  for (int oc = 0; oc < 7; oc++)
    for (int kw = 0; kw < 3; kw++) EXPECT_EQ(call.result().at({oc, 4, 1, kw}), from.at({oc, 4, 1, 2 - kw}));
}

// Odd extents, every pass: a few cache lines on both sides of each buffer stay as they were.
TEST_F(CLayer, TouchesNothingAroundItsTensors) {
  constexpr std::int64_t guard = 64;
  for (const Pass &pass : library.passes()) {
    Call call(library, pass.kernel(), pass.name());
    std::vector<std::vector<float>> memory;
    for (size_t i = 0; i < call.tensors.size(); i++) {
      const std::int64_t n = call.tensors[i].elements();
      memory.emplace_back(size_t(n + 2 * guard), 12345.f);
      std::memcpy(&memory[i][guard], call.tensors[i].data<float>(), size_t(n) * sizeof(float));
      call.descriptors[i].data = &memory[i][guard];
    }
    ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
    for (auto &m : memory)
      for (std::int64_t i = 0; i < guard; i++) {
        ASSERT_EQ(m[size_t(i)], 12345.f) << pass.title();
        ASSERT_EQ(m[m.size() - 1 - size_t(i)], 12345.f) << pass.title();
      }
  }
}

TEST_F(CLayer, AnswersManyCallersAtOnce) {
  Call first(library, "odd", "weight_gradient");
  ASSERT_EQ(first.run(), CONVSMITH_OK);
  const std::vector<float> wanted = first.results();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; t++)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; i++) {
        Call call(library, "odd", "weight_gradient");
        wrong += call.run() != CONVSMITH_OK || call.results() != wanted;
      }
    });
  for (auto &t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

int stop_early(void *, int (*body)(void *, std::int32_t), void *context, std::int32_t) {
  body(context, 0);
  return -7;
}

TEST(ParallelFor, AFailureOfTheCallersLoopIsReported) {
  const Library library = emitted("parallel", {kernel("k", "forward", "ic=64 oc=64 in=56x56 kernel=3 pad=1")}, "host").open();
  library.table().set_parallel_for(stop_early, nullptr);
  Call call(library, "k", "forward");
  EXPECT_EQ(call.run(), CONVSMITH_FAILED);
  EXPECT_STRNE(call.error.message, "");
  library.table().set_parallel_for(nullptr, nullptr);
  EXPECT_EQ(call.run(), CONVSMITH_OK);
}

}  // namespace
}  // namespace convsmith
