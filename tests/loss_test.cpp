#include "convsmith/loss.h"
#include <gtest/gtest.h>
#include <random>
#include "convsmith/error.h"

namespace convsmith {
namespace {

Tensor random(const Shape &shape, unsigned seed) {
  const Tensor t(shape);
  std::mt19937 engine(seed);
  for (std::int64_t i = 0; i < t.elements(); i++) t.data<float>()[i] = static_cast<float>(engine() % 2001) / 1000 - 1;
  return t;
}

// The same numbers with the last axis outermost in memory.
Tensor reordered(const Tensor &t) {
  convsmith_tensor like = t.c();
  for (int i = 0; i < like.rank; i++) like.stride[i] = i == like.rank - 1 ? 1000 : 10 * (like.rank - i);
  return t.ordered_like(like);
}

TEST(Loss, SumSquaredAndMeanSquared) {
  const Tensor y({1, 1, 2, 2}), target({1, 1, 2, 2}), dy({1, 1, 2, 2});
  y.at({0, 0, 0, 0}) = 3;
  target.at({0, 0, 1, 1}) = 2;
  EXPECT_EQ(Loss{Loss::Kind::sum_squared}(y, target, dy), 13);
  EXPECT_EQ(dy.at({0, 0, 0, 0}), 6);
  EXPECT_EQ(dy.at({0, 0, 1, 1}), -4);
  EXPECT_EQ(dy.at({0, 0, 0, 1}), 0);
  EXPECT_EQ(Loss{Loss::Kind::mean_squared}(y, target, dy), 13.0 / 4);
  EXPECT_EQ(dy.at({0, 0, 0, 0}), 1.5f);
  EXPECT_EQ(Loss{Loss::Kind::mean_squared}.value(y, target), 13.0 / 4);
}

TEST(Loss, DoesNotDependOnTheMemoryOrder) {
  const Shape shape{3, 5, 7, 4};
  const Tensor y = random(shape, 1), target = random(shape, 2), dy(shape), other_dy = reordered(dy);
  const Loss loss{Loss::Kind::mean_squared};
  const double value = loss(y, target, dy);
  EXPECT_NE(reordered(y).strides(), y.strides());
  EXPECT_EQ(loss(reordered(y), target, other_dy), value);
  EXPECT_EQ(loss.value(y, reordered(target)), value);
  const Tensor back(shape);
  back.copy_from(other_dy);
  for (std::int64_t i = 0; i < dy.elements(); i++) ASSERT_EQ(back.data<float>()[i], dy.data<float>()[i]);
}

TEST(Loss, GradientIsTheDifferenceQuotient) {
  const Tensor y = random({2, 3}, 3), target = random({2, 3}, 4), dy({2, 3});
  for (const Loss loss : {Loss{Loss::Kind::sum_squared}, Loss{Loss::Kind::mean_squared}}) {
    loss(y, target, dy);
    for (std::int64_t i = 0; i < y.elements(); i++) {
      const float kept = y.data<float>()[i], step = 0x1p-8f;
      y.data<float>()[i] = kept + step;
      const double above = loss.value(y, target);
      y.data<float>()[i] = kept - step;
      const double below = loss.value(y, target);
      y.data<float>()[i] = kept;
      EXPECT_NEAR(dy.data<float>()[i], (above - below) / (2 * step), 1e-4) << loss.name() << " element " << i;
    }
  }
}

TEST(Loss, GradientMayReplaceTheOutput) {
  const Tensor y = random({7}, 5), target = random({7}, 6), dy({7});
  const double value = Loss{}(y, target, dy);
  EXPECT_EQ(Loss{}(y, target, y), value);
  for (std::int64_t i = 0; i < 7; i++) EXPECT_EQ(y.at({i}), dy.at({i}));
}

TEST(Loss, OfNothingIsZero) {
  const Tensor empty(Shape{0, 3});
  EXPECT_EQ(Loss{Loss::Kind::mean_squared}(empty, empty, empty), 0);
}

TEST(Loss, RefusesOtherShapesAndWords) {
  EXPECT_THROW((void)Loss{}.value(Tensor({2}), Tensor({3})), Error);
  EXPECT_THROW((void)Loss{}.value(Tensor({2}, CONVSMITH_I32), Tensor({2}, CONVSMITH_I32)), Error);
  EXPECT_THROW((void)Loss{}(Tensor({2}), Tensor({2}), Tensor({1, 2})), Error);
  EXPECT_EQ(Loss::parse("mean_squared").kind, Loss::Kind::mean_squared);
  EXPECT_THROW(Loss::parse("hinge"), Error);
}

}  // namespace
}  // namespace convsmith
