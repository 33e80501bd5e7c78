// What the C layer refuses, in its own words and with nothing written, and what it takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include "emitted.h"
#include "tools/verify/reference.h"

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
  EXPECT_EQ(changed([](Call &c) { c["x"].type = CONVSMITH_U8; }),
            "demo_odd_forward: x: expected f32 of 4 axes, got u8 of 4");
  EXPECT_EQ(changed([](Call &c) { c["x"].type = 99; }),
            "demo_odd_forward: x: expected f32 of 4 axes, got an unknown type of 4");
  EXPECT_EQ(changed([](Call &c) { c["x"].type = -1; }),
            "demo_odd_forward: x: expected f32 of 4 axes, got an unknown type of 4");
  EXPECT_EQ(changed([](Call &c) { c["bias"].rank = 2; }),
            "demo_odd_forward: bias: expected f32 of 1 axes, got f32 of 2");
  EXPECT_EQ(changed([](Call &c) { c["x"].extent[3] = 12; }),
            "demo_odd_forward: x: axis 3: expected 11 elements, got 12");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[1] = 2; }),
            "demo_odd_forward: x: axis 1: expected a stride of 1, got 2");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[3] = 6; }),
            "demo_odd_forward: x: axis 3: expected a stride of 5, got 6");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = 54; }),
            "demo_odd_forward: x: axis 2: expected a stride of at least 55, got 54");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = -55; }),
            "demo_odd_forward: x: axis 2: expected a stride of at least 55, got -55");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = std::int64_t(1) << 40; }),
            "demo_odd_forward: x: axis 2: a stride of 1099511627776 leads past 2^31 elements");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = INT64_MAX; }),
            "demo_odd_forward: x: axis 2: a stride of 9223372036854775807 leads past 2^31 elements");
  EXPECT_EQ(changed([](Call &c) { c["x"].stride[2] = 300000000; }),
            "demo_odd_forward: x: axis 2: a stride of 300000000 leads past 2^31 elements");
  EXPECT_EQ(changed([](Call &c) { c["x"].data = static_cast<char *>(c["x"].data) + 1; }),
            "demo_odd_forward: x: the data is not aligned to its elements");
  EXPECT_EQ(changed([](Call &c) { c["weight"].stride[0] = 3; }),
            "demo_odd_forward: weight: axis 0: expected a stride of 1, got 3");
}

// Packing takes any strides, but not from beyond what 32 bits reach, alone or together.
TEST_F(CLayer, RefusesFarStridesWhereAnyMayBe) {
  const auto with = [&](std::int64_t oc, std::int64_t ic) {
    Call call(library, "odd", "pack_weight");
    call["from"].stride[0] = oc, call["from"].stride[1] = ic;
    return refusal(call);
  };
  EXPECT_EQ(with(200'000'000, 300'000'000), "demo_odd_pack_weight: from: the tensor spans more than 2^31 elements");
  EXPECT_EQ(with(-200'000'000, 300'000'000), "demo_odd_pack_weight: from: the tensor spans more than 2^31 elements");
  EXPECT_EQ(with(INT64_MIN, 9),
            "demo_odd_pack_weight: from: axis 0: a stride of -9223372036854775808 leads past 2^31 elements");
  EXPECT_EQ(with(45, -600'000'000),
            "demo_odd_pack_weight: from: axis 1: a stride of -600000000 leads past 2^31 elements");
}

TEST_F(CLayer, RefusesResultsOverInputs) {
  Call call(library, "odd", "train_step");
  call["weight_out"].data = call["weight"].data;
  EXPECT_EQ(refusal(call), "demo_odd_train_step: weight_out must not overlap weight");
  Call shifted(library, "odd", "activation_gradient");
  shifted["dpre"].data = static_cast<float *>(shifted["dy"].data) + 3;
  EXPECT_EQ(shifted.run(), CONVSMITH_BAD_ARGUMENT);
}

// The last or the first element shared is too much; beside each other is not.
TEST_F(CLayer, SeesOverlapsToTheElement) {
  const std::int64_t inputs = 9 * 55, outputs = 9 * 77;
  for (const bool before : {false, true})
    for (const std::int64_t shared : {0, 1}) {
      Call call(library, "odd", "forward");
      std::vector<float> memory(inputs + outputs, 77);
      call["y"].data = memory.data() + (before ? 0 : inputs);
      call["x"].data = memory.data() + (before ? outputs - shared : shared);
      EXPECT_EQ(call.run(), shared ? CONVSMITH_BAD_ARGUMENT : CONVSMITH_OK) << before << shared;
      if (!shared) continue;
      EXPECT_STREQ(call.error.message, "demo_odd_forward: y must not overlap x");
      EXPECT_THAT(memory, testing::Each(77.f));
    }
}

// A row of x, then one of y, and so on in one memory: nothing overlaps. One element in common is too much.
TEST_F(CLayer, TakesRowsBetweenEachOther) {
  Call apart(library, "odd", "forward"), call(library, "odd", "forward");
  ASSERT_EQ(apart.run(), CONVSMITH_OK);
  const std::int64_t pitch = 55 + 77;
  std::vector<float> memory(18 * pitch);
  for (int h = 0; h < 9; h++)
    std::memcpy(&memory[h * pitch], call.tensor("x").data<float>() + h * 55, 55 * sizeof(float));
  call["x"].data = &memory[0], call["y"].data = &memory[55];
  call["x"].stride[2] = call["y"].stride[2] = pitch;
  ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
  for (int h = 0; h < 9; h++)
    for (int i = 0; i < 77; i++)
      ASSERT_EQ(memory[h * pitch + 55 + i], apart.result().data<float>()[h * 77 + i]) << h << " " << i;
  const std::vector<float> before = memory;
  for (const std::int64_t shared : {std::int64_t(0), std::int64_t(54), 4 * pitch + 1, 8 * pitch, 8 * pitch + 54}) {
    call["y"].data = &memory[shared];
    EXPECT_EQ(call.run(), CONVSMITH_BAD_ARGUMENT) << shared;
    EXPECT_EQ(memory, before);
  }
  call["y"].data = &memory[8 * pitch + 55];
  EXPECT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
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
    for (int i = 0; i < wide; i++)
      ASSERT_EQ(y[h * wide + i], i < 77 ? dense_call.result().data<float>()[h * 77 + i] : 55.f) << h << " " << i;
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

// Odd extents, every pass and level.
TEST_F(CLayer, TouchesNothingAroundItsTensors) {
  for (std::int32_t level = 0; level < library.table().level_count; level++) {
    if (library.table().set_level(level, nullptr) != CONVSMITH_OK) continue;
    for (const Pass &pass : library.passes()) {
      Call call(library, pass.kernel(), pass.name());
      const Guards guards(call);
      ASSERT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
      EXPECT_TRUE(guards.intact()) << pass.title() << " at " << library.level();
    }
  }
}

TEST_F(CLayer, TakesAnyStrideAlongOneElement) {
  Call call(library, "odd", "forward"), same(library, "odd", "forward");
  ASSERT_EQ(same.run(), CONVSMITH_OK);
  for (const std::int64_t stride : {std::int64_t(0), INT64_MIN, INT64_MAX}) {
    call["x"].stride[0] = call["y"].stride[0] = stride;
    call.result().fill(77);
    EXPECT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
    EXPECT_EQ(call.results(), same.results()) << stride;
  }
}

// An axis of one element need not be the outermost; no axis beyond it lies further apart for that.
TEST(AnAxisOfOneElement, MayLieBeforeOthersInMemory) {
  const Library library = emitted("one_row", {kernel("k", "forward", "n=2 ic=3 oc=3 in=1x8 kernel=1x3")}, "host").open();
  Call call(library, "k", "forward"), same(library, "k", "forward");
  ASSERT_EQ(same.run(), CONVSMITH_OK);
  for (const std::int64_t stride : {std::int64_t(48), INT64_MAX}) {
    call["x"].stride[2] = call["y"].stride[2] = stride;
    call.result().fill(77);
    EXPECT_EQ(call.run(), CONVSMITH_OK) << call.error.message;
    EXPECT_EQ(call.results(), same.results()) << stride;
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

// Before any kernel has run.
TEST(ParallelFor, RunsOnAsManyThreadsAsThereAreProcessors) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two processors";
  const Library library = emitted("loop_first", {kernel("k", "forward", "in=6x8 kernel=1x2")}, "host").open();
  std::mutex lock;
  std::set<std::thread::id> threads;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (threads.size() < 2 && std::chrono::steady_clock::now() < until)
    library.parallel_for(64, [&](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      const std::lock_guard held(lock);
      threads.insert(std::this_thread::get_id());
    });
  EXPECT_GE(threads.size(), 2u);
}

int stop_early(void *calls, int (*body)(void *, std::int32_t), void *context, std::int32_t) {
  ++*static_cast<int *>(calls);
  body(context, 0);
  return -7;
}

// Also of a kernel that asks for no memory, and so has no assertions of its own.
TEST(ParallelFor, AFailureOfTheCallersLoopIsReported) {
  const Library library = emitted("parallel",
                                  {kernel("dense", "forward", "ic=64 oc=64 in=56x56 kernel=3 pad=1 border=reflect"),
                                   kernel("depthwise", "forward", "ic=48 oc=48 groups=48 in=56x56 kernel=3 pad=1")},
                                  "host")
                              .open();
  EXPECT_GT(library.pass("dense", "forward").workspace(1), 0u);
  EXPECT_EQ(library.pass("depthwise", "forward").workspace(1), 0u);
  for (const char *name : {"dense", "depthwise"}) {
    int calls = 0;
    library.table().set_parallel_for(stop_early, &calls);
    Call call(library, name, "forward");
    EXPECT_EQ(call.run(), CONVSMITH_FAILED) << name;
    EXPECT_GT(calls, 0) << name;
    EXPECT_EQ(call.error.message, "parallel_" + std::string(name) + "_forward: the parallel loop returned -7");
    EXPECT_EQ(library.table().parallel_for([](void *, std::int32_t) { return 0; }, nullptr, 3), -7);
    // A number that a kernel would mean another thing by.
    library.table().set_parallel_for([](void *, int (*)(void *, std::int32_t), void *, std::int32_t) { return -11; }, nullptr);
    EXPECT_EQ(call.run(), CONVSMITH_FAILED) << name;
    EXPECT_EQ(call.error.message, "parallel_" + std::string(name) + "_forward: the parallel loop returned -11");
    library.table().set_parallel_for(nullptr, nullptr);
    EXPECT_EQ(call.run(), CONVSMITH_OK);
  }
}

}  // namespace
}  // namespace convsmith
