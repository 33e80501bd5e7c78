// Gradients against Halide's own differentiation of the forward sum, and activations against finite differences.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cmath>
#include "Halide.h"
#include "emitted.h"
#include "tools/verify/activations.h"
#include "tools/verify/reference.h"

namespace convsmith {
namespace {

using Halide::Expr, Halide::Func, Halide::RDom, Halide::Var;
using Array = Halide::Buffer<float>;

// A logical tensor as a Halide image whose dimensions are the logical axes, the last one innermost.
Array image_of(const Tensor &t) {
  std::vector<int> extents;
  for (std::int64_t e : t.shape()) extents.insert(extents.begin(), int(e));
  Array a(extents);
  const std::vector<float> values = dense<float>(t);
  std::copy(values.begin(), values.end(), a.data());
  return a;
}

// The forward sum written out once more, over [W, H, D, C, N] with missing axes of extent 1, for Halide to
// differentiate.
struct Oracle {
  Array dx, dw, db;
};

Oracle differentiate(const Problem &p, const Tensor &x, const Tensor &weight, const Tensor &dy) {
  const int rank = p.rank;
  Array xb = image_of(x), wb = image_of(weight), dyb = image_of(dy), bb(int(p.oc));
  bb.fill(0);
  Func X("x"), W("w"), B("b"), padded("padded"), y("y");
  std::vector<Var> v;
  for (int d = 0; d < rank + 2; d++) v.push_back(Var("v" + std::to_string(d)));
  Var c("c");
  X(v) = xb(std::vector<Expr>(v.begin(), v.end()));
  std::vector<Var> of_weight;
  for (int d = 0; d < wb.dimensions(); d++) of_weight.push_back(Var("w" + std::to_string(d)));
  W(of_weight) = wb(std::vector<Expr>(of_weight.begin(), of_weight.end()));
  B(c) = bb(c);
  Halide::Region inside(size_t(rank + 2), {Expr(), Expr()});
  for (int d = 0; d < rank; d++) inside[size_t(d)] = {0, int(p.in[size_t(rank - 1 - d)])};
  const Func bordered = p.border == Border::zero        ? Halide::BoundaryConditions::constant_exterior(X, 0.f, inside)
                        : p.border == Border::replicate ? Halide::BoundaryConditions::repeat_edge(X, inside)
                        : p.border == Border::reflect   ? Halide::BoundaryConditions::mirror_interior(X, inside)
                                                        : Halide::BoundaryConditions::repeat_image(X, inside);
  const int icg = int(p.ic / p.groups), ocg = int(p.oc / p.groups);
  Halide::Region domain = {{0, icg}};
  for (int d = 0; d < rank; d++) domain.push_back({0, int(p.kernel[size_t(rank - 1 - d)])});
  RDom r(domain);
  const Expr oc = v[size_t(rank)];
  std::vector<Expr> from, tap;
  for (int d = 0; d < rank; d++) {
    const size_t a = size_t(rank - 1 - d);
    const int stride = int(p.stride[a]), dilation = int(p.dilation[a]), lo = int(p.pad_lo[a]);
    const Expr o = v[size_t(d)], k = p.op == Op::convolution ? int(p.kernel[a]) - 1 - r[d + 1] : Expr(r[d + 1]);
    from.push_back(o * stride + k * dilation - lo);
    tap.push_back(r[d + 1]);
  }
  from.push_back(oc / ocg * icg + r[0]), from.push_back(v[size_t(rank + 1)]);
  tap.push_back(r[0]), tap.push_back(oc);
  for (int d = 0; d < rank && p.op == Op::local; d++) tap.push_back(v[size_t(d)]);
  y(v) = B(oc);
  y(v) += W(tap) * bordered(from);

  const Halide::Derivative d = Halide::propagate_adjoints(y, dyb);
  auto realised = [](Func f, const Array &like) {
    std::vector<int> extents;
    for (int i = 0; i < like.dimensions(); i++) extents.push_back(like.dim(i).extent());
    return Array(f.realize(extents));
  };
  return {realised(d(X), xb), realised(d(W), wb), realised(d(B), bb)};
}

class Gradients : public testing::TestWithParam<const char *> {};

TEST_P(Gradients, EqualHalidesOwnDerivative) {
  const Problem p = Problem::parse(GetParam());
  const Library library =
      emitted("gradients", {kernel("k", "weight_gradient,bias_gradient,input_gradient", p.str())}, "host").open();
  Tensor x(p.input_shape()), weight(p.weight_shape()), dy(p.output_shape());
  fill_integers(x, 1), fill_integers(weight, 2), fill_integers(dy, 3);
  const Oracle oracle = differentiate(p, x, weight, dy);
  auto expect_equal = [&](const char *pass, const Tensor &got, const Array &want) {
    const std::vector<float> values = dense<float>(got);
    ASSERT_EQ(values.size(), want.number_of_elements());
    for (size_t i = 0; i < values.size(); i++)
      ASSERT_EQ(values[i], want.data()[i]) << pass << " element " << i << " of " << p.str();
  };
  auto run = [&](const char *pass_name, std::initializer_list<std::pair<const char *, const Tensor *>> inputs,
                 const char *result) {
    const Pass pass = library.pass("k", pass_name);
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (auto &[name, t] : inputs) {
      Tensor ordered = pass.make(name);
      ordered.copy_from(*t);
      tensors.push_back({name, ordered});
    }
    tensors.push_back({result, pass.make(result)});
    pass.run(tensors);
    return tensors.back().second;
  };
  expect_equal("weight_gradient", run("weight_gradient", {{"x", &x}, {"dy", &dy}}, "dweight"), oracle.dw);
  expect_equal("bias_gradient", run("bias_gradient", {{"dy", &dy}}, "dbias"), oracle.db);
  expect_equal("input_gradient", run("input_gradient", {{"dy", &dy}, {"weight", &weight}}, "dx"), oracle.dx);
}

INSTANTIATE_TEST_SUITE_P(Small, Gradients,
                         testing::Values("in=6x8 kernel=1x2 bias=1", "ic=3 oc=4 in=9x7 kernel=3 pad=1 bias=1",
                                         "n=2 ic=2 oc=3 in=11x10 kernel=3x2 stride=2x3 pad=1:0x0:2 bias=1",
                                         "ic=4 oc=6 groups=2 in=8x9 kernel=3 pad=1 bias=1",
                                         "ic=5 oc=5 groups=5 in=9x8 kernel=3 stride=2 pad=1 bias=1",
                                         "ic=3 oc=2 in=23 kernel=4 stride=3 dilation=2 pad=2 bias=1",
                                         "ic=2 oc=3 in=5x6x7 kernel=2x3x2 stride=1x2x1 pad=1x0x1 bias=1",
                                         "op=convolution ic=2 oc=2 in=8x7 kernel=3x2 pad=1 bias=1",
                                         "ic=2 oc=3 in=8x9 kernel=3 pad=2 border=replicate bias=1",
                                         "ic=2 oc=3 in=8x9 kernel=3 pad=2 border=reflect bias=1",
                                         "ic=2 oc=3 in=8x9 kernel=3 pad=2 border=wrap bias=1",
                                         "op=local ic=2 oc=3 in=7x6 kernel=3 pad=1 bias=1",
                                         "op=local n=2 ic=2 oc=9 in=6x7 kernel=3 stride=2 pad=2 border=reflect bias=1"));

// d/dpre of sum(activation(pre) * dy), from what forward stored, against central differences in double; away from kinks.
class ActivationGradient : public testing::TestWithParam<const char *> {};

TEST_P(ActivationGradient, EqualsFiniteDifferences) {
  const std::string text = GetParam();
  const Problem p = Problem::parse("oc=3 in=9x7 kernel=1 " + text);
  const Library library = emitted("activation", {kernel("k", "activation_gradient", p.str())}, "host").open();
  Call call(library, "k", "activation_gradient");
  const bool from_pre = p.save == Save::pre;
  const Tensor stored = call.tensor(from_pre ? "pre" : "y"), dy = call.tensor("dy");
  std::vector<double> pre;
  for (std::int64_t i = 0; i < stored.elements(); i++) {
    pre.push_back((i % 2 ? 1 : -1) * (0.3 + double(i % 17) * 0.43));
    stored.data<float>()[i] = float(from_pre ? pre.back() : activated(p.activation, pre.back()));
    dy.data<float>()[i] = float(i % 5) - 2.25f;
  }
  ASSERT_EQ(call.run(), CONVSMITH_OK);
  const double h = 1e-4, u = std::ldexp(1.0, -24);
  for (std::int64_t i = 0; i < stored.elements(); i++) {
    const double v = pre[size_t(i)], d = dy.data<float>()[i];
    const double slope = (activated(p.activation, v + h) - activated(p.activation, v - h)) / (2 * h);
    // The stored number is rounded once, the difference quotient is off by h^2 / 6 of a third derivative below 2.
    const double bound = std::abs(d) * (slope_error(p.activation, v) + 8 * u * (1 + std::abs(v)) + h * h);
    EXPECT_NEAR(call.result().data<float>()[i], slope * d, bound) << text << " at " << v;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, ActivationGradient,
                         testing::Values("activation=relu", "activation=relu6", "activation=leaky_relu:0.1",
                                         "activation=leaky_relu:-0.5 save=pre", "activation=sigmoid",
                                         "activation=sigmoid save=pre", "activation=tanh", "activation=tanh save=pre",
                                         "activation=silu save=pre", "activation=gelu save=pre",
                                         "activation=clamp:-2.25:1.125", "activation=relu6 save=pre"));

// Terms of one sign, and many of them: a sum in f32 would lose a thousandth of these, and stop at 2^24.
TEST(TrainStep, AddsUpALargeBatchWithoutLosingAny) {
  for (const char *problem : {"in=512x512 kernel=1 bias=1", "n=400 in=700 kernel=1 oc=2 bias=1 layout=channels_first"}) {
    const Library library = emitted("totals", {kernel("k", "train_step", problem)}, "host").open();
    Call call(library, "k", "train_step");
    const Tensor target = call.tensor("target");
    for (const char *zero : {"weight", "bias", "x"}) call.tensor(zero).fill(0);
    target.fill(0.1f), call.tensor("rate").fill(0.5f);
    ASSERT_EQ(call.run(), CONVSMITH_OK);
    const double elements = double(target.elements()), term = double(0.1f);
    const double loss = elements * term * term, bias = elements * term / double(call.tensor("bias").elements());
    EXPECT_NEAR(*call.tensor("loss").data<float>(), loss, loss * 0x1p-22) << problem;
    EXPECT_NEAR(*call.tensor("bias_out").data<float>(), bias, bias * 0x1p-22) << problem;
  }
}

// Forward's activations over the whole range of f32 pre-activations, against double, within their stated bounds.
void expect_within_bounds(const char *text, const char *target) {
  const Problem p = Problem::parse(fmt::format("in=40001 kernel=1 activation={} save=pre", text));
  const Library library = emitted(text, {kernel("k", "forward,activation_gradient", p.str())}, target).open();
  Call call(library, "k", "forward");
  const Tensor x = call.tensor("x");
  call.tensor("weight").fill(1);
  for (std::int64_t i = 0; i < x.elements(); i++) {
    const double t = double(i - 20000) / 20000;  // dense near zero, out to where everything is flat, and to the end of f32
    x.data<float>()[i] = float(t * 12 + 200 * std::pow(t, 15) + 3e38 * std::pow(t, 1501));
  }
  ASSERT_EQ(call.run(), CONVSMITH_OK);
  Call slope(library, "k", "activation_gradient");
  slope.tensor("pre").copy_from(x), slope.tensor("dy").fill(1);
  ASSERT_EQ(slope.run(), CONVSMITH_OK);
  double worst = 0, worst_at = 0;
  for (std::int64_t i = 0; i < x.elements(); i++) {
    const double v = x.data<float>()[i], want = activated(p.activation, v), got = call.tensor("y").data<float>()[i];
    const double bound = value_error(p.activation, v) + std::ldexp(std::abs(want), -24);
    if (std::abs(got - want) / bound > worst) worst = std::abs(got - want) / bound, worst_at = v;
    ASSERT_LE(std::abs(got - want), bound) << text << " at " << v << ": " << got << ", " << want;
    ASSERT_NEAR(slope.result().data<float>()[i], activation_slope(p.activation, v), slope_error(p.activation, v)) << text << " at " << v;
  }
  std::cout << fmt::format("{}: {:.0f} % of its bound, at {}\n", text, 100 * worst, worst_at);
  EXPECT_GT(worst, 0.02) << text;  // the bound says something
  if (p.activation.kind != Activation::Kind::silu && p.activation.kind != Activation::Kind::gelu) return;
  x.fill(NAN), slope.tensor("pre").fill(NAN);  // what diverged shows where the result has no bounds
  ASSERT_EQ(call.run(), CONVSMITH_OK);
  ASSERT_EQ(slope.run(), CONVSMITH_OK);
  EXPECT_THAT(dense<float>(call.tensor("y")), testing::Each(testing::IsNan())) << text;
  EXPECT_THAT(dense<float>(slope.result()), testing::Each(testing::IsNan())) << text;
}

TEST(Activations, StayWithinTheirBounds) {
  for (const char *text : {"sigmoid", "tanh", "silu", "gelu"}) expect_within_bounds(text, "host");
}

#if defined(__x86_64__)
TEST(Activations, DoSoWithoutFusedMultiplyAdds) {
  for (const char *text : {"sigmoid", "tanh", "silu", "gelu"}) expect_within_bounds(text, "x86-64");
}
#endif

}  // namespace
}  // namespace convsmith
