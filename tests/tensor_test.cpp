// Shapes, memory orders, views and the checks of a tensor; the 16-bit formats.
#include "convsmith/tensor.h"
#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include "convsmith/error.h"
#include "convsmith/half.h"

namespace convsmith {
namespace {

// 0, 1, 2, … in logical order.
void count_up(const Tensor &tensor) {
  const Shape shape = tensor.shape();
  Shape index(shape.size(), 0);
  for (std::int64_t i = 0; i < tensor.elements(); i++) {
    std::int64_t rest = i;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      index[axis] = rest % shape[axis];
      rest /= shape[axis];
    }
    tensor.at(index) = static_cast<float>(i);
  }
}

convsmith_tensor descriptor(const Shape &shape, const Shape &strides) {
  convsmith_tensor result{nullptr, CONVSMITH_F32, static_cast<std::int32_t>(shape.size()), {}, {}, nullptr};
  for (std::size_t i = 0; i < shape.size(); i++) {
    result.extent[i] = shape[i];
    result.stride[i] = strides[i];
  }
  return result;
}

const Shape image{2, 3, 4, 5};
const convsmith_tensor channels_last = descriptor(image, {60, 1, 15, 3});

TEST(Tensor, IsRowMajorZeroAndAligned) {
  for (std::int64_t width = 1; width < 40; width++) {
    const Tensor t({3, 2, width});
    EXPECT_EQ(t.strides(), (Shape{2 * width, width, 1}));
    EXPECT_EQ(t.elements(), 6 * width);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.data<void>()) % 64, 0u);
    for (std::int64_t i = 0; i < t.elements(); i++) ASSERT_EQ(t.data<float>()[i], 0);
  }
}

TEST(Tensor, ScalarsAndEmptyTensors) {
  const Tensor scalar(Shape{});
  EXPECT_EQ(scalar.elements(), 1);
  scalar.fill(3);
  EXPECT_EQ(scalar.at({}), 3);
  const Tensor empty(Shape{0, 3, 5});
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.elements(), 0);
  empty.fill(1);
  EXPECT_EQ(empty.clone().shape(), (Shape{0, 3, 5}));
  EXPECT_EQ(empty.first_not_finite(), -1);
  const Tensor none;
  EXPECT_FALSE(none.defined());
  EXPECT_FALSE(none.clone().defined());
  EXPECT_EQ(none.elements(), 0);
}

TEST(Tensor, TakesTheMemoryOrderOfADescriptor) {
  const Tensor t(channels_last);
  EXPECT_EQ(t.strides(), (Shape{60, 1, 15, 3}));
  // Padded rows are packed; an axis of extent 1 keeps its stride; equal strides leave the logical order.
  EXPECT_EQ(Tensor(descriptor({2, 3, 4}, {100, 1, 10})).strides(), (Shape{12, 1, 3}));
  EXPECT_EQ(Tensor(descriptor({2, 1, 4, 5}, {20, 1, 5, 1})).strides(), (Shape{20, 1, 5, 1}));
  EXPECT_EQ(Tensor(descriptor({2, 3, 4}, {1, 1, 1})).strides(), (Shape{12, 4, 1}));
}

TEST(Tensor, CopiesShareAndClonesDoNot) {
  const Tensor t(channels_last);
  const Tensor shared = t, cloned = t.clone();  // NOLINT(performance-unnecessary-copy-initialization)
  t.at({1, 2, 3, 4}) = 7;
  EXPECT_EQ(shared.at({1, 2, 3, 4}), 7);
  EXPECT_EQ(cloned.at({1, 2, 3, 4}), 0);
  EXPECT_EQ(cloned.strides(), t.strides());
}

TEST(Tensor, CopiesBetweenMemoryOrders) {
  const Tensor from(image), to(channels_last), back(image);
  count_up(from);
  to.copy_from(from);
  for (std::int64_t c = 0; c < 3; c++) EXPECT_EQ(to.at({1, c, 2, 3}), from.at({1, c, 2, 3}));
  EXPECT_EQ(to.data<float>()[1], 20);  // the second channel of the first pixel
  back.copy_from(to);
  for (std::int64_t i = 0; i < from.elements(); i++) ASSERT_EQ(back.data<float>()[i], static_cast<float>(i));
}

// A view of memory of its own that is larger than it: axes in some order, some of them backwards, gaps between them and
// memory on either side. Every byte is random.
struct Placed {
  Placed(const Shape &shape, convsmith_type type, const std::vector<int> &order, std::mt19937 &random, int gaps) {
    Shape strides(shape.size(), 1);
    std::int64_t step = 1, first = 16, last = 16;
    for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
      const std::size_t a = std::size_t(*axis);
      if (gaps > 1 && random() % 4 == 0) step += std::int64_t(random() % 3);
      const std::int64_t reach = step * std::max<std::int64_t>(0, shape[a] - 1);
      if (gaps > 1 && random() % 8 == 0) strides[a] = -step, first += reach;
      else strides[a] = step;
      last += reach, step *= std::max<std::int64_t>(1, shape[a]);
      if (gaps > 0 && random() % 3 == 0) step += std::int64_t(1 + random() % 5);
    }
    bytes.resize(std::size_t(last + 17) * size_of(type));
    unsigned some = random();
    for (auto &byte : bytes) byte = static_cast<std::uint8_t>((some = some * 1664525u + 1013904223u) >> 24);
    tensor = Tensor::view(bytes.data() + std::size_t(first) * size_of(type), type, shape, strides);
  }
  std::vector<std::uint8_t> bytes;
  Tensor tensor;
};

// Where the elements lie from the first, in logical order, in bytes.
std::vector<std::ptrdiff_t> places(const Tensor &tensor) {
  std::vector<std::ptrdiff_t> places = {0};
  const Shape shape = tensor.shape(), strides = tensor.strides();
  for (std::size_t axis = 0; axis < shape.size(); axis++) {
    std::vector<std::ptrdiff_t> within;
    for (const std::ptrdiff_t place : places)
      for (std::int64_t i = 0; i < shape[axis]; i++)
        within.push_back(place + i * strides[axis] * std::ptrdiff_t(size_of(tensor.type())));
    places = std::move(within);
  }
  return places;
}

// Every byte that is no element of `to` stays as it is.
void expect_copies(const Tensor &from, const Placed &to) {
  const auto *read = static_cast<const std::uint8_t *>(from.data<void>());
  std::vector<std::uint8_t> wanted = to.bytes;
  std::uint8_t *written = wanted.data() + (static_cast<const std::uint8_t *>(to.tensor.data<void>()) - to.bytes.data());
  const std::vector<std::ptrdiff_t> sources = places(from), targets = places(to.tensor);
  for (std::size_t i = 0; i < sources.size(); i++)
    for (std::size_t byte = 0; byte < size_of(from.type()); byte++)
      written[targets[i] + std::ptrdiff_t(byte)] = read[sources[i] + std::ptrdiff_t(byte)];
  to.tensor.copy_from(from);
  ASSERT_TRUE(to.bytes == wanted) << shape_text(from.shape()) << " of " << size_of(from.type()) << " bytes, from strides "
                                  << shape_text(from.strides()) << " to " << shape_text(to.tensor.strides());
}

const convsmith_type copied_types[] = {CONVSMITH_F32, CONVSMITH_F16, CONVSMITH_U8, CONVSMITH_I32};

TEST(Tensor, CopiesBetweenAnyOrdersWithAnyGaps) {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; round++) {
    Shape shape(1 + random() % 6, 1);
    for (auto &extent : shape) {
      const std::int64_t extents[] = {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 70};
      extent = extents[round % 16 ? 1 + random() % 11 : random() % 12];
      if (element_count(shape) > 20'000) extent = 1 + extent % 2;
    }
    std::vector<int> orders[2] = {std::vector<int>(shape.size()), std::vector<int>(shape.size())};
    for (auto &order : orders) {
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
    }
    for (const convsmith_type type : copied_types) {
      const int gaps = int(random() % 3);
      const Placed from(shape, type, orders[0], random, gaps);
      const Placed to(shape, type, orders[1], random, gaps);
      ASSERT_NO_FATAL_FAILURE(expect_copies(from.tensor, to)) << "seed 11, round " << round;
    }
  }
}

// The extents at which a block is whole, or lacks or has one more, on both sides of a transposition.
TEST(Tensor, CopiesTransposedAtTheEdgesOfBlocks) {
  std::mt19937 random(12);
  const std::int64_t edges[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65};
  for (const std::int64_t rows : edges)
    for (const std::int64_t columns : edges)
      for (const convsmith_type type : copied_types)
        for (const int gaps : {0, 1, 2}) {
          const Shape shape = {2, 3, rows, columns};
          const Placed from(shape, type, {0, 1, 2, 3}, random, gaps);
          for (const std::vector<int> &order : {std::vector<int>{0, 1, 3, 2}, {3, 0, 1, 2}, {0, 3, 1, 2}, {2, 3, 1, 0}}) {
            const Placed to(shape, type, order, random, gaps);
            ASSERT_NO_FATAL_FAILURE(expect_copies(from.tensor, to));
          }
        }
}

// More columns than are joined, one axis of them that long, cache lines by the thousand, and rows a page apart.
TEST(Tensor, CopiesLongAxesTransposed) {
  std::mt19937 random(13);
  for (const Shape &shape : {Shape{70'000, 3}, {3, 70'000}, {1024, 37}, {32, 32, 37}, {300, 300, 5}, {5, 300, 300}, {2, 9, 1000, 4}})
    for (const convsmith_type type : copied_types) {
      std::vector<int> order(shape.size());
      std::iota(order.begin(), order.end(), 0);
      const Placed from(shape, type, order, random, 0);
      do {
        const Placed to(shape, type, order, random, 0);
        ASSERT_NO_FATAL_FAILURE(expect_copies(from.tensor, to));
      } while (shape.size() < 4 && std::next_permutation(order.begin(), order.end()));
    }
}

TEST(Tensor, CopiesWhatIsReadAgainAndAgain) {
  std::mt19937 random(14);
  const Shape shape = {5, 17, 33};
  for (const convsmith_type type : copied_types)
    for (int round = 0; round < 60; round++) {
      std::vector<std::uint8_t> row(40 * size_of(type));
      for (auto &byte : row) byte = static_cast<std::uint8_t>(random());
      Shape strides = {0, 0, 0};
      strides[random() % 3] = 1;
      const Tensor from = Tensor::view(row.data(), type, shape, strides);
      std::vector<int> order = {0, 1, 2};
      std::shuffle(order.begin(), order.end(), random);
      const Placed to(shape, type, order, random, round % 3);
      ASSERT_NO_FATAL_FAILURE(expect_copies(from, to)) << "seed 14, round " << round;
    }
}

TEST(Tensor, ViewsStridedMemory) {
  std::vector<float> memory(20);
  for (std::size_t i = 0; i < memory.size(); i++) memory[i] = static_cast<float>(i);
  const Tensor view = Tensor::view(memory.data() + 3, CONVSMITH_F32, {2, 4}, {10, -1});
  EXPECT_EQ(view.at({1, 2}), 11);
  const Tensor dense(view.shape());
  dense.copy_from(view);
  EXPECT_EQ(dense.at({1, 2}), 11);
  view.fill(-1);
  EXPECT_EQ(memory[13], -1);
  EXPECT_EQ(memory[14], 14);
  EXPECT_THROW(Tensor::view(nullptr, CONVSMITH_F32, {2}, {1}), Error);
  EXPECT_THROW(Tensor::view(memory.data(), CONVSMITH_F32, {2}, {1, 1}), Error);
}

TEST(Tensor, PermutesAndReshapes) {
  Tensor permuted;
  {
    const Tensor t(image);
    count_up(t);
    permuted = t.permuted({0, 2, 3, 1});
    EXPECT_EQ(permuted.shape(), (Shape{2, 4, 5, 3}));
    EXPECT_EQ(permuted.at({1, 2, 3, 0}), t.at({1, 0, 2, 3}));
    EXPECT_EQ(t.reshaped({6, 1, 20}).at({5, 0, 19}), 119);
    EXPECT_EQ(t.reshaped({1, 2, 3, 4, 5, 1}).at({0, 1, 2, 3, 4, 0}), 119);
    EXPECT_THROW(t.reshaped({6, 19}), Error);
    EXPECT_THROW(permuted.reshaped({120}), Error);
    EXPECT_THROW(t.permuted({0, 1, 2, 2}), Error);
    EXPECT_THROW(t.permuted({0, 1, 2}), Error);
  }
  EXPECT_EQ(permuted.at({1, 3, 4, 2}), 119);  // the view keeps the memory alive
}

TEST(Tensor, FitsSharesAndCopies) {
  const Tensor row_major(image), last(channels_last);
  count_up(row_major);
  EXPECT_TRUE(last.fits(channels_last));
  EXPECT_FALSE(row_major.fits(channels_last));
  EXPECT_EQ(last.ordered_like(channels_last).data<void>(), last.data<void>());
  const Tensor copy = row_major.ordered_like(channels_last);
  EXPECT_EQ(copy.strides(), last.strides());
  EXPECT_EQ(copy.at({1, 2, 3, 4}), 119);
  // One channel: nothing moves, but the channel's stride becomes what the descriptor says.
  const Tensor grey({2, 1, 4, 5});
  const Tensor same = grey.ordered_like(descriptor({2, 1, 4, 5}, {20, 1, 5, 1}));
  EXPECT_EQ(same.data<void>(), grey.data<void>());
  EXPECT_EQ(same.strides(), (Shape{20, 1, 5, 1}));
  // An extent known only when run.
  EXPECT_TRUE(last.fits(descriptor({run_time, 3, 4, 5}, {60, 1, 15, 3})));
  EXPECT_THROW(last.ordered_like(descriptor({3, 3, 4, 5}, {60, 1, 15, 3})), Error);
}

TEST(Tensor, FillsEveryType) {
  const auto filled = [](convsmith_type type) {
    const Tensor t({3, 3}, type);
    t.fill(100);
    return t;
  };
  EXPECT_EQ(filled(CONVSMITH_F32).data<float>()[8], 100);
  EXPECT_EQ(filled(CONVSMITH_F16).data<std::uint16_t>()[8], 0x5640);
  EXPECT_EQ(filled(CONVSMITH_BF16).data<std::uint16_t>()[8], 0x42c8);
  EXPECT_EQ(filled(CONVSMITH_U8).data<std::uint8_t>()[8], 100);
  EXPECT_EQ(filled(CONVSMITH_S8).data<std::int8_t>()[8], 100);
  EXPECT_EQ(filled(CONVSMITH_I32).data<std::int32_t>()[8], 100);
  EXPECT_THROW(Tensor({1}, CONVSMITH_U8).fill(256), Error);
  EXPECT_THROW(Tensor({1}, CONVSMITH_U8).fill(-1), Error);
  EXPECT_THROW(Tensor({1}, CONVSMITH_S8).fill(0.5f), Error);
  EXPECT_THROW(Tensor({1}, CONVSMITH_I32).fill(std::numeric_limits<float>::quiet_NaN()), Error);
}

TEST(Tensor, FindsTheFirstNumberThatIsNotFinite) {
  const Tensor t(channels_last);
  EXPECT_EQ(t.first_not_finite(), -1);
  t.at({1, 2, 0, 0}) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(t.first_not_finite(), 100);
  t.at({1, 1, 0, 1}) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(t.first_not_finite(), 81);
  EXPECT_EQ(Tensor({1}, CONVSMITH_U8).first_not_finite(), -1);
  EXPECT_EQ(t.as(CONVSMITH_F16).first_not_finite(), 81);
  EXPECT_EQ(t.as(CONVSMITH_BF16).first_not_finite(), 81);
}

TEST(Tensor, BecomesAnotherType) {
  const Tensor t(channels_last);
  t.at({0, 1, 0, 1}) = 1.0f + 0x1p-11f;      // a tie in f16
  t.at({1, 2, 3, 4}) = 1.0f + 3 * 0x1p-8f;   // a tie in bf16
  EXPECT_EQ(t.as(CONVSMITH_F32).data<float>(), t.data<float>());
  const Tensor half = t.as(CONVSMITH_F16).as(CONVSMITH_F32), brain = t.as(CONVSMITH_BF16).as(CONVSMITH_F32);
  EXPECT_EQ(half.strides(), t.strides());
  EXPECT_EQ(half.at({0, 1, 0, 1}), 1.0f);
  EXPECT_EQ(half.at({1, 2, 3, 4}), 1.0f + 3 * 0x1p-8f);
  EXPECT_EQ(brain.at({1, 2, 3, 4}), 1.0f + 0x1p-6f);
  EXPECT_THROW((void)t.as(CONVSMITH_U8), Error);
  const Tensor bytes({3}, CONVSMITH_S8);
  bytes.fill(-7);
  EXPECT_EQ(bytes.as(CONVSMITH_I32).data<std::int32_t>()[2], -7);
  EXPECT_THROW((void)bytes.as(CONVSMITH_U8), Error);
}

TEST(Tensor, ScalesAndFindsTheLargest) {
  const Tensor t(channels_last);
  EXPECT_EQ(t.largest_magnitude(), 0);
  t.at({1, 1, 0, 1}) = -3, t.at({0, 1, 0, 1}) = 2;
  EXPECT_EQ(t.largest_magnitude(), 3);
  t.scale(0.5f);
  EXPECT_EQ(t.at({1, 1, 0, 1}), -1.5f);
  EXPECT_EQ(t.as(CONVSMITH_F16).largest_magnitude(), 1.5f);
  EXPECT_THROW(t.as(CONVSMITH_F16).scale(2), Error);
}

TEST(Tensor, RefusesShapesThatDoNotFit) {
  const std::int64_t large = std::numeric_limits<std::int32_t>::max();
  EXPECT_THROW(Tensor({large + 1}), Error);
  EXPECT_THROW(Tensor({-1}), Error);
  EXPECT_THROW(Tensor({large, large}), Error);
  EXPECT_THROW(Tensor({large, large, large, 0}), Error);
  EXPECT_THROW(Tensor(Shape(10, 1)), Error);
  EXPECT_THROW(Tensor({2, 65536, 65536}), Error);  // a stride of 2^32
  EXPECT_THROW(Tensor({2}, static_cast<convsmith_type>(17)), Error);
  EXPECT_THROW((void)Tensor({2}).extent(1), Error);
  EXPECT_THROW(Tensor({2}).copy_from(Tensor({3})), Error);
  EXPECT_THROW(Tensor({2}).copy_from(Tensor({2}, CONVSMITH_I32)), Error);
}

TEST(Tensor, DescribesItselfToC) {
  const Tensor t(channels_last);
  const convsmith_tensor c = t.c();
  EXPECT_EQ(c.data, t.data<void>());
  EXPECT_EQ(c.rank, 4);
  EXPECT_EQ(c.extent[3], 5);
  EXPECT_EQ(c.stride[3], 3);
  EXPECT_EQ(t.buffer().dim(0).extent(), 5);  // Halide counts from the innermost
  EXPECT_EQ(t.buffer().dim(2).stride(), 1);
}

TEST(Half, EveryFloat16SurvivesTheRoundTrip) {
  for (std::uint32_t bits = 0; bits < 65536; bits++) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = from_float16(half);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(from_float16(to_float16(wide)))) << bits;
    } else {
      ASSERT_EQ(to_float16(wide), half) << bits;
    }
  }
  EXPECT_EQ(from_float16(0x3c00), 1.0f);
  EXPECT_EQ(from_float16(0x0001), 0x1p-24f);
  EXPECT_EQ(from_float16(0xfbff), -65504.0f);
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_float16(2049.0f), to_float16(2048.0f));
  EXPECT_EQ(to_float16(2051.0f), to_float16(2052.0f));
  EXPECT_EQ(to_float16(65519.0f), 0x7bff);
  EXPECT_EQ(to_float16(65520.0f), 0x7c00);
  EXPECT_EQ(to_float16(0x1p-25f), 0);
  EXPECT_EQ(to_float16(0x1.8p-25f), 1);
  EXPECT_EQ(to_bfloat16(257.0f), to_bfloat16(256.0f));
  EXPECT_EQ(to_bfloat16(259.0f), to_bfloat16(260.0f));
  EXPECT_EQ(from_bfloat16(to_bfloat16(-1.5f)), -1.5f);
  EXPECT_TRUE(std::isnan(from_bfloat16(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace convsmith
