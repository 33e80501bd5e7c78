// The ladder from the dense layer to the correlation: each rung is a special case of the one before, so that with
// weights shared, or cut off, they must give equal results; on integers, bit for bit.
#include <gtest/gtest.h>
#include "emitted.h"
#include "tools/verify/reference.h"

namespace convsmith {
namespace {

constexpr std::int64_t height = 6, width = 7, reach = 1, side = 2 * reach + 1;

struct Rung {
  Library library;
  Shape weight_shape;
  explicit Rung(const std::string &problem)
      : library(emitted("ladder", {kernel("k", "forward,input_gradient,weight_gradient", problem)}, "host").open()),
        weight_shape(Problem::parse(problem).weight_shape()) {}

  Tensor run(const char *name, const std::vector<std::pair<std::string, Tensor>> &inputs, const char *result) const {
    const Pass pass = library.pass("k", name);
    std::vector<std::pair<std::string, Tensor>> all;
    for (auto &[argument, from] : inputs) {
      Tensor t = pass.make(argument);
      const auto packer = library.find("k", std::string(name) == "forward" ? "pack_weight" : "pack_weight_for_input_gradient");
      if (argument == "weight") (*packer)({{"from", from}, {"weight", t}});
      else t.copy_from(from);
      all.push_back({argument, t});
    }
    all.push_back({result, pass.make(result)});
    pass.run(all);
    const Tensor plain(all.back().second.shape());
    plain.copy_from(all.back().second);
    return plain;
  }
};

class Ladder : public testing::TestWithParam<const char *> {
 protected:
  const std::string channels = GetParam();
  const Rung dense{"op=dense n=2 " + channels + " in=6x7 out=6x7"};
  const Rung local{"op=local n=2 " + channels + " in=6x7 kernel=3 pad=1"};
  const Rung shared{"n=2 " + channels + " in=6x7 kernel=3 pad=1"};
  const std::int64_t oc = dense.weight_shape[0], ic = dense.weight_shape[3];
  Tensor x{{2, ic, height, width}}, dy{{2, oc, height, width}};

  void SetUp() override { fill_integers(x, 1), fill_integers(dy, 2); }

  // For every weight of the local rung: visit(its index, that of the dense one, that of the shared one).
  template<class Visit> void each_weight(Visit visit) const {
    for (std::int64_t i = 0; i < height; i++)
      for (std::int64_t j = 0; j < width; j++)
        for (std::int64_t o = 0; o < oc; o++)
          for (std::int64_t c = 0; c < ic; c++)
            for (std::int64_t a = 0; a < side; a++)
              for (std::int64_t b = 0; b < side; b++)
                visit(Shape{i, j, o, c, a, b}, Shape{o, i, j, c, i + a - reach, j + b - reach}, Shape{o, c, a, b});
  }
  static bool inside(const Shape &d) { return d[4] >= 0 && d[4] < height && d[5] >= 0 && d[5] < width; }

  void expect_equal(const Rung &a, const Tensor &a_weight, const Rung &b, const Tensor &b_weight) const {
    EXPECT_EQ(convsmith::dense<float>(a.run("forward", {{"x", x}, {"weight", a_weight}}, "y")),
              convsmith::dense<float>(b.run("forward", {{"x", x}, {"weight", b_weight}}, "y")));
    EXPECT_EQ(convsmith::dense<float>(a.run("input_gradient", {{"dy", dy}, {"weight", a_weight}}, "dx")),
              convsmith::dense<float>(b.run("input_gradient", {{"dy", dy}, {"weight", b_weight}}, "dx")));
  }
};

// v[i,j,a,b] = v[a,b]: translation invariance.
TEST_P(Ladder, LocalWithSharedWeightsIsCorrelation) {
  const Tensor own(local.weight_shape), one(shared.weight_shape);
  fill_integers(one, 3);
  each_weight([&](const Shape &l, const Shape &, const Shape &s) { own.at(l) = one.at(s); });
  expect_equal(local, own, shared, one);
  // The gradient of the shared weight is the sum of those that share it.
  const Tensor d_own = local.run("weight_gradient", {{"x", x}, {"dy", dy}}, "dweight"), sum(shared.weight_shape);
  each_weight([&](const Shape &l, const Shape &, const Shape &s) { sum.at(s) += d_own.at(l); });
  EXPECT_EQ(convsmith::dense<float>(sum),
            convsmith::dense<float>(shared.run("weight_gradient", {{"x", x}, {"dy", dy}}, "dweight")));
}

// v[i,j,a,b] = 0 for |a|, |b| past the reach: locality.
TEST_P(Ladder, DenseCutOffIsLocal) {
  const Tensor all(dense.weight_shape), own(local.weight_shape);
  fill_integers(own, 4);
  each_weight([&](const Shape &l, const Shape &d, const Shape &) {
    if (inside(d)) all.at(d) = own.at(l);
  });
  expect_equal(dense, all, local, own);
  const Tensor d_all = dense.run("weight_gradient", {{"x", x}, {"dy", dy}}, "dweight");
  const Tensor d_own = local.run("weight_gradient", {{"x", x}, {"dy", dy}}, "dweight");
  each_weight([&](const Shape &l, const Shape &d, const Shape &) {
    ASSERT_EQ(d_own.at(l), inside(d) ? d_all.at(d) : 0) << shape_text(l);
  });
}

TEST_P(Ladder, ParametersFall) {
  EXPECT_EQ(element_count(dense.weight_shape), oc * ic * (height * width) * (height * width));
  EXPECT_EQ(element_count(local.weight_shape), oc * ic * height * width * side * side);
  EXPECT_EQ(element_count(shared.weight_shape), oc * ic * side * side);
}

INSTANTIATE_TEST_SUITE_P(Channels, Ladder, testing::Values("ic=1 oc=1", "ic=3 oc=10", "ic=2 oc=3 layout=channels_first"));

}  // namespace
}  // namespace convsmith
