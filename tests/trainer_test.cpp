// Curvature and training of a layer over the hand-written library.
#include "convsmith/trainer.h"
#include <gtest/gtest.h>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include "convsmith/curvature.h"
#include "edge_example.h"

namespace convsmith {
namespace {

TEST(Curvature, OfTheWorkedExample) {
  Conv edge = edge_at_start();
  const Curvature c = curvature(edge, edge_input(), Loss{});
  EXPECT_NEAR(c.largest, 60, 1e-4);
  EXPECT_NEAR(c.smallest, 12, 1e-4);
  EXPECT_NEAR(c.largest_stable_rate(), 1 / 30.0, 1e-7);
  EXPECT_NEAR(c.best_rate(), 1 / 36.0, 1e-7);
  EXPECT_NEAR(c.heavy_ball_rate(), 1.0 / 30, 1e-7);
  EXPECT_NEAR(c.heavy_ball_momentum(), (1 - std::sqrt(0.4)) * (1 - std::sqrt(0.4)), 1e-6);
  EXPECT_EQ(edge.weight().data<float>()[0], -0.58187f);
  EXPECT_EQ(edge.weight().data<float>()[1], 0.03947f);
  const Curvature mean = curvature(edge, edge_input(), Loss{Loss::Kind::mean_squared});
  EXPECT_NEAR(mean.largest, 60.0 / 42, 1e-5);
  EXPECT_NEAR(mean.smallest, 12.0 / 42, 1e-5);
}

TEST(Curvature, IncludesTheBias) {
  // The columns of A: x, x shifted and ones, 6 rows of 7. Hessian 2 A^T A = [[36,24,36],[24,36,36],[36,36,84]]:
  // (1,-1,0) has eigenvalue 12; on (a,a,b) it is [[60,36],[72,84]], so 72 ± sqrt(12^2 + 36*72).
  Conv edge(library, "edge_bias");
  const Curvature c = curvature(edge, edge_input(), Loss{});
  EXPECT_NEAR(c.largest, 72 + std::sqrt(2736.0), 1e-3);
  EXPECT_NEAR(c.smallest, 12, 1e-3);
}

TEST(Curvature, OfManyParametersBoundsTheRayleighQuotients) {
  Conv conv(library, "batch");
  const Tensor x({4, 2, 5, 4});
  fill_random(x, 1);
  const Curvature c = curvature(conv, x, Loss{});  // 36 parameters, each of the 12 eigenvalues three times
  EXPECT_GT(c.smallest, 0);
  for (unsigned seed = 0; seed < 20; seed++) {
    const Tensor weight({3, 2, 3, 2});
    fill_random(weight, seed);
    conv.set_weight(weight);
    const Tensor y = conv.forward(x);
    const double quotient = 2 * inner_product(y, y) / inner_product(weight, weight);
    EXPECT_LE(quotient, c.largest * (1 + 1e-5));
    EXPECT_GE(quotient, c.smallest * (1 - 1e-4));
  }
  // Power iteration on the gradient finds the same largest eigenvalue.
  double norm = 0;
  for (int i = 0; i < 500; i++) {
    const Tensor y = conv.forward(x);
    Loss{}(y, Tensor(y.shape()), y);
    conv.backward(y, false);
    const Tensor gradient = conv.parameters()[0].gradient;
    norm = std::sqrt(inner_product(gradient, gradient));
    const Tensor next({3, 2, 3, 2});
    next.copy_from(gradient);
    for (std::int64_t k = 0; k < 36; k++) next.data<float>()[k] /= static_cast<float>(norm);
    conv.set_weight(next);
  }
  EXPECT_NEAR(norm, c.largest, 1e-3 * c.largest);
}

TEST(Curvature, RefusesAnActivation) {
  Conv conv(library, "packed");
  EXPECT_THROW((void)curvature(conv, Tensor({2, 4, 5, 7}), Loss{}), Error);
  Conv edge = edge_at_start();
  EXPECT_THROW((void)curvature(edge, edge_input(), Loss{}, 0), Error);
  EXPECT_THROW((void)curvature(edge, Tensor({1, 1, 8, 6}), Loss{}), Error);
  const Tensor vast = edge_input();
  vast.fill(1e25f);
  EXPECT_THROW((void)curvature(edge, vast, Loss{}), Error);
  EXPECT_EQ(edge.weight().data<float>()[0], -0.58187f);
}

TEST(Trainer, PrintsTheLossesOfTheWorkedExample) {
  Conv edge = edge_at_start();
  TrainOptions options;
  options.steps = 10;
  options.rate = 0.03;
  std::string printed;
  const TrainResult result = train(edge, edge_input(), edge_target(), options, [&](const Progress &progress) {
    char text[32];
    std::snprintf(text, sizeof text, "%d:%.3f ", progress.step, progress.loss);
    if (progress.step % 2 == 0) printed += text;
    return true;
  });
  EXPECT_EQ(printed, "2:11.268 4:2.573 6:0.712 8:0.234 10:0.086 ");
  EXPECT_EQ(result.losses.size(), 10u);
  EXPECT_EQ(result.updates, 10);
  EXPECT_EQ(result.stop, TrainResult::Stop::steps);
  EXPECT_NEAR(edge.weight().data<float>()[0], 0.9558, 5e-5);
  EXPECT_NEAR(edge.weight().data<float>()[1], -1.0140, 5e-5);
}

TEST(Trainer, BestRatesConvergeAsTheirFormulasSay) {
  Conv edge = edge_at_start();
  const Curvature c = curvature(edge, edge_input(), Loss{});
  TrainOptions options;
  options.steps = 20;
  options.rate = c.best_rate();
  const TrainResult plain = train(edge, edge_input(), edge_target(), options);
  // Both eigenvectors shrink by (60-12)/(60+12) = 2/3 a step, the loss by its square.
  for (std::size_t s = 1; s < 15; s++) EXPECT_NEAR(plain.losses[s] / plain.losses[s - 1], 4.0 / 9, 1e-3) << s;

  Conv other = edge_at_start();
  options.rate = c.heavy_ball_rate();
  options.momentum = c.heavy_ball_momentum();
  const TrainResult heavy = train(other, edge_input(), edge_target(), options);
  // Its slowest mode shrinks by 1 - sqrt(0.4) a step, the loss by the square of that, a factor of the step aside.
  EXPECT_LT(heavy.losses.back(), 1e-4 * heavy.losses.front());
}

TEST(Trainer, LearnsAPackedLayer) {
  Conv teacher(library, "packed"), pupil(library, "packed");
  teacher.initialise(1);
  pupil.initialise(2);
  const Tensor x({2, 4, 5, 7});
  fill_random(x, 3);
  TrainOptions options;
  options.steps = 300;
  options.rate = 0.002;
  options.momentum = 0.9;
  const TrainResult result = train(pupil, x, teacher.forward(x), options);
  EXPECT_LT(result.losses.back(), 0.2 * result.losses.front());
}

TEST(Trainer, StopsWhereItIsTold) {
  TrainOptions options;
  options.rate = 0.03;
  Conv edge = edge_at_start();
  const TrainResult stopped =
      train(edge, edge_input(), edge_target(), options, [](const Progress &p) { return p.step < 4; });
  EXPECT_EQ(stopped.stop, TrainResult::Stop::callback);
  EXPECT_EQ(stopped.updates, 4);
  EXPECT_EQ(stopped.losses.size(), 4u);

  edge = edge_at_start();
  options.tolerance = 0.1;
  const TrainResult good = train(edge, edge_input(), edge_target(), options);
  EXPECT_EQ(good.stop, TrainResult::Stop::tolerance);
  EXPECT_EQ(good.losses.size(), 10u);  // step 10 is the first at or below 0.1
  EXPECT_EQ(good.updates, 9);

  options.steps = 0;
  EXPECT_TRUE(train(edge, edge_input(), edge_target(), options).losses.empty());
}

TEST(Trainer, DivergesJustAboveTheStableRate) {
  TrainOptions options;
  options.steps = 2000;
  options.rate = 1 / 30.0 * 1.01;
  Conv edge = edge_at_start();
  try {
    (void)train(edge, edge_input(), edge_target(), options);
    FAIL() << "converged";
  } catch (const Diverged &error) {
    // The loss grows by (60 * rate - 1)^2 = 1.0404 a step once the other eigenvector is gone.
    EXPECT_GT(error.step, 200);
    EXPECT_LT(error.step, 300);
    EXPECT_GT(error.loss, 1e4);
    ASSERT_TRUE(error.largest_stable_rate);
    EXPECT_NEAR(*error.largest_stable_rate, 1 / 30.0, 1e-7);
    const std::string message = error.what();
    EXPECT_EQ(message.find("train: diverged at step " + std::to_string(error.step) + ": loss "), 0u) << message;
    EXPECT_NE(message.find(", rate 0.0336667; the largest stable rate is 0.0333333 (problem: in=6x8 kernel=1x2)"),
              std::string::npos)
        << message;
  }
  edge = edge_at_start();
  options.rate = 1 / 30.0 * 0.99;
  EXPECT_LT(train(edge, edge_input(), edge_target(), options).losses.back(), 1e-6);
}

TEST(Trainer, MomentumMovesTheStableRate) {
  TrainOptions options;
  options.steps = 3000;
  options.momentum = 0.5;
  Conv edge = edge_at_start();
  options.rate = 0.99 * 3 / 60;  // 2 * (1 + momentum) / 60 is the limit
  EXPECT_LT(train(edge, edge_input(), edge_target(), options).losses.back(), 1e-6);
  edge = edge_at_start();
  options.rate = 1.01 * 3 / 60;
  try {
    (void)train(edge, edge_input(), edge_target(), options);
    FAIL() << "converged";
  } catch (const Diverged &error) {
    EXPECT_NEAR(*error.largest_stable_rate, 0.05, 1e-6);
  }
}

TEST(Trainer, OverflowIsDivergence) {
  TrainOptions options;
  options.rate = 1e38;
  Conv edge = edge_at_start();
  EXPECT_THROW((void)train(edge, edge_input(), edge_target(), options), Diverged);
  // Behind an activation there is no rate to name.
  Conv conv(library, "packed");
  conv.initialise(1);
  const Tensor x({2, 4, 5, 7});
  fill_random(x, 1);
  const Tensor target({2, 6, 3, 6});
  try {
    (void)train(conv, x, target, options);
    FAIL() << "converged";
  } catch (const Diverged &error) {
    EXPECT_FALSE(error.largest_stable_rate);
    EXPECT_EQ(std::string(error.what()).find("stable"), std::string::npos);
  }
}

TEST(Trainer, StaysAtTheSolution) {
  TrainOptions options;
  options.rate = 0.03;
  Conv edge(library, "edge");
  edge.set_weight(row({1, -1}));
  EXPECT_EQ(train(edge, edge_input(), edge_target(), options).losses.back(), 0);
}

TEST(Trainer, RefusesWhatIsNotFinite) {
  Conv edge = edge_at_start();
  const Tensor x = edge_input();
  x.at({0, 0, 1, 2}) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(message_of([&] { (void)train(edge, x, edge_target(), {}); }),
            "train: expected finite numbers in x, got NaN or infinity at element 10 of 1x1x6x8");
  EXPECT_THROW((void)train(edge, edge_input(), Tensor({1, 1, 6, 8}), {}), Error);
  TrainOptions options;
  options.steps = -1;
  EXPECT_THROW((void)train(edge, edge_input(), edge_target(), options), Error);
}

}  // namespace
}  // namespace convsmith
