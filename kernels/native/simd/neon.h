// Vectors of 4 numbers, for Arm processors with dot products (Armv8.2-A).
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace bestiary::ISA {

constexpr int LANES = 4;
using Ints = int32x4_t;
using Floats = float32x4_t;

inline Ints words_of(uint8x16_t a) { return vreinterpretq_s32_u8(a); }
inline uint8x16_t bytes_of(Ints a) { return vreinterpretq_u8_s32(a); }

inline Ints load(const void* p) { return words_of(vld1q_u8(static_cast<const uint8_t*>(p))); }
inline Ints ints(int32_t x) { return vdupq_n_s32(x); }
inline Ints bytes(int8_t x) { return vreinterpretq_s32_s8(vdupq_n_s8(x)); }
inline Ints both(Ints a, Ints b) { return vandq_s32(a, b); }
inline Ints either(Ints a, Ints b) { return vorrq_s32(a, b); }
inline Ints add(Ints a, Ints b) { return vaddq_s32(a, b); }
inline Ints subtract(Ints a, Ints b) { return vsubq_s32(a, b); }
inline Ints multiply(Ints a, Ints b) { return vmulq_s32(a, b); }
template <int N> inline Ints right(Ints a) {
  if constexpr (N == 0) return a;
  else return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), N));
}
template <int N> inline Ints left(Ints a) { return vshlq_n_s32(a, N); }
inline Ints greater(Ints a, Ints b) { return vreinterpretq_s32_u32(vcgtq_s32(a, b)); }
inline Ints choose(Ints mask, Ints yes, Ints no) { return vbslq_s32(vreinterpretq_u32_s32(mask), yes, no); }

inline Floats floats(float x) { return vdupq_n_f32(x); }
inline Floats load_floats(const float* p) { return vld1q_f32(p); }
inline void store(float* p, Floats x) { vst1q_f32(p, x); }
inline Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
inline Floats multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }  // a b + c
inline Floats numbers(Ints a) { return vcvtq_f32_s32(a); }
inline Floats bits(Ints a) { return vreinterpretq_f32_s32(a); }
inline Ints bits(Floats a) { return vreinterpretq_s32_f32(a); }
inline Floats halves(const void* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const uint8_t*>(p))));
}
inline Ints words16(const void* p) {
  return vreinterpretq_s32_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(static_cast<const uint8_t*>(p)))));
}
inline uint16x8_t four_bytes(const void* p) {
  uint32_t word;
  __builtin_memcpy(&word, p, 4);
  return vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
}
inline Ints unsigned8(const void* p) { return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(four_bytes(p)))); }
inline Ints signed8(const void* p) {
  uint32_t word;
  __builtin_memcpy(&word, p, 4);
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word)))));
}
inline Ints lookup(const int8_t* table, Ints index) {
  return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table), bytes_of(index)));
}
inline float total(Floats a) { return vaddvq_f32(a); }
inline void prefetch(const void* p) { __builtin_prefetch(p); }

inline int8x16_t four(const int8_t* a) {  // the same four bytes in every lane
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

// The sum over COUNT words of w (bytes of at most LIMIT, below 128) times a (signed bytes), lane by lane.
template <int COUNT, int LIMIT> inline Ints dot(const Ints* w, const int8_t* a) {
  static_assert(LIMIT < 128, "a signed product takes such bytes as they are");
  Ints c = vdupq_n_s32(0);
  for (int i = 0; i < COUNT; i++) c = vdotq_s32(c, vreinterpretq_s8_s32(w[i]), four(a + 4 * i));
  return c;
}
template <int COUNT> inline Ints dot_signed(const Ints* w, const int8_t* a) { return dot<COUNT, 127>(w, a); }

// --- what operations on single numbers and attention need

inline Floats subtract(Floats a, Floats b) { return vsubq_f32(a, b); }
inline Floats divide(Floats a, Floats b) { return vdivq_f32(a, b); }
// Of two numbers; the second where either is none.
inline Floats larger(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Floats smaller(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
inline Ints greater(Floats a, Floats b) { return vreinterpretq_s32_u32(vcgtq_f32(a, b)); }
inline float greatest(Floats a) { return vmaxvq_f32(a); }
inline Floats neighbours(Floats a) { return vrev64q_f32(a); }
inline void store16(void* p, Ints a) {
  vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_u16(vmovn_u32(vreinterpretq_u32_s32(a))));
}
inline void store8(void* p, Ints a) {
  const uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(a));
  const uint32_t low = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
  __builtin_memcpy(p, &low, 4);
}
inline void store_halves(void* p, Floats a) {
  vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(a)));
}
inline Floats as_halves(Floats a) { return vcvt_f32_f16(vcvt_f16_f32(a)); }
inline Floats totals(const Floats* a) { return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])); }
inline void transpose(Floats* a) {
  const float32x4x2_t low = vtrnq_f32(a[0], a[1]), high = vtrnq_f32(a[2], a[3]);
  a[0] = vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0]));
  a[1] = vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1]));
  a[2] = vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0]));
  a[3] = vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1]));
}

}  // namespace bestiary::ISA
