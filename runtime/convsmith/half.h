// The two 16-bit floating-point formats as bits. Conversions to them round to nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace convsmith {

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float from_bfloat16(std::uint16_t bits) { return float_of(std::uint32_t{bits} << 16); }

inline std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// A float on its way to 16 bits, rounded to odd: the nearest of 16 bits is then that of the value itself.
inline float to_odd(long double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<long double>(nearest) == value || value != value) return nearest;
  const bool away = (nearest > value) == (value > 0);  // from zero
  return float_of((bits_of(nearest) - (away ? 1 : 0)) | 1);
}

/// IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits.
inline float from_float16(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits} >> 15 << 31, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Read as a float the exponent is 112 too small; the product is exact and also normalises subnormals.
  return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112f));
}

inline std::uint16_t to_float16(float value) {
  const std::uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffff;
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds past 65504, the largest
  if (magnitude < 0x38800000) {                       // subnormal: adding 1/2 rounds at 2^-24, its last place
    return static_cast<std::uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
  }
  return static_cast<std::uint16_t>(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

}  // namespace convsmith
