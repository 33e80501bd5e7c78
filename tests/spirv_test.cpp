// The comparison that ends a loop of Halide's SPIR-V becomes a signed one, its shifts of signed numbers arithmetic, and nothing
// else changes.
#include "tools/emit/spirv.h"
#include <gtest/gtest.h>
#include <vector>

namespace convsmith {
namespace {

// Source: Khronos, SPIR-V Specification, "Instructions".
constexpr std::uint32_t unsigned_less = 5u << 16 | 176, signed_less = 5u << 16 | 177;
const std::vector<std::uint32_t> header = {0x07230203, 0x00010000, 0, 100, 0};
// Merge, branch, label, load of the index, comparison, conditional branch.
const std::vector<std::uint32_t> loop = {4u << 16 | 246, 9, 8, 0, 2u << 16 | 249, 6, 2u << 16 | 248, 6, 4u << 16 | 61, 1, 10, 2,
                                         unsigned_less, 3, 11, 10, 12, 4u << 16 | 250, 11, 7, 9};
const std::vector<std::uint32_t> other = {unsigned_less, 3, 13, 10, 12}, end = {1u << 16 | 56};

std::vector<std::uint32_t> joined(const std::vector<std::vector<std::uint32_t>> &parts) {
  std::vector<std::uint32_t> all;
  for (auto &part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

int changed(std::vector<std::uint32_t> &words) {
  return mend_spirv(reinterpret_cast<std::uint8_t *>(words.data()), 4 * words.size());
}

TEST(Spirv, LoopsAreComparedSigned) {
  std::vector<std::uint32_t> two = joined({{7, 7}, header, loop, other, loop, end, {1, 2, 3}, header, other, loop, end});
  EXPECT_EQ(changed(two), 3);
  std::vector<std::uint32_t> signed_loop = loop;
  signed_loop[12] = signed_less;
  EXPECT_EQ(two, joined({{7, 7}, header, signed_loop, other, signed_loop, end, {1, 2, 3}, header, other, signed_loop, end}));
  EXPECT_EQ(changed(two), 0);
}

TEST(Spirv, SignedNumbersAreShiftedSigned) {
  // int and uint of 32 bits, and a vector of two of each, with their identifiers.
  const std::vector<std::uint32_t> types = {4u << 16 | 21, 1, 32, 1, 4u << 16 | 21, 2, 32, 0, 4u << 16 | 23, 3, 1, 2, 4u << 16 | 23, 4, 2, 2};
  const auto shift = [](std::uint32_t type, std::uint32_t opcode) { return std::vector<std::uint32_t>{5u << 16 | opcode, type, 20, 21, 22}; };
  std::vector<std::uint32_t> words = joined({header, types, shift(1, 194), shift(2, 194), shift(3, 194), shift(4, 194), end});
  EXPECT_EQ(changed(words), 2);
  EXPECT_EQ(words, joined({header, types, shift(1, 195), shift(2, 194), shift(3, 195), shift(4, 194), end}));
}

TEST(Spirv, WhatIsNoModuleIsLeftAlone) {
  std::vector<std::uint32_t> none = joined({loop, other}), torn = joined({header, {0}, loop}), before = torn;
  EXPECT_EQ(changed(none), 0);
  EXPECT_EQ(changed(torn), 0);
  EXPECT_EQ(torn, before);
  EXPECT_EQ(mend_spirv(nullptr, 0), 0);
}

}  // namespace
}  // namespace convsmith
