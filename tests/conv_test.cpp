// A layer over the hand-written library.
#include "convsmith/conv.h"
#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include "convsmith/loss.h"
#include "convsmith/trainer.h"
#include "edge_example.h"

namespace convsmith {
namespace {

TEST(Conv, AppliesTheEdgeKernel) {
  const Tensor y = edge_target();
  const float wanted[] = {0, 1, 0, 0, 0, -1, 0};
  for (std::int64_t i = 0; i < 42; i++) EXPECT_EQ(y.data<float>()[i], wanted[i % 7]);
}

TEST(Conv, InitialisesAlikeEverywhere) {
  Conv conv(library, "packed"), other(library, "packed");
  conv.initialise(7);
  other.initialise(7);
  const float bound = 1 / std::sqrt(12.0f);  // 2 channels in a group, 3x2 taps
  float largest = 0;
  for (std::int64_t oc = 0; oc < 6; oc++) {
    for (std::int64_t i = 0; i < 12; i++) {
      const float value = conv.weight().at({oc, i / 6, i / 2 % 3, i % 2});
      EXPECT_EQ(value, other.weight().at({oc, i / 6, i / 2 % 3, i % 2}));
      EXPECT_LE(std::abs(value), bound);
      largest = std::max(largest, std::abs(value));
    }
  }
  EXPECT_GT(largest, 0.9f * bound);
  // mt19937_64's first number from seed 7 is 13915952638675311015: C++ fixes the engine.
  EXPECT_FLOAT_EQ(conv.weight().at({0, 0, 0, 0}),
                  static_cast<float>((2 * (13915952638675311015u * 0x1p-64) - 1) * bound));
  EXPECT_NE(conv.bias().at({0}), 0);
  other.initialise(8);
  EXPECT_NE(conv.weight().at({0, 0, 0, 0}), other.weight().at({0, 0, 0, 0}));
}

TEST(Conv, ForwardDoesNotDependOnTheMemoryOrders) {
  Conv conv(library, "packed");
  const Tensor x({2, 4, 5, 7}), weight({6, 2, 3, 2}), bias({6});
  fill_random(x, 1), fill_random(weight, 2), fill_random(bias, 3);
  conv.set_weight(weight);
  conv.set_bias(bias);
  const Tensor y = conv.forward(x);
  // One output against the formula: n=1 oc=4 (group 1) oh=1 ow=3; stride 2x1, pad 1x0.
  double sum = bias.at({4});
  for (std::int64_t ic = 0; ic < 2; ic++) {
    for (std::int64_t kh = 0; kh < 3; kh++) {
      for (std::int64_t kw = 0; kw < 2; kw++) sum += weight.at({4, ic, kh, kw}) * x.at({1, 2 + ic, 1 + kh, 3 + kw});
    }
  }
  EXPECT_NEAR(y.at({1, 4, 1, 3}), std::max(sum, 0.0), 1e-5);
  const Tensor again = conv.forward(conv.forward_pass().fit("x", x));
  EXPECT_EQ(inner_product(y, y), inner_product(y, again));
}

TEST(Conv, BackwardIsTheAdjoint) {
  Conv conv(library, "batch");
  const Tensor x({3, 2, 5, 4}), weight({3, 2, 3, 2}), dy({3, 3, 3, 3});
  fill_random(x, 1), fill_random(weight, 2), fill_random(dy, 3);
  conv.set_weight(weight);
  const double wanted = inner_product(conv.forward(x), dy);
  const Tensor dx = *conv.backward(dy, true);
  EXPECT_NEAR(inner_product(x, dx), wanted, 1e-4);
  EXPECT_NEAR(inner_product(weight, conv.parameters()[0].gradient), wanted, 1e-4);
  EXPECT_FALSE(conv.backward(dy, false));
  EXPECT_EQ(conv.forward(Tensor({1, 2, 5, 4})).shape(), (Shape{1, 3, 3, 3}));
}

TEST(Conv, GradientsAreDifferenceQuotients) {
  Conv conv(library, "packed");
  conv.initialise(3);
  const Tensor x({2, 4, 5, 7}), target({2, 6, 3, 6});
  fill_random(x, 4), fill_random(target, 5);
  const Loss loss;
  const Tensor y = conv.forward(x), dy(y.shape());
  loss(y, target, dy);
  const Tensor dx = *conv.backward(dy, true);
  for (const Parameter &parameter : conv.parameters()) {
    const Tensor gradient = parameter.gradient.clone();
    for (std::int64_t i = 0; i < parameter.value.elements(); i++) {
      float &value = parameter.value.data<float>()[i];
      const float kept = value, step = 0x1p-10f;
      double change = 0;
      for (float sign : {1.0f, -1.0f}) {
        value = kept + sign * step;
        conv.weights_changed();
        change += sign * loss.value(conv.forward(x), target);
      }
      value = kept;
      EXPECT_NEAR(gradient.data<float>()[i], change / (2 * step), 0.02) << i;
    }
  }
  conv.weights_changed();
  for (std::int64_t i = 0; i < x.elements(); i += 7) {
    float &value = x.data<float>()[i];
    const float kept = value, step = 0x1p-10f;
    value = kept + step;
    const double above = loss.value(conv.forward(x), target);
    value = kept - step;
    const double below = loss.value(conv.forward(x), target);
    value = kept;
    EXPECT_NEAR(dx.at({i / 140, i / 35 % 4, i / 7 % 5, i % 7}), (above - below) / (2 * step), 0.02) << i;
  }
}

TEST(Conv, PacksAgainAfterAStep) {
  Conv conv(library, "packed");
  conv.initialise(3);
  const Tensor x({2, 4, 5, 7});
  fill_random(x, 4);
  const Tensor dy = conv.forward(x).clone();
  (void)conv.backward(dy, true);
  Sgd sgd(0.01);
  conv.step(sgd);
  Conv fresh(library, "packed");
  fresh.set_weight(conv.weight());
  fresh.set_bias(conv.bias());
  const Tensor y = conv.forward(x), wanted = fresh.forward(x);
  EXPECT_NE(inner_product(dy, dy), inner_product(y, y));
  EXPECT_EQ(inner_product(y, y), inner_product(wanted, wanted));
  const Tensor dx = *conv.backward(dy, true), wanted_dx = *fresh.backward(dy, true);
  EXPECT_EQ(inner_product(dx, dx), inner_product(wanted_dx, wanted_dx));
}

TEST(Conv, HasNothingToGoBackFromAfterAForwardThatFailed) {
  Conv conv(library, "edge");
  (void)conv.forward(edge_input());
  EXPECT_THROW(conv.forward(edge_input(), Tensor({1, 1, 6, 9})), Error);
  EXPECT_NE(message_of([&] { (void)conv.backward(edge_target(), false); }).find("expected a call of forward"), std::string::npos);
  (void)conv.forward(edge_input());
  EXPECT_NO_THROW((void)conv.backward(edge_target(), false));
}

TEST(Conv, ConstantWeightsOnlyApply) {
  Conv conv(library, "constant");
  EXPECT_FALSE(conv.has_weight());
  EXPECT_EQ(inner_product(conv.forward(edge_input()), edge_target()), 12);
  const std::string wanted = "constant forward: the weight is a constant in the code (problem: in=6x8 kernel=1x2)";
  EXPECT_EQ(message_of([&] { (void)conv.backward(edge_target(), false); }), wanted);
  EXPECT_EQ(message_of([&] { (void)conv.weight(); }), wanted);
  EXPECT_EQ(message_of([&] { conv.initialise(1); }), wanted);
  EXPECT_EQ(message_of([&] { (void)train(conv, edge_input(), edge_target(), {}); }), wanted);
}

TEST(Conv, NamesWhatIsMissing) {
  EXPECT_THROW(Conv(library, "none"), Error);
  Conv conv(library, "edge_bias");
  EXPECT_NE(message_of([&] { (void)conv.backward(edge_target(), false); }).find("expected a call of forward"),
            std::string::npos);
  (void)conv.forward(edge_input());
  EXPECT_EQ(
      message_of([&] { (void)conv.backward(edge_target(), true); }),
      "library plain: kernel edge_bias has no pass input_gradient; emit it with the passes `all` (problem: in=6x8 "
      "kernel=1x2 bias=1)");
  EXPECT_THROW(conv.forward(Tensor({1, 1, 8, 6})), Error);
  EXPECT_THROW(conv.forward(Tensor({6, 8})), Error);
  const auto refused = [](const char *got) {
    return std::string("edge_bias forward: expected 1x1x1x2 of f32, f16 or bf16 for weight, got ") + got + " (problem: in=6x8 kernel=1x2 bias=1)";
  };
  EXPECT_EQ(message_of([&] { conv.set_weight(Tensor({1, 2})); }), refused("1x2 of f32"));
  EXPECT_EQ(message_of([&] { conv.set_weight(Tensor({1, 1, 1, 2}, CONVSMITH_S8)); }), refused("1x1x1x2 of s8"));
  EXPECT_EQ(message_of([&] { conv.set_weight(Tensor()); }), refused("none"));
  Tensor half({1, 1, 1, 2});
  half.fill(0.25f), half = half.as(CONVSMITH_F16);
  conv.set_weight(half);
  EXPECT_EQ(conv.weight().at({0, 0, 0, 1}), 0.25f);
  EXPECT_THROW(Conv(library, "edge").set_bias(Tensor({1})), Error);
}

}  // namespace
}  // namespace convsmith
