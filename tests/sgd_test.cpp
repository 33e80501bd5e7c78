#include "convsmith/sgd.h"
#include <gtest/gtest.h>
#include <limits>
#include <type_traits>
#include "convsmith/error.h"

namespace convsmith {
namespace {

Tensor of(std::initializer_list<float> values) {
  const Tensor t({static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

TEST(Sgd, StepsAgainstTheGradient) {
  Sgd sgd(0.5);
  const std::vector<Parameter> parameters{{of({1, 2}), of({4, -2})}, {of({10}), of({1})}};
  sgd.step(parameters);
  EXPECT_EQ(parameters[0].value.at({0}), -1);
  EXPECT_EQ(parameters[0].value.at({1}), 3);
  EXPECT_EQ(parameters[1].value.at({0}), 9.5f);
  EXPECT_EQ(parameters[0].gradient.at({0}), 4);
}

TEST(Sgd, MomentumGathersSpeed) {
  Sgd sgd(1, 0.5);
  const std::vector<Parameter> parameters{{of({0}), of({1})}};
  sgd.step(parameters);  // v = 1
  EXPECT_EQ(parameters[0].value.at({0}), -1);
  sgd.step(parameters);  // v = 1.5
  EXPECT_EQ(parameters[0].value.at({0}), -2.5f);
  parameters[0].gradient.fill(0);
  sgd.step(parameters);  // v = 0.75
  EXPECT_EQ(parameters[0].value.at({0}), -3.25f);
}

TEST(Sgd, TakesGradientsInAnotherMemoryOrder) {
  for (double momentum : {0.0, 0.5}) {
    const Tensor value({2, 3}), gradient = Tensor({3, 2}).permuted({1, 0});
    for (std::int64_t i = 0; i < 6; i++) gradient.at({i / 3, i % 3}) = static_cast<float>(i);
    Sgd sgd(1, momentum);
    sgd.step({{value, gradient}});
    for (std::int64_t i = 0; i < 6; i++) EXPECT_EQ(value.at({i / 3, i % 3}), static_cast<float>(-i));
  }
}

TEST(Sgd, RefusesWhatCannotBe) {
  EXPECT_THROW(Sgd(-1), Error);
  EXPECT_THROW(Sgd(std::numeric_limits<double>::infinity()), Error);
  EXPECT_THROW(Sgd(1, 1), Error);
  EXPECT_THROW(Sgd(1, std::numeric_limits<double>::quiet_NaN()), Error);
  Sgd sgd(1, 0.5);
  EXPECT_THROW(sgd.step({{of({1}), of({1, 2})}}), Error);
  EXPECT_THROW(sgd.step({{of({1}), Tensor()}}), Error);
  sgd.step({{of({1}), of({1})}});
  EXPECT_THROW(sgd.step({}), Error);
  EXPECT_THROW(sgd.step({{of({1, 2}), of({1, 2})}}), Error);
  Sgd plain(1);
  plain.step({{of({1}), of({1})}});
  EXPECT_THROW(plain.step({{of({1}), of({1})}, {of({1}), of({1})}}), Error);
  EXPECT_THROW(plain.step({{of({1, 2}), of({1, 2})}}), Error);
  static_assert(!std::is_copy_constructible_v<Sgd>);  // two would share their velocities
}

}  // namespace
}  // namespace convsmith
