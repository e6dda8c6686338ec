// Vectors of 8 numbers, for processors with AVX2, FMA and F16C.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace bestiary::ISA {

constexpr int LANES = 8;
using Ints = __m256i;
using Floats = __m256;

inline Ints load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Ints ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints bytes(int8_t x) { return _mm256_set1_epi8(x); }
inline Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints subtract(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints multiply(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
template <int N> inline Ints right(Ints a) { return _mm256_srli_epi32(a, N); }
template <int N> inline Ints left(Ints a) { return _mm256_slli_epi32(a, N); }
inline Ints greater(Ints a, Ints b) { return _mm256_cmpgt_epi32(a, b); }
inline Ints choose(Ints mask, Ints yes, Ints no) { return _mm256_blendv_epi8(no, yes, mask); }

inline Floats floats(float x) { return _mm256_set1_ps(x); }
inline Floats load_floats(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }  // a b + c
inline Floats numbers(Ints a) { return _mm256_cvtepi32_ps(a); }
inline Floats bits(Ints a) { return _mm256_castsi256_ps(a); }
inline Ints bits(Floats a) { return _mm256_castps_si256(a); }
// The next LANES numbers of narrower types.
inline Floats halves(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline Ints words16(const void* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline Ints signed8(const void* p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))); }
inline Ints unsigned8(const void* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))); }
// table[each byte of `index`], 0 to 15.
inline Ints lookup(const int8_t* table, Ints index) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
}
inline float total(Floats a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
// Written out: GCC takes a function that only calls _mm_prefetch for one without effect, and leaves some calls out.
inline void prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }
inline Ints four(const int8_t* a) {  // the same four bytes in every lane
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm256_set1_epi32(word);
}

// Word I of 16 bytes that are in both halves, in every lane.
template <int I> inline Ints word_of(Ints a) { return _mm256_shuffle_epi32(a, I * 0x55); }
inline Ints sixteen(const int8_t* a) {  // the same 16 bytes in both halves
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
}
// COUNT words of a, each in every lane.  Half of them are shuffled out of one load: as many loads as products would wait
// for each other.
template <int COUNT> inline void words_of(const int8_t* a, Ints* words) {
  const Ints some = sixteen(a);
  words[0] = word_of<0>(some);
  words[1] = word_of<1>(some);
  if (COUNT == 8) {
    words[2] = word_of<2>(some);
    words[3] = word_of<3>(some);
  }
  for (int i = COUNT / 2; i < COUNT; i++) words[i] = four(a + 4 * i);
}

// The sum over COUNT words of w (unsigned bytes, at most LIMIT) times a (signed bytes), lane by lane.
//
// A product of two pairs is at most 2 * 127 * LIMIT, so that sums of several still fit 16 bits.
template <int COUNT, int LIMIT> inline Ints dot(const Ints* w, const int8_t* a) {
  constexpr int FIT = 32767 / (2 * 127 * LIMIT);
  constexpr int CHAIN = FIT >= COUNT ? COUNT : FIT >= 4 ? 4 : FIT >= 2 ? 2 : 1;
  const Ints ones = _mm256_set1_epi16(1);
  Ints c{}, words[COUNT];
  words_of<COUNT>(a, words);
  for (int i = 0; i < COUNT; i += CHAIN) {
    Ints sum = _mm256_maddubs_epi16(w[i], words[i]);
    for (int j = 1; j < CHAIN; j++) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[i + j], words[i + j]));
    const Ints part = _mm256_madd_epi16(sum, ones);
    c = i == 0 ? part : _mm256_add_epi32(c, part);
  }
  return c;
}
// The same for signed bytes on both sides, of which a is never -128.
template <int COUNT> inline Ints dot_signed(const Ints* w, const int8_t* a) {
  const Ints ones = _mm256_set1_epi16(1);
  Ints c{}, words[COUNT];
  words_of<COUNT>(a, words);
  for (int i = 0; i < COUNT; i++) {
    const Ints p = _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(words[i], w[i]));
    const Ints part = _mm256_madd_epi16(p, ones);
    c = i == 0 ? part : _mm256_add_epi32(c, part);
  }
  return c;
}

// --- what operations on single numbers and attention need

inline Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
// Of two numbers; the second where either is none.
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Ints greater(Floats a, Floats b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
inline float greatest(Floats a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
// Lanes 2i and 2i + 1 change places.
inline Floats neighbours(Floats a) { return _mm256_permute_ps(a, 0xb1); }
// The low 16 or 8 bits of every lane, beside each other.
inline void store16(void* p, Ints a) {
  const __m256i x = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storeu_si128(static_cast<__m128i*>(p), words);
}
inline void store8(void* p, Ints a) {
  const __m256i x = _mm256_and_si256(a, _mm256_set1_epi32(0xff));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
inline void store_halves(void* p, Floats a) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline Floats as_halves(Floats a) { return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
// Lane i is the total of a[i].
inline Floats totals(const Floats* a) {
  const __m256 x = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m256 y = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
}
// Lane i of a[j] and lane j of a[i] change places.
inline void transpose(Floats* a) {
  Floats pairs[8], fours[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) {
    a[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    a[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

}  // namespace bestiary::ISA
