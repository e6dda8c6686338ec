// Numbers of narrow types, one at a time.
#pragma once
#include <cstdint>
#include <cstring>

namespace bestiary::ISA {

inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float half_to_float(uint16_t h) {
  // Exponent and mantissa of a half, moved to those of a float, and the difference of the biases multiplied away; that
  // is exact for subnormal halves too.  Infinities and NaN keep their exponent.
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000u | (rest & 0x3ff) << 13);
  return from_bits(sign | to_bits(from_bits(rest << 13) * 0x1p112f));
}

inline uint16_t float_to_half(float x) {  // to the nearest, ties to even
  const uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (rest >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (rest < 0x38800000) {  // subnormal: adding a half rounds to units of 2^-24
    const float shifted = from_bits(rest) + 0.5f;
    return static_cast<uint16_t>(sign | (to_bits(shifted) - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

inline float brain_to_float(uint16_t b) { return from_bits(static_cast<uint32_t>(b) << 16); }

inline uint16_t float_to_brain(float x) {  // to the nearest, ties to even
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

// The types of tensors of plain numbers, as the interface counts them.
enum NumberType : int32_t { F32 = 0, BF16 = 1, F16 = 2 };

struct Float32 {
  using Stored = float;
  static float get(Stored x) { return x; }
  static Stored put(float x) { return x; }
};
struct Brain16 {
  using Stored = uint16_t;
  static float get(Stored x) { return brain_to_float(x); }
  static Stored put(float x) { return float_to_brain(x); }
};
struct Half16 {
  using Stored = uint16_t;
  static float get(Stored x) { return half_to_float(x); }
  static Stored put(float x) { return float_to_half(x); }
};

}  // namespace bestiary::ISA
