// 64-bit FNV-1a (Fowler, Noll, Vo): it tells texts apart, against accidents only.
#pragma once
#include <cstdint>
#include <string_view>

namespace convsmith {

inline std::uint64_t fnv1a(std::string_view text, std::uint64_t offset = 0xcbf29ce484222325) {
  for (const unsigned char c : text) offset = (offset ^ c) * 0x100000001b3;
  return offset;
}

}  // namespace convsmith
