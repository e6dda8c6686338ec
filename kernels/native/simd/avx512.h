// Vectors of 16 numbers, for processors with AVX-512 (F, BW, VL, DQ) and VNNI.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace bestiary::ISA {

constexpr int LANES = 16;
using Ints = __m512i;
using Floats = __m512;

inline Ints load(const void* p) { return _mm512_loadu_si512(p); }
inline Ints ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints bytes(int8_t x) { return _mm512_set1_epi8(x); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints multiply(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
template <int N> inline Ints right(Ints a) { return _mm512_srli_epi32(a, N); }
template <int N> inline Ints left(Ints a) { return _mm512_slli_epi32(a, N); }
inline Ints greater(Ints a, Ints b) { return _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b)); }
inline Ints choose(Ints mask, Ints yes, Ints no) { return _mm512_mask_blend_epi32(_mm512_movepi32_mask(mask), no, yes); }

inline Floats floats(float x) { return _mm512_set1_ps(x); }
inline Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats numbers(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Floats bits(Ints a) { return _mm512_castsi512_ps(a); }
inline Ints bits(Floats a) { return _mm512_castps_si512(a); }
inline Floats halves(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
inline Ints words16(const void* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
inline Ints signed8(const void* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline Ints unsigned8(const void* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline Ints lookup(const int8_t* table, Ints index) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
}
inline float total(Floats a) { return _mm512_reduce_add_ps(a); }
// Written out: GCC takes a function that only calls _mm_prefetch for one without effect, and leaves some calls out.
inline void prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }
inline Ints four(const int8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

template <int COUNT, int LIMIT> inline Ints dot(const Ints* w, const int8_t* a) {
  Ints c = _mm512_setzero_si512(), d = c;  // two chains, for one waits for itself
  for (int i = 0; i < COUNT; i += 2) {
    c = _mm512_dpbusd_epi32(c, w[i], four(a + 4 * i));
    d = _mm512_dpbusd_epi32(d, w[i + 1], four(a + 4 * i + 4));
  }
  return _mm512_add_epi32(c, d);
}
template <int COUNT> inline Ints dot_signed(const Ints* w, const int8_t* a) {
  // The sum over w + 128 is unsigned; 128 times the sum over a is taken off again.
  const Ints top = _mm512_set1_epi8(static_cast<char>(0x80));
  Ints c = _mm512_setzero_si512(), d = c, taken = c;
  for (int i = 0; i < COUNT; i += 2) {
    const Ints x = four(a + 4 * i), y = four(a + 4 * i + 4);
    c = _mm512_dpbusd_epi32(c, _mm512_xor_si512(w[i], top), x);
    d = _mm512_dpbusd_epi32(d, _mm512_xor_si512(w[i + 1], top), y);
    taken = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(taken, top, x), top, y);
  }
  return _mm512_sub_epi32(_mm512_add_epi32(c, d), taken);
}

// --- what operations on single numbers and attention need

inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Ints greater(Floats a, Floats b) { return _mm512_movm_epi32(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)); }
inline float greatest(Floats a) { return _mm512_reduce_max_ps(a); }
inline Floats neighbours(Floats a) { return _mm512_permute_ps(a, 0xb1); }
inline void store16(void* p, Ints a) { _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a)); }
inline void store8(void* p, Ints a) { _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a)); }
inline void store_halves(void* p, Floats a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline Floats as_halves(Floats a) { return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
inline __m256 totals_of_eight(const Floats* a) {
  __m256 x[8];
  for (int i = 0; i < 8; i++) x[i] = _mm256_add_ps(_mm512_castps512_ps256(a[i]), _mm512_extractf32x8_ps(a[i], 1));
  const __m256 y = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  const __m256 z = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(y, z, 0x20), _mm256_permute2f128_ps(y, z, 0x31));
}
inline Floats totals(const Floats* a) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(totals_of_eight(a)), totals_of_eight(a + 8), 1);
}
inline void transpose(Floats* a) {
  float from[LANES * LANES], to[LANES * LANES];
  for (int i = 0; i < LANES; i++) store(from + i * LANES, a[i]);
  for (int i = 0; i < LANES; i++)
    for (int j = 0; j < LANES; j++) to[i * LANES + j] = from[j * LANES + i];
  for (int i = 0; i < LANES; i++) a[i] = load_floats(to + i * LANES);
}

}  // namespace bestiary::ISA
