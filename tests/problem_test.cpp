// The problem text: what it reads, what it writes, what it refuses and in which words.
#include "convsmith/problem.h"
#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>
#include "convsmith/error.h"

namespace convsmith {
namespace {

/// Every field, compared as such: Problem's own == goes through the text.
auto fields(const Problem &p) {
  return std::make_tuple(p.op, p.rank, p.n, p.ic, p.oc, p.groups, p.in, p.kernel, p.dense_out, p.stride, p.dilation,
                         p.pad_lo, p.pad_hi, p.out_pad, p.border, p.type, p.out_type, p.scale, p.layout, p.bias,
                         p.activation, p.residual, p.save, p.precision);
}

std::string parse_message(const std::string &text) {
  try {
    Problem::parse(text);
  } catch (const Error &error) {
    return error.what();
  }
  return "accepted";
}

bool one_printable_line(const std::string &message) {
  return std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

TEST(Problem, DefaultsAreTheTables) {
  Problem expected;
  expected.rank = 2;
  expected.in = {8, 9, 1};
  expected.kernel = {3, 3, 1};
  EXPECT_EQ(fields(Problem::parse("in=8x9 kernel=3")), fields(expected));
}

TEST(Problem, ParsesEveryKey) {
  Problem expected;
  expected.op = Op::convolution;
  expected.rank = 3;
  expected.n = 2;
  expected.ic = 4;
  expected.oc = 6;
  expected.groups = 2;
  expected.in = {5, run_time, 7};
  expected.kernel = {1, 2, 3};
  expected.stride = {2, 2, 2};
  expected.dilation = {1, 2, 1};
  expected.pad_lo = {0, 1, -1};
  expected.pad_hi = {0, 2, 3};
  expected.border = Border::reflect;
  expected.type = Type::u8s8;
  expected.out_type = OutType::i32;
  expected.scale = Scale::channel;
  expected.layout = Layout::channels_first;
  expected.bias = true;
  expected.activation = {Activation::Kind::clamp, -0.5f, 6};
  expected.residual = true;
  expected.save = Save::pre;
  expected.precision = Precision::fast;
  const std::string canonical =
      "op=convolution n=2 ic=4 oc=6 groups=2 in=5x?x7 kernel=1x2x3 stride=2 dilation=1x2x1 pad=0x1:2x-1:3 "
      "border=reflect type=u8s8 out_type=i32 scale=channel layout=channels_first bias=1 activation=clamp:-0.5:6 "
      "residual=1 save=pre precision=fast";
  EXPECT_EQ(fields(Problem::parse(canonical)), fields(expected));
  EXPECT_EQ(expected.str(), canonical);

  const Problem transposed = Problem::parse("op=transposed in=5x5 kernel=3 stride=2 out_pad=1x0");
  EXPECT_EQ(transposed.op, Op::transposed);
  EXPECT_EQ(transposed.out_pad, (Problem::Extents{1, 0, 0}));
  const Problem dense = Problem::parse("op=dense in=3x4 out=5x6");
  EXPECT_EQ(dense.op, Op::dense);
  EXPECT_EQ(dense.dense_out, (Problem::Extents{5, 6, 1}));
}

TEST(Problem, WritesTheCanonicalText) {
  const std::pair<std::string, std::string> cases[] = {
      {"kernel=3 in=8", "in=8 kernel=3"},
      {"  in=8\t\tkernel=3\r\n", "in=8 kernel=3"},
      {"in=8x8 kernel=3x3", "in=8x8 kernel=3"},
      {"in=8x8 kernel=1x1", "in=8x8 kernel=1"},
      {"in=8x8x8 kernel=3x3x2 stride=2x2x2", "in=8x8x8 kernel=3x3x2 stride=2"},
      {"in=008 kernel=03 pad=-0", "in=8 kernel=3"},
      {"in=8x8 kernel=3 stride=1x1 dilation=1 pad=0:0x0", "in=8x8 kernel=3"},
      {"in=8x8 kernel=3 pad=1:1x1", "in=8x8 kernel=3 pad=1"},
      {"in=8x8 kernel=3 pad=1:2x1:2", "in=8x8 kernel=3 pad=1:2"},
      {"in=8x8 kernel=3 pad=1x0:1", "in=8x8 kernel=3 pad=1x0:1"},
      {"in=8x8 kernel=3 pad=-1:2", "in=8x8 kernel=3 pad=-1:2"},
      {"in=?x? kernel=3 n=?", "n=? in=?x? kernel=3"},
      {"n=0 in=8 kernel=3", "n=0 in=8 kernel=3"},
      {"op=transposed in=8 kernel=3 stride=2 out_pad=1 border=zero", "op=transposed in=8 kernel=3 stride=2 out_pad=1"},
      {"op=transposed in=8x? kernel=3 dilation=2 out_pad=1x1", "op=transposed in=8x? kernel=3 dilation=2 out_pad=1"},
      {"op=local n=? in=8x8 kernel=3", "op=local n=? in=8x8 kernel=3"},
      {"op=dense n=? in=3x4 out=1", "op=dense n=? in=3x4"},
      {"op=dense in=3x4 out=2x2", "op=dense in=3x4 out=2"},
      {"op=dense in=3x4 out=2x1", "op=dense in=3x4 out=2x1"},
      {"type=u8s8 out_type=f32 scale=tensor in=8 kernel=3", "in=8 kernel=3 type=u8s8"},
      {"bias=0 residual=0 save=none precision=exact in=8 kernel=3", "in=8 kernel=3"},
      {"in=8 kernel=3 activation=leaky_relu:0.10", "in=8 kernel=3 activation=leaky_relu:0.1"},
      {"in=8 kernel=3 activation=leaky_relu:-0", "in=8 kernel=3 activation=leaky_relu:0"},
      {"in=8 kernel=3 activation=leaky_relu:0.1000000001", "in=8 kernel=3 activation=leaky_relu:0.1"},
      {"in=8 kernel=3 activation=clamp:-1e-3:1000000000000000000000000000000",
       "in=8 kernel=3 activation=clamp:-0.001:1e+30"},
      {"in=8 kernel=3 activation=clamp:0:0", "in=8 kernel=3 activation=clamp:0:0"},
      {"in=3 kernel=2 pad=2 border=reflect", "in=3 kernel=2 pad=2 border=reflect"},
      {"in=3 kernel=2 pad=3 border=wrap", "in=3 kernel=2 pad=3 border=wrap"},
      {"in=? kernel=2 pad=3 border=reflect", "in=? kernel=2 pad=3 border=reflect"},
      {"in=1 kernel=9 pad=99 border=replicate", "in=1 kernel=9 pad=99 border=replicate"},
  };
  for (const auto &[text, canonical] : cases) {
    SCOPED_TRACE(text);
    const Problem problem = Problem::parse(text);
    EXPECT_EQ(problem.str(), canonical);
    EXPECT_EQ(fields(Problem::parse(canonical)), fields(problem));
  }
}

TEST(Problem, EveryWordNamesItsValue) {
  const std::pair<std::string, void (*)(Problem &)> cases[] = {
      {"op=convolution", [](Problem &p) { p.op = Op::convolution; }},
      {"op=transposed", [](Problem &p) { p.op = Op::transposed; }},
      {"op=local", [](Problem &p) { p.op = Op::local; }},
      {"border=replicate", [](Problem &p) { p.border = Border::replicate; }},
      {"border=reflect", [](Problem &p) { p.border = Border::reflect; }},
      {"border=wrap", [](Problem &p) { p.border = Border::wrap; }},
      {"type=f16", [](Problem &p) { p.type = Type::f16; }},
      {"type=bf16", [](Problem &p) { p.type = Type::bf16; }},
      {"type=u8s8", [](Problem &p) { p.type = Type::u8s8; }},
      {"type=u8s8 out_type=u8",
       [](Problem &p) {
         p.type = Type::u8s8;
         p.out_type = OutType::u8;
       }},
      {"type=u8s8 out_type=s8",
       [](Problem &p) {
         p.type = Type::u8s8;
         p.out_type = OutType::s8;
       }},
      {"type=u8s8 out_type=i32",
       [](Problem &p) {
         p.type = Type::u8s8;
         p.out_type = OutType::i32;
       }},
      {"type=u8s8 scale=channel",
       [](Problem &p) {
         p.type = Type::u8s8;
         p.scale = Scale::channel;
       }},
      {"layout=channels_first", [](Problem &p) { p.layout = Layout::channels_first; }},
      {"bias=1", [](Problem &p) { p.bias = true; }},
      {"activation=relu", [](Problem &p) { p.activation.kind = Activation::Kind::relu; }},
      {"activation=relu6", [](Problem &p) { p.activation.kind = Activation::Kind::relu6; }},
      {"activation=sigmoid", [](Problem &p) { p.activation.kind = Activation::Kind::sigmoid; }},
      {"activation=tanh", [](Problem &p) { p.activation.kind = Activation::Kind::tanh; }},
      {"activation=silu", [](Problem &p) { p.activation.kind = Activation::Kind::silu; }},
      {"activation=gelu", [](Problem &p) { p.activation.kind = Activation::Kind::gelu; }},
      {"activation=leaky_relu:0.25",
       [](Problem &p) {
         p.activation = {Activation::Kind::leaky_relu, 0.25f, 0};
       }},
      {"activation=clamp:-1:0.5",
       [](Problem &p) {
         p.activation = {Activation::Kind::clamp, -1, 0.5f};
       }},
      {"residual=1", [](Problem &p) { p.residual = true; }},
      {"save=pre", [](Problem &p) { p.save = Save::pre; }},
      {"precision=fast", [](Problem &p) { p.precision = Precision::fast; }},
  };
  for (const auto &[word, set] : cases) {
    const std::string text = word.rfind("op=", 0) == 0 ? word + " in=8 kernel=3" : "in=8 kernel=3 " + word;
    Problem expected;
    expected.rank = 1;
    expected.in[0] = 8;
    expected.kernel[0] = 3;
    set(expected);
    EXPECT_EQ(fields(Problem::parse(text)), fields(expected)) << text;
    EXPECT_EQ(expected.str(), text);
  }
}

TEST(Problem, EqualTextsMeanEqualProblems) {
  EXPECT_EQ(Problem::parse("in=8x8 kernel=3x3 pad=1:1"), Problem::parse("pad=1 kernel=3 in=8x8"));
  EXPECT_FALSE(Problem::parse("in=8x8 kernel=3") == Problem::parse("in=8x8 kernel=3 bias=1"));
  EXPECT_FALSE(Problem::parse("in=8 kernel=3") == Problem::parse("in=8x1 kernel=3x1"));
  EXPECT_EQ(Problem{}, Problem{});
}

TEST(Problem, OutputExtents) {
  const std::pair<std::string, Shape> cases[] = {
      {"in=6x8 kernel=1x2", {1, 1, 6, 7}},
      {"in=8x6 kernel=1x2", {1, 1, 8, 5}},
      {"ic=3 oc=64 in=224x224 kernel=7 stride=2 pad=3", {1, 64, 112, 112}},
      {"in=9 kernel=3 stride=2", {1, 1, 4}},
      {"in=10 kernel=3 stride=2", {1, 1, 4}},
      {"in=9 kernel=3 dilation=4", {1, 1, 1}},
      {"in=3 kernel=1 stride=5", {1, 1, 1}},
      {"in=9x9 kernel=3 pad=1:2x0:1", {1, 1, 10, 8}},
      {"in=9 kernel=3 pad=-2:1", {1, 1, 6}},
      {"in=9 kernel=3 pad=-3", {1, 1, 1}},
      {"in=4x5x6 kernel=2x3x4 stride=1x2x1", {1, 1, 3, 2, 3}},
      {"n=0 in=8 kernel=3", {0, 1, 6}},
      {"n=? in=?x8 kernel=3", {run_time, 1, run_time, 6}},
      {"op=convolution in=8 kernel=3 stride=2 pad=1", {1, 1, 4}},
      {"op=local in=8 kernel=3 stride=2 pad=1", {1, 1, 4}},
      {"op=transposed in=4 kernel=3 stride=2", {1, 1, 9}},
      {"op=transposed in=4 kernel=3 stride=2 pad=1 out_pad=1", {1, 1, 8}},
      {"op=transposed in=4x5 kernel=3x2 stride=3x1 dilation=2 pad=1:2x-1", {1, 1, 11, 9}},
      {"op=transposed in=? kernel=3 stride=2", {1, 1, run_time}},
      {"op=dense oc=7 in=3x4", {1, 7, 1, 1}},
      {"op=dense oc=7 in=3x4 out=5x6", {1, 7, 5, 6}},
      {"in=9223372036854775807 kernel=1", {1, 1, 9223372036854775807}},
      {"in=1 kernel=1 pad=9223372036854775806:0", {1, 1, 9223372036854775807}},
      {"in=9223372036854775807 kernel=9223372036854775807", {1, 1, 1}},
  };
  for (const auto &[text, shape] : cases) EXPECT_EQ(Problem::parse(text).output_shape(), shape) << text;
}

/// out counts the positions at which the window lies inside the padded input; nothing here divides.
TEST(Problem, OutputExtentsMatchCounting) {
  Problem p;
  p.rank = 1;
  for (p.in[0] = 1; p.in[0] <= 7; ++p.in[0])
    for (p.kernel[0] = 1; p.kernel[0] <= 4; ++p.kernel[0])
      for (p.stride[0] = 1; p.stride[0] <= 4; ++p.stride[0])
        for (p.dilation[0] = 1; p.dilation[0] <= 3; ++p.dilation[0])
          for (p.pad_lo[0] = -2; p.pad_lo[0] <= 3; ++p.pad_lo[0])
            for (p.pad_hi[0] = -1; p.pad_hi[0] <= 2; ++p.pad_hi[0]) {
              std::int64_t count = 0;
              while (count * p.stride[0] + (p.kernel[0] - 1) * p.dilation[0] < p.in[0] + p.pad_lo[0] + p.pad_hi[0]) {
                ++count;
              }
              if (count > 0) {
                ASSERT_EQ(p.out(0), count) << p.str();
              } else {
                ASSERT_LT(p.out(0), 1) << p.str();
              }
            }
}

/// A transposed problem's output is the input of the correlation that it transposes.
TEST(Problem, TransposedUndoesTheExtentsOfCorrelation) {
  for (const char *geometry : {"kernel=3", "kernel=3 stride=2", "kernel=2 stride=3 pad=1:0",
                               "kernel=4 dilation=3 pad=2", "kernel=1 stride=4", "kernel=3 stride=2 pad=-1:2"}) {
    Problem transposed = Problem::parse(std::string("op=transposed in=5 ") + geometry);
    for (; transposed.out_pad[0] < transposed.stride[0]; ++transposed.out_pad[0]) {
      Problem correlation = transposed;
      correlation.op = Op::correlation;
      correlation.in[0] = transposed.out(0);
      EXPECT_EQ(correlation.out(0), 5) << transposed.str();
    }
  }
}

TEST(Problem, Shapes) {
  const struct {
    std::string text;
    Shape input, weight, bias;
  } cases[] = {
      {"n=2 ic=4 oc=6 groups=2 in=5x7 kernel=3x2", {2, 4, 5, 7}, {6, 2, 3, 2}, {6}},
      {"n=2 ic=4 oc=6 groups=2 in=5x7 kernel=3x2 layout=channels_first", {2, 4, 5, 7}, {6, 2, 3, 2}, {6}},
      {"op=convolution ic=4 oc=6 in=5 kernel=3", {1, 4, 5}, {6, 4, 3}, {6}},
      {"op=transposed ic=4 oc=6 groups=2 in=5x7 kernel=3x2", {1, 4, 5, 7}, {4, 3, 3, 2}, {6}},
      {"op=local ic=4 oc=6 groups=2 in=5x7 kernel=3x2", {1, 4, 5, 7}, {3, 6, 6, 2, 3, 2}, {6}},
      {"op=dense ic=4 oc=6 in=5x7 out=2x3", {1, 4, 5, 7}, {6, 2, 3, 4, 5, 7}, {6}},
      {"ic=2 oc=3 in=4x5x6 kernel=1x2x3", {1, 2, 4, 5, 6}, {3, 2, 1, 2, 3}, {3}},
      {"n=? ic=2 oc=3 in=?x8 kernel=3", {run_time, 2, run_time, 8}, {3, 2, 3, 3}, {3}},
  };
  for (const auto &c : cases) {
    const Problem problem = Problem::parse(c.text);
    EXPECT_EQ(problem.input_shape(), c.input) << c.text;
    EXPECT_EQ(problem.weight_shape(), c.weight) << c.text;
    EXPECT_EQ(problem.bias_shape(), c.bias) << c.text;
  }
}

TEST(Problem, ElementCount) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({2, 3, 4}), 24);
  EXPECT_EQ(element_count({run_time, 3, run_time}), 3);
  EXPECT_EQ(element_count({0, 3}), 0);
  EXPECT_EQ(element_count({std::numeric_limits<std::int64_t>::max(), 1}), std::numeric_limits<std::int64_t>::max());
  const Shape too_large[] = {{3037000500, 3037000500}, {0, 3037000500, 3037000500}};
  for (const Shape &shape : too_large) {
    try {
      element_count(shape);
      ADD_FAILURE() << shape_text(shape) << " was counted";
    } catch (const Error &error) {
      EXPECT_EQ(error.what(), "shape " + shape_text(shape) + ": expected at most 2^63-1 elements, got more");
    }
  }
}

TEST(Problem, ShapeText) {
  EXPECT_EQ(shape_text({}), "()");
  EXPECT_EQ(shape_text({7}), "7");
  EXPECT_EQ(shape_text({2, run_time, 8}), "2x?x8");
}

TEST(Problem, ElementLimitNamesTheTensor) {
  const std::string suffix = "; more than 2^31-1 in a tensor is not available yet, in \"";
  const std::pair<std::string, std::string> cases[] = {
      {"op=dense ic=3 oc=100 in=3000x4000", "weight 100x1x1x3x3000x4000: 3600000000 elements"},
      {"in=2147483648 kernel=9", "input 1x1x2147483648: 2147483648 elements"},
      {"oc=65536 in=32768 kernel=1", "output 1x65536x32768: 2147483648 elements"},
      {"oc=2147483648 in=? kernel=1", "output 1x2147483648x?: 2147483648 elements"},
      {"n=0 oc=2147483648 in=8 kernel=1", "weight 2147483648x1x1: 2147483648 elements"},
  };
  for (const auto &[text, what] : cases) {
    try {
      check_element_limit(Problem::parse(text));
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error &error) {
      EXPECT_EQ(error.what(), "problem: " + what + suffix + text + "\"");
    }
  }
  for (const char *text : {"in=2147483647 kernel=1", "oc=65535 in=32768 kernel=1", "n=? in=?x? kernel=3",
                           "n=0 ic=65536 in=65536 kernel=1"}) {
    EXPECT_NO_THROW(check_element_limit(Problem::parse(text))) << text;
  }
}

struct Refusal {
  std::string text, word, expected, got = {};
};

const std::string in_form = "W, HxW or DxHxW, numbers of at least 1 or \"?\"";
const std::string fixed_in_form = "W, HxW or DxHxW, numbers of at least 1 (\"?\" only where op has shared weights)";
const std::string positive_1d = "a number of at least 1 (in has one axis)";
const std::string positive_2d = "a number of at least 1, or one an axis (\"2x1\")";
const std::string positive_3d = "a number of at least 1, or one an axis (\"2x1x1\")";
const std::string batch = "a number of at least 0 or \"?\"";
const std::string positive = "a number of at least 1";
const std::string pad_1d = "a number or LO:HI (in has one axis)";
const std::string pad_2d = "a number or LO:HI, or one an axis (\"1x0:1\")";
const std::string key_value = "a word of the form key=value";
const std::string all_keys =
    "one of the keys op, n, ic, oc, groups, in, kernel, out, stride, dilation, pad, out_pad, border, type, out_type, "
    "scale, layout, bias, activation, residual, save, precision";
const std::string op_names = "correlation, convolution, transposed, local or dense";
const std::string activation_form =
    "none, relu, relu6, leaky_relu:S, sigmoid, tanh, silu, gelu or clamp:LO:HI, numbers that f32 holds";
const std::string bits = "numbers that fit 64 bits";
const std::string window_op = "this key only with an op that slides a window";
const std::string small_window = "a window no larger than the padded input";
const std::string output_bits = "extents whose output extent fits 64 bits";
const std::string elements = "at most 2^63-1 elements";
const std::string out_pad_limit = "less than stride or dilation";

/// Where `got` is empty, what came is the word's value.
const Refusal refusals[] = {
    {"", "in", in_form, "nothing"},
    {"kernel=3", "in", in_form, "nothing"},
    {"in=8", "kernel", positive_1d, "nothing"},
    {"in=8x8", "kernel", positive_2d, "nothing"},
    {"in=8x8x8", "kernel", positive_3d, "nothing"},
    {"op=local in=8", "kernel", positive_1d, "nothing"},
    {"ic=3", "in", in_form, "nothing"},
    {"op=transposed in=8x8", "kernel", positive_2d, "nothing"},
    {"in kernel=3", "in", key_value, "\"in\""},
    {"in=8 kernel=3 bias", "bias", key_value, "\"bias\""},
    {"in=8 kernel=3 =", "=", all_keys},
    {"in=8 kernel=3 =3", "=3", all_keys, "\"\""},
    {"in=8 kernel=3 kernal=3", "kernal=3", "a key, perhaps \"kernel\"", "\"kernal\""},
    {"in=8 kernel=3 Stride=2", "Stride=2", "a key, perhaps \"stride\"", "\"Stride\""},
    {"in=8 kernel=3 dilatoin=2", "dilatoin=2", "a key, perhaps \"dilation\"", "\"dilatoin\""},
    {"in=8 kernel=3 padding=2", "padding=2", all_keys, "\"padding\""},
    {"in=8 kernel=3 outpad=1", "outpad=1", "a key, perhaps \"out_pad\"", "\"outpad\""},
    {"in=8 kernel=3 width=8", "width=8", all_keys, "\"width\""},
    {"in=8 kernel=3 averyveryveryverylongkey=1", "averyveryveryverylongkey=1", all_keys,
     "\"averyveryveryverylongkey\""},
    {"in=8 kernel=3 in=8", "in=8", "each key once", "\"in=8\" too"},
    {"in=8 kernel=3 stride=2 stride=1", "stride=1", "each key once", "\"stride=2\" too"},
    {"op=dense op=dense in=8", "op=dense", "each key once", "\"op=dense\" too"},
    {"in=8 kernel=3 activation=relu activation=relu", "activation=relu", "each key once", "\"activation=relu\" too"},
    {"op=conv in=8 kernel=3", "op=conv", op_names},
    {"op= in=8 kernel=3", "op=", op_names},
    {"op=Correlation in=8 kernel=3", "op=Correlation", op_names},
    {"n=-1 in=8 kernel=3", "n=-1", batch},
    {"n= in=8 kernel=3", "n=", batch},
    {"n=1.5 in=8 kernel=3", "n=1.5", batch},
    {"n=?? in=8 kernel=3", "n=??", batch},
    {"n=+1 in=8 kernel=3", "n=+1", batch},
    {"n=9223372036854775808 in=8 kernel=3", "n=9223372036854775808", bits},
    {"n=1000000000000000000000000000000 in=8 kernel=3", "n=1000000000000000000000000000000", bits},
    {"ic=0 in=8 kernel=3", "ic=0", positive},
    {"ic=? in=8 kernel=3", "ic=?", positive},
    {"ic=-3 in=8 kernel=3", "ic=-3", positive},
    {"ic=3=4 in=8 kernel=3", "ic=3=4", positive},
    {"oc=0 in=8 kernel=3", "oc=0", positive},
    {"oc=0x10 in=8 kernel=3", "oc=0x10", positive},
    {"oc=99999999999999999999 in=8 kernel=3", "oc=99999999999999999999", bits},
    {"groups=0 in=8 kernel=3", "groups=0", positive},
    {"groups=2 in=8 kernel=3", "groups=2", "a divisor of ic and oc", "ic=1 oc=1"},
    {"ic=4 oc=6 groups=4 in=8 kernel=3", "groups=4", "a divisor of ic and oc", "ic=4 oc=6"},
    {"ic=6 oc=4 groups=4 in=8 kernel=3", "groups=4", "a divisor of ic and oc", "ic=6 oc=4"},
    {"op=dense ic=4 oc=4 groups=2 in=8", "groups=2", window_op, "op=dense"},
    {"in= kernel=3", "in=", in_form},
    {"in=0 kernel=3", "in=0", in_form},
    {"in=-1 kernel=3", "in=-1", in_form},
    {"in=8x kernel=3", "in=8x", in_form},
    {"in=x8 kernel=3", "in=x8", in_form},
    {"in=8xx8 kernel=3", "in=8xx8", in_form},
    {"in=8X8 kernel=3", "in=8X8", in_form},
    {"in=8,8 kernel=3", "in=8,8", in_form},
    {"in=8x8x8x8 kernel=3", "in=8x8x8x8", in_form},
    {"in=8x?? kernel=3", "in=8x??", in_form},
    {"in=99999999999999999999 kernel=3", "in=99999999999999999999", bits},
    {"op=local in=? kernel=3", "in=?", fixed_in_form},
    {"op=local in=8x? kernel=3", "in=8x?", fixed_in_form},
    {"op=dense in=?x8", "in=?x8", fixed_in_form},
    {"in=8 kernel=", "kernel=", positive_1d},
    {"in=8 kernel=0", "kernel=0", positive_1d},
    {"in=8 kernel=?", "kernel=?", positive_1d},
    {"in=8 kernel=3x3", "kernel=3x3", positive_1d},
    {"in=8x8 kernel=3x3x3", "kernel=3x3x3", positive_2d},
    {"in=8x8x8 kernel=3x3", "kernel=3x3", positive_3d},
    {"in=8x8x8 kernel=3x3x3x3", "kernel=3x3x3x3", positive_3d},
    {"in=8x8 kernel=3x", "kernel=3x", positive_2d},
    {"in=8x8 kernel=3x0", "kernel=3x0", positive_2d},
    {"in=8 kernel=99999999999999999999", "kernel=99999999999999999999", bits},
    {"op=dense in=8 kernel=8", "kernel=8", window_op, "op=dense"},
    {"op=dense in=8 stride=1", "stride=1", window_op, "op=dense"},
    {"op=dense in=8 dilation=1", "dilation=1", window_op, "op=dense"},
    {"op=dense in=8 pad=0", "pad=0", window_op, "op=dense"},
    {"op=dense in=8 border=zero", "border=zero", window_op, "op=dense"},
    {"op=dense in=8 out_pad=0", "out_pad=0", "this key only with op=transposed", "op=dense"},
    {"op=dense in=8 out=0", "out=0", positive_1d},
    {"op=dense in=8 out=?", "out=?", positive_1d},
    {"op=dense in=8x8 out=2x2x2", "out=2x2x2", positive_2d},
    {"in=8 kernel=3 out=6", "out=6", "this key only with op=dense", "op=correlation"},
    {"op=transposed in=8 kernel=3 out=10", "out=10", "this key only with op=dense", "op=transposed"},
    {"in=8 kernel=3 stride=0", "stride=0", positive_1d},
    {"in=8x8 kernel=3 stride=0", "stride=0", positive_2d},
    {"in=8x8 kernel=3 stride=2x", "stride=2x", positive_2d},
    {"in=8x8x8 kernel=3 stride=2x1", "stride=2x1", positive_3d},
    {"in=8x8 kernel=3 stride=-1", "stride=-1", positive_2d},
    {"in=8x8 kernel=3 dilation=0", "dilation=0", positive_2d},
    {"in=8x8 kernel=3 dilation=1x1x1", "dilation=1x1x1", positive_2d},
    {"in=8 kernel=3 pad=", "pad=", pad_1d},
    {"in=8 kernel=3 pad=?", "pad=?", pad_1d},
    {"in=8 kernel=3 pad=:", "pad=:", pad_1d},
    {"in=8 kernel=3 pad=1:", "pad=1:", pad_1d},
    {"in=8 kernel=3 pad=1:2:3", "pad=1:2:3", pad_1d},
    {"in=8 kernel=3 pad=1x2", "pad=1x2", pad_1d},
    {"in=8x8 kernel=3 pad=1:2x0:1x1", "pad=1:2x0:1x1", pad_2d},
    {"in=8x8 kernel=3 pad=1:2x", "pad=1:2x", pad_2d},
    {"in=8x8x8 kernel=3 pad=1x1", "pad=1x1", "a number or LO:HI, or one an axis (\"1x0:1x1\")"},
    {"in=8 kernel=3 pad=--1", "pad=--1", pad_1d},
    {"in=8 kernel=3 pad=-99999999999999999999", "pad=-99999999999999999999", bits},
    {"in=8 kernel=3 pad=same", "pad=same", pad_1d},
    {"in=3x4 kernel=1 pad=-2:-1x0", "pad=-2:-1x0", "a crop that leaves an extent of at least 1",
     "an extent of 3 padded by -2:-1 on axis H"},
    {"in=8 kernel=3 pad=-9223372036854775808", "axis W", output_bits, "more"},
    {"in=8 kernel=3 out_pad=0", "out_pad=0", "this key only with op=transposed", "op=correlation"},
    {"op=transposed in=1x1 kernel=2x1 pad=1:2x0", "pad=1:2x0", "an output extent of at least 1", "-1 on axis H"},
    {"op=transposed in=8 kernel=3 out_pad=1", "out_pad=1", out_pad_limit, "1 with stride 1 and dilation 1 on axis W"},
    {"op=transposed in=8 kernel=3 stride=2 out_pad=2", "out_pad=2", out_pad_limit,
     "2 with stride 2 and dilation 1 on axis W"},
    {"op=transposed in=8x8 kernel=3 stride=1x2 dilation=3x1 out_pad=2x2", "out_pad=2x2", out_pad_limit,
     "2 with stride 2 and dilation 1 on axis W"},
    {"op=transposed in=8 kernel=3 stride=2 out_pad=-1", "out_pad=-1", "a number of at least 0 (in has one axis)"},
    {"op=transposed in=8x8 kernel=3 stride=2 out_pad=1x1x1", "out_pad=1x1x1",
     "a number of at least 0, or one an axis (\"1x0\")"},
    {"op=transposed in=8 kernel=3 border=wrap", "border=wrap", "zero for op=transposed"},
    {"in=8 kernel=3 border=same", "border=same", "zero, replicate, reflect or wrap"},
    {"in=8 kernel=3 border=constant", "border=constant", "zero, replicate, reflect or wrap"},
    {"in=8 kernel=3 pad=8 border=reflect", "pad=8", "at most 7 an end for border=reflect",
     "an extent of 8 padded by 8 on axis W"},
    {"in=8x8 kernel=3 pad=0:3x0:9 border=reflect", "pad=0:3x0:9", "at most 7 an end for border=reflect",
     "an extent of 8 padded by 0:9 on axis W"},
    {"in=8 kernel=3 pad=-2:6 border=reflect", "pad=-2:6", "at most 5 an end for border=reflect",
     "an extent of 8 padded by -2:6 on axis W"},
    {"in=1 kernel=1 pad=1 border=reflect", "pad=1", "at most 0 an end for border=reflect",
     "an extent of 1 padded by 1 on axis W"},
    {"in=8 kernel=3 pad=9:0 border=wrap", "pad=9:0", "at most 8 an end for border=wrap",
     "an extent of 8 padded by 9:0 on axis W"},
    {"in=8 kernel=3 pad=-1:8 border=wrap", "pad=-1:8", "at most 7 an end for border=wrap",
     "an extent of 8 padded by -1:8 on axis W"},
    {"in=8 kernel=9", "kernel=9", small_window, "a window of 9 over an extent of 8 padded by 0 on axis W"},
    {"in=8x4 kernel=3 dilation=1x2", "kernel=3", small_window,
     "a window of 5 over an extent of 4 padded by 0 on axis W"},
    {"in=8 kernel=3 pad=-3", "kernel=3", small_window, "a window of 3 over an extent of 8 padded by -3 on axis W"},
    {"in=1 kernel=3 stride=3", "kernel=3", small_window, "a window of 3 over an extent of 1 padded by 0 on axis W"},
    {"in=4x8x8 kernel=5x1x1", "kernel=5x1x1", small_window, "a window of 5 over an extent of 4 padded by 0 on axis D"},
    {"op=local in=8 kernel=3 dilation=4", "kernel=3", small_window,
     "a window of 9 over an extent of 8 padded by 0 on axis W"},
    {"op=transposed in=1x3 kernel=3x2 pad=0x2", "pad=0x2", "an output extent of at least 1", "0 on axis W"},
    {"op=transposed in=2 kernel=2 pad=9223372036854775807:-3", "pad=9223372036854775807:-3",
     "an output extent of at least 1", "-9223372036854775801 on axis W"},
    {"type=float in=8 kernel=3", "type=float", "f32, f16, bf16 or u8s8"},
    {"type=f64 in=8 kernel=3", "type=f64", "f32, f16, bf16 or u8s8"},
    {"out_type=f32 in=8 kernel=3", "out_type=f32", "this key only with type=u8s8", "type=f32"},
    {"scale=tensor type=bf16 in=8 kernel=3", "scale=tensor", "this key only with type=u8s8", "type=bf16"},
    {"type=u8s8 out_type=u16 in=8 kernel=3", "out_type=u16", "f32, u8, s8 or i32"},
    {"type=u8s8 scale=row in=8 kernel=3", "scale=row", "tensor or channel"},
    {"in=8 kernel=3 layout=nhwc", "layout=nhwc", "channels_last or channels_first"},
    {"in=8 kernel=3 bias=2", "bias=2", "0 or 1"},
    {"in=8 kernel=3 bias=yes", "bias=yes", "0 or 1"},
    {"in=8 kernel=3 residual=-1", "residual=-1", "0 or 1"},
    {"in=8 kernel=3 activation=swish", "activation=swish", activation_form},
    {"in=8 kernel=3 activation=", "activation=", activation_form},
    {"in=8 kernel=3 activation=relu:1", "activation=relu:1", activation_form},
    {"in=8 kernel=3 activation=leaky_relu", "activation=leaky_relu", activation_form},
    {"in=8 kernel=3 activation=leaky_relu:", "activation=leaky_relu:", activation_form},
    {"in=8 kernel=3 activation=leaky_relu:nan", "activation=leaky_relu:nan", activation_form},
    {"in=8 kernel=3 activation=leaky_relu:0.1:0.2", "activation=leaky_relu:0.1:0.2", activation_form},
    {"in=8 kernel=3 activation=leaky_relu:1e39", "activation=leaky_relu:1e39", activation_form},
    {"in=8 kernel=3 activation=leaky_relu:0.1f", "activation=leaky_relu:0.1f", activation_form},
    {"in=8 kernel=3 activation=clamp", "activation=clamp", activation_form},
    {"in=8 kernel=3 activation=clamp:1", "activation=clamp:1", activation_form},
    {"in=8 kernel=3 activation=clamp:0:inf", "activation=clamp:0:inf", activation_form},
    {"in=8 kernel=3 activation=clamp:0:6:7", "activation=clamp:0:6:7", activation_form},
    {"in=8 kernel=3 activation=clamp:1:0", "activation=clamp:1:0", "clamp:LO:HI with LO <= HI"},
    {"in=8 kernel=3 save=post", "save=post", "none or pre"},
    {"in=8 kernel=3 precision=high", "precision=high", "exact or fast"},
    {"in=9223372036854775807 kernel=1 pad=1", "axis W", output_bits, "more"},
    {"in=8x? kernel=2x9223372036854775807 dilation=1x2", "axis W", output_bits, "more"},
    {"op=transposed in=4611686018427387905 kernel=1 stride=2", "axis W", output_bits, "more"},
    {"op=transposed in=3 kernel=1 pad=-9223372036854775808:0", "axis W", output_bits, "more"},
    {"in=9223372036854775807 kernel=1 pad=-9223372036854775807:9223372036854775807",
     "pad=-9223372036854775807:9223372036854775807", "a crop that leaves an extent of at least 1",
     "an extent of 9223372036854775807 padded by -9223372036854775807:9223372036854775807 on axis W"},
    {"ic=9223372036854775807 in=8 kernel=3", "input 1x9223372036854775807x8", elements, "more"},
    {"n=0 ic=9223372036854775807 in=8 kernel=3", "input 0x9223372036854775807x8", elements, "more"},
    {"oc=9223372036854775807 in=8 kernel=3", "output 1x9223372036854775807x6", elements, "more"},
    {"in=3037000500x3037000500 kernel=1", "input 1x1x3037000500x3037000500", elements, "more"},
    {"op=dense ic=65536 oc=65536 in=65536x65536", "weight 65536x1x1x65536x65536x65536", elements, "more"},
    {"ic=9223372036854775807 in=? kernel=2", "weight 1x9223372036854775807x2", elements, "more"},
};

TEST(Problem, RefusesInTheseWords) {
  for (const auto &[text, word, expected, got] : refusals) {
    const std::string came = got.empty() ? "\"" + word.substr(word.find('=') + 1) + "\"" : got;
    EXPECT_EQ(parse_message(text),
              "problem: " + word + ": expected " + expected + ", got " + came + " in \"" + text + "\"");
  }
}

TEST(Problem, RefusalOfHostileTextIsOneShortPrintableLine) {
  const std::string nul("in=8\0 kernel=3", 14), million(1000000, '1');
  const std::pair<std::string, std::string> cases[] = {
      {nul, R"(problem: in=8\x00: expected )" + in_form + R"(, got "8\x00" in "in=8\x00 kernel=3")"},
      {"in=3\xc3\x97"
       "3 kernel=1",
       R"(problem: in=3\xc3\x973: expected )" + in_form + R"(, got "3\xc3\x973" in "in=3\xc3\x973 kernel=1")"},
      {"kernel=\"3\"\n\tin=8\r\n",
       R"(problem: kernel=\"3\": expected )" + positive_1d + R"(, got "\"3\"" in "kernel=\"3\"\n\tin=8\r\n")"},
      {"a\\b", R"(problem: a\\b: expected )" + key_value + R"(, got "a\\b" in "a\\b")"},
      {million, "problem: " + std::string(48, '1') + "...: expected " + key_value + ", got \"" + std::string(48, '1') +
                    "...\" (1000000 bytes) in \"" + std::string(240, '1') + "...\" (1000000 bytes)"},
      {"in=8 kernel=" + million,
       "problem: kernel=" + std::string(48, '1') + "...: expected " + bits + ", got \"" + std::string(48, '1') +
           "...\" (1000000 bytes) in \"in=8 kernel=" + std::string(228, '1') + "...\" (1000012 bytes)"},
  };
  for (const auto &[text, message] : cases) EXPECT_EQ(parse_message(text), message);

  std::string repeated, crossed = "in=8 kernel=1";
  for (int i = 0; i < 200000; ++i) repeated += "in=8 ", crossed += "x1";
  for (const std::string &text : {repeated, crossed, million + "=" + million, "in=8 kernel=1 pad=1" + million,
                                  "in=8 kernel=1 activation=clamp:" + million + ":1", std::string(1000000, '\xff'),
                                  std::string(1000000, '='), "in=" + std::string(1000000, 'x')}) {
    const std::string message = parse_message(text);
    EXPECT_TRUE(one_printable_line(message) && message.size() < 1600) << message.substr(0, 2000);
    EXPECT_EQ(message.rfind("problem: ", 0), 0U) << message.substr(0, 2000);
  }
  EXPECT_EQ(Problem::parse("in=" + std::string(1000000, '0') + "8 kernel=3").str(), "in=8 kernel=3");
  EXPECT_EQ(Problem::parse(std::string(1000000, ' ') + "in=8 kernel=3").str(), "in=8 kernel=3");
}

/// CONVSMITH_SEED repeats a run.
unsigned seed() {
  const char *const wanted = std::getenv("CONVSMITH_SEED");
  return wanted != nullptr ? static_cast<unsigned>(std::strtoul(wanted, nullptr, 10)) : std::random_device()();
}

/// Valid problems with any value of any key, and other spellings of the same.
class RandomProblem {
 public:
  explicit RandomProblem(unsigned seed) : random_(seed) {}

  std::int64_t number(std::int64_t lo, std::int64_t hi) {
    return std::uniform_int_distribution<std::int64_t>(lo, hi)(random_);
  }

  Problem problem() {
    Problem p;
    do p = candidate();
    while (!is_valid(p));
    return p;
  }

  /// The words in any order and spacing, some axes and some defaults spelled out.
  std::string spelled(const Problem &p) {
    std::vector<std::string> words;
    std::string canonical = p.str();
    for (std::size_t at = 0; at != std::string::npos;) {
      const std::size_t end = canonical.find(' ', at);
      words.push_back(canonical.substr(at, end - at));
      at = end == std::string::npos ? end : end + 1;
    }
    for (std::string &word : words) {
      const std::string key = word.substr(0, word.find('=')), value = word.substr(key.size() + 1);
      const bool an_axis = key == "kernel" || key == "stride" || key == "dilation" || key == "pad" || key == "out";
      if (!an_axis || value.find('x') != std::string::npos || coin()) continue;
      for (int axis = 1; axis < p.rank; ++axis) word += "x" + value;
    }
    std::vector<std::string> defaults = {"op=correlation", "n=1",    "ic=1",       "oc=1",      "layout=channels_last",
                                         "type=f32",       "bias=0", "residual=0", "save=none", "precision=exact",
                                         "activation=none"};
    if (p.op != Op::dense) {
      defaults.insert(defaults.end(), {"stride=1", "dilation=1", "pad=0:0", "border=zero", "groups=1"});
    }
    if (p.op == Op::transposed) defaults.emplace_back("out_pad=0");
    if (p.type == Type::u8s8) defaults.insert(defaults.end(), {"out_type=f32", "scale=tensor"});
    for (const std::string &word : defaults) {
      const std::string key = word.substr(0, word.find('=') + 1);
      const bool given =
          std::any_of(words.begin(), words.end(), [&](const std::string &other) { return other.rfind(key, 0) == 0; });
      if (!given && coin()) words.push_back(word);
    }
    std::shuffle(words.begin(), words.end(), random_);
    std::string text;
    for (const std::string &word : words) text += std::string(coin() ? " " : "\t\n ") + word;
    return text;
  }

  /// A few bytes changed, put in, taken out or repeated; mostly by bytes that the grammar knows.
  std::string mutated(std::string text) {
    static const std::string likely = "0123456789x:=?-. \neaiprs";
    for (std::int64_t edits = number(1, 3); edits > 0 && !text.empty(); --edits) {
      const auto at = static_cast<std::size_t>(number(0, static_cast<std::int64_t>(text.size()) - 1));
      const auto length = static_cast<std::size_t>(number(1, 6));
      const std::size_t choice = static_cast<std::size_t>(number(0, static_cast<std::int64_t>(likely.size()) - 1));
      const char byte = number(0, 3) > 0 ? likely[choice] : static_cast<char>(number(0, 255));
      switch (number(0, 4)) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.insert(at, 1, byte);
          break;
        case 2:
          text.erase(at, length);
          break;
        case 3:
          text.insert(number(0, static_cast<std::int64_t>(at)), text.substr(at, length));
          break;
        case 4:
          text.insert(at, length * 2, text[at]);
          break;
      }
    }
    return text;
  }

 private:
  std::mt19937 random_;

  bool coin() { return number(0, 1) == 1; }
  template<class E>
  E any(E last) {
    return static_cast<E>(number(0, static_cast<std::int64_t>(last)));
  }
  /// Any f32, so that the shortest form needs up to nine digits.
  float real() {
    return std::ldexp(static_cast<float>(number(-(1 << 24), 1 << 24)), static_cast<int>(number(-60, 60)));
  }

  Problem candidate() {
    Problem p;
    p.op = any(Op::dense);
    p.rank = static_cast<int>(number(1, 3));
    p.n = coin() ? 1 : number(run_time, 4);
    p.groups = p.op == Op::dense || coin() ? 1 : number(1, 4);
    p.ic = p.groups * number(1, 5);
    p.oc = p.groups * number(1, 5);
    const bool shared = p.op != Op::local && p.op != Op::dense, equal = coin();
    for (int axis = 0; axis < p.rank; ++axis) {
      const int from = equal ? 0 : axis;
      p.in[axis] = shared && number(0, 7) == 0 ? run_time : number(1, 20);
      if (p.op == Op::dense) {
        p.dense_out[axis] = from < axis ? p.dense_out[from] : number(1, 4);
        continue;
      }
      p.kernel[axis] = from < axis ? p.kernel[from] : number(1, 4);
      p.stride[axis] = from < axis ? p.stride[from] : number(1, 3);
      p.dilation[axis] = from < axis ? p.dilation[from] : number(1, 3);
      p.pad_lo[axis] = from < axis ? p.pad_lo[from] : number(-2, 4);
      p.pad_hi[axis] = from < axis ? p.pad_hi[from] : number(-2, 4);
      if (p.op == Op::transposed) p.out_pad[axis] = number(0, std::max(p.stride[axis], p.dilation[axis]) - 1);
    }
    if (p.op != Op::dense && p.op != Op::transposed) p.border = any(Border::wrap);
    p.type = any(Type::u8s8);
    if (p.type == Type::u8s8) p.out_type = any(OutType::i32), p.scale = any(Scale::channel);
    p.layout = any(Layout::channels_first);
    p.bias = coin();
    p.activation.kind = any(Activation::Kind::clamp);
    if (p.activation.kind == Activation::Kind::leaky_relu) p.activation.a = real();
    if (p.activation.kind == Activation::Kind::clamp)
      std::tie(p.activation.a, p.activation.b) = std::minmax({real(), real()});
    p.residual = coin();
    p.save = any(Save::pre);
    p.precision = any(Precision::fast);
    return p;
  }

  static bool is_valid(const Problem &p) {
    for (int axis = 0; axis < p.rank && p.op != Op::dense; ++axis) {
      if (p.in[axis] == run_time) continue;
      if (p.out(axis) < 1) return false;
      if (p.op == Op::transposed) continue;
      const std::int64_t lo = p.pad_lo[axis], hi = p.pad_hi[axis];
      const std::int64_t left = p.in[axis] + std::min<std::int64_t>(lo, 0) + std::min<std::int64_t>(hi, 0);
      if (left < 1 || (p.border == Border::reflect && std::max(lo, hi) >= left)) return false;
      if (p.border == Border::wrap && std::max(lo, hi) > left) return false;
    }
    return true;
  }
};

TEST(Problem, RandomProblemsRoundTrip) {
  const unsigned chosen = seed();
  SCOPED_TRACE("CONVSMITH_SEED=" + std::to_string(chosen));
  RandomProblem random(chosen);
  for (int i = 0; i < 4000; ++i) {
    const Problem problem = random.problem();
    const std::string canonical = problem.str(), spelled = random.spelled(problem);
    ASSERT_EQ(parse_message(canonical), "accepted");
    ASSERT_EQ(fields(Problem::parse(canonical)), fields(problem)) << canonical;
    ASSERT_EQ(parse_message(spelled), "accepted");
    ASSERT_EQ(fields(Problem::parse(spelled)), fields(problem)) << spelled;
    ASSERT_EQ(Problem::parse(spelled).str(), canonical);
  }
}

TEST(Problem, MutatedTextsParseOrAreRefusedInOneLine) {
  const unsigned chosen = seed();
  SCOPED_TRACE("CONVSMITH_SEED=" + std::to_string(chosen));
  RandomProblem random(chosen);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random.mutated(random.spelled(random.problem()));
    const std::string message = parse_message(text);
    ASSERT_TRUE(one_printable_line(message) && message.size() < 1600) << message;
    if (message == "accepted") {
      ++accepted;
      const Problem problem = Problem::parse(text);
      ASSERT_EQ(fields(Problem::parse(problem.str())), fields(problem)) << problem.str();
      ASSERT_EQ(Problem::parse(problem.str()).str(), problem.str());
    } else {
      ++refused;
      ASSERT_EQ(message.rfind("problem: ", 0), 0U) << message;
    }
  }
  EXPECT_GT(accepted, 200);
  EXPECT_GT(refused, 5000);
}

}  // namespace
}  // namespace convsmith
