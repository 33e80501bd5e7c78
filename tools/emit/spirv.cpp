#include "spirv.h"
#include <cstring>
#include <set>

namespace convsmith {
namespace {

// Source: Khronos, SPIR-V Specification, "Binary Form" and "Instructions".
constexpr std::uint32_t magic = 0x07230203;
constexpr std::size_t header_words = 5;
enum Opcode : std::uint32_t {
  type_int = 21,
  type_vector = 23,
  function_end = 56,
  load = 61,
  unsigned_less = 176,
  signed_less = 177,
  shift_right_logical = 194,
  shift_right_arithmetic = 195,
  loop_merge = 246,
  label = 248,
  branch = 249,
  branch_conditional = 250
};

std::uint32_t word(const std::uint8_t *bytes, std::size_t i) {
  std::uint32_t w;
  std::memcpy(&w, bytes + 4 * i, sizeof w);
  return w;
}

void set_opcode(std::uint8_t *module, std::size_t instruction, Opcode opcode) {
  const std::uint32_t first = (word(module, instruction) & 0xffff0000u) | opcode;
  std::memcpy(module + 4 * instruction, &first, sizeof first);
}

}  // namespace

int mend_spirv(std::uint8_t *bytes, std::size_t count) {
  int changed = 0;
  for (std::size_t at = 0; at + 4 * header_words <= count; at++) {
    if (word(bytes + at, 0) != magic) continue;
    std::uint8_t *module = bytes + at;
    const std::size_t words = (count - at) / 4;
    // The header of a loop: merge, branch, label, load of the index, comparison, conditional branch.
    int step = 0;
    std::set<std::uint32_t> signed_types;
    std::size_t i = header_words;
    while (i < words) {
      const std::uint32_t first = word(module, i), opcode = first & 0xffff, length = first >> 16;
      if (length == 0 || i + length > words) break;
      static constexpr std::uint32_t wanted[] = {loop_merge, branch, label, load, unsigned_less, branch_conditional};
      step = opcode == wanted[step] ? step + 1 : opcode == loop_merge ? 1 : 0;
      if (step == 6) {
        set_opcode(module, i - 5, signed_less);  // of five words, just before
        changed++, step = 0;
      }
      if (opcode == type_int && length == 4 && word(module, i + 3) == 1) signed_types.insert(word(module, i + 1));
      if (opcode == type_vector && length == 4 && signed_types.count(word(module, i + 2))) signed_types.insert(word(module, i + 1));
      if (opcode == shift_right_logical && length == 5 && signed_types.count(word(module, i + 1))) {
        set_opcode(module, i, shift_right_arithmetic);
        changed++;
      }
      i += length;
      if (opcode == function_end) break;
    }
    at += 4 * i - 1;
  }
  return changed;
}

}  // namespace convsmith
