#include "spirv.h"
#include <cstring>

namespace convsmith {
namespace {

// Source: Khronos, SPIR-V Specification, "Binary Form" and "Instructions".
constexpr std::uint32_t magic = 0x07230203;
constexpr std::size_t header_words = 5;
enum Opcode : std::uint32_t { function_end = 56, load = 61, unsigned_less = 176, signed_less = 177, loop_merge = 246, label = 248, branch = 249, branch_conditional = 250 };

std::uint32_t word(const std::uint8_t *bytes, std::size_t i) {
  std::uint32_t w;
  std::memcpy(&w, bytes + 4 * i, sizeof w);
  return w;
}

}  // namespace

int compare_loops_signed(std::uint8_t *bytes, std::size_t count) {
  int changed = 0;
  for (std::size_t at = 0; at + 4 * header_words <= count; at++) {
    if (word(bytes + at, 0) != magic) continue;
    std::uint8_t *module = bytes + at;
    const std::size_t words = (count - at) / 4;
    // The header of a loop: merge, branch, label, load of the index, comparison, conditional branch.
    int step = 0;
    std::size_t i = header_words;
    while (i < words) {
      const std::uint32_t first = word(module, i), opcode = first & 0xffff, length = first >> 16;
      if (length == 0 || i + length > words) break;
      static constexpr std::uint32_t wanted[] = {loop_merge, branch, label, load, unsigned_less, branch_conditional};
      step = opcode == wanted[step] ? step + 1 : opcode == loop_merge ? 1 : 0;
      if (step == 6) {
        const std::size_t comparison = i - 5;  // of five words, just before
        const std::uint32_t replaced = (word(module, comparison) & 0xffff0000u) | signed_less;
        std::memcpy(module + 4 * comparison, &replaced, sizeof replaced);
        changed++, step = 0;
      }
      i += length;
      if (opcode == function_end) break;
    }
    at += 4 * i - 1;
  }
  return changed;
}

}  // namespace convsmith
