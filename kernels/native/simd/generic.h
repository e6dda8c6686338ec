// Vectors of 16 numbers in plain C++: for any processor, and to test what all instruction sets share.
#pragma once
#include <cstdint>
#include <cstring>

#include "../numbers.h"

namespace bestiary::ISA {

constexpr int LANES = 16;
struct Ints {
  int32_t at[LANES];
};
struct Floats {
  float at[LANES];
};

template <class R, class F> inline R each(F f) {
  R r;
  for (int i = 0; i < LANES; i++) r.at[i] = f(i);
  return r;
}
inline uint32_t u(int32_t x) { return static_cast<uint32_t>(x); }
inline int32_t s(uint32_t x) { return static_cast<int32_t>(x); }
inline int8_t byte(int32_t x, int i) { return static_cast<int8_t>(u(x) >> (8 * i)); }

inline Ints load(const void* p) {
  Ints r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
inline Ints ints(int32_t x) { return each<Ints>([&](int) { return x; }); }
inline Ints bytes(int8_t x) { return ints(s(u(x & 0xff) * 0x01010101u)); }
inline Ints both(Ints a, Ints b) { return each<Ints>([&](int i) { return a.at[i] & b.at[i]; }); }
inline Ints either(Ints a, Ints b) { return each<Ints>([&](int i) { return a.at[i] | b.at[i]; }); }
inline Ints add(Ints a, Ints b) { return each<Ints>([&](int i) { return s(u(a.at[i]) + u(b.at[i])); }); }
inline Ints subtract(Ints a, Ints b) { return each<Ints>([&](int i) { return s(u(a.at[i]) - u(b.at[i])); }); }
inline Ints multiply(Ints a, Ints b) { return each<Ints>([&](int i) { return s(u(a.at[i]) * u(b.at[i])); }); }
template <int N> inline Ints right(Ints a) { return each<Ints>([&](int i) { return s(u(a.at[i]) >> N); }); }
template <int N> inline Ints left(Ints a) { return each<Ints>([&](int i) { return s(u(a.at[i]) << N); }); }
inline Ints greater(Ints a, Ints b) { return each<Ints>([&](int i) { return a.at[i] > b.at[i] ? -1 : 0; }); }
inline Ints choose(Ints mask, Ints yes, Ints no) {
  return each<Ints>([&](int i) { return mask.at[i] ? yes.at[i] : no.at[i]; });
}

inline Floats floats(float x) { return each<Floats>([&](int) { return x; }); }
inline Floats load_floats(const float* p) {
  Floats r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
inline void store(float* p, Floats x) { std::memcpy(p, &x, sizeof x); }
inline Floats add(Floats a, Floats b) { return each<Floats>([&](int i) { return a.at[i] + b.at[i]; }); }
inline Floats multiply(Floats a, Floats b) { return each<Floats>([&](int i) { return a.at[i] * b.at[i]; }); }
inline Floats fused(Floats a, Floats b, Floats c) { return each<Floats>([&](int i) { return a.at[i] * b.at[i] + c.at[i]; }); }
inline Floats numbers(Ints a) { return each<Floats>([&](int i) { return static_cast<float>(a.at[i]); }); }
inline Floats bits(Ints a) {
  Floats r;
  std::memcpy(&r, &a, sizeof r);
  return r;
}
inline Ints bits(Floats a) {
  Ints r;
  std::memcpy(&r, &a, sizeof r);
  return r;
}
template <class T> inline T element(const void* p, int i) {
  T x;
  std::memcpy(&x, static_cast<const char*>(p) + i * sizeof(T), sizeof x);
  return x;
}
inline Floats halves(const void* p) { return each<Floats>([&](int i) { return half_to_float(element<uint16_t>(p, i)); }); }
inline Ints words16(const void* p) { return each<Ints>([&](int i) { return element<uint16_t>(p, i); }); }
inline Ints signed8(const void* p) { return each<Ints>([&](int i) { return element<int8_t>(p, i); }); }
inline Ints unsigned8(const void* p) { return each<Ints>([&](int i) { return element<uint8_t>(p, i); }); }
inline Ints lookup(const int8_t* table, Ints index) {
  return each<Ints>([&](int i) {
    uint32_t r = 0;
    for (int j = 0; j < 4; j++) r |= u(table[byte(index.at[i], j) & 15] & 0xff) << (8 * j);
    return s(r);
  });
}
inline float total(Floats a) {
  float sum = 0;
  for (float x : a.at) sum += x;
  return sum;
}
inline void prefetch(const void*) {}
inline Ints four(const int8_t* a) { return ints(element<int32_t>(a, 0)); }

template <int COUNT, int LIMIT> inline Ints dot(const Ints* w, const int8_t* a) {
  Ints c{};
  for (int i = 0; i < COUNT; i++)
    for (int lane = 0; lane < LANES; lane++)
      for (int j = 0; j < 4; j++) c.at[lane] += (byte(w[i].at[lane], j) & 0xff) * a[4 * i + j];
  return c;
}
template <int COUNT> inline Ints dot_signed(const Ints* w, const int8_t* a) {
  Ints c{};
  for (int i = 0; i < COUNT; i++)
    for (int lane = 0; lane < LANES; lane++)
      for (int j = 0; j < 4; j++) c.at[lane] += byte(w[i].at[lane], j) * a[4 * i + j];
  return c;
}

// --- what operations on single numbers and attention need

inline Floats subtract(Floats a, Floats b) { return each<Floats>([&](int i) { return a.at[i] - b.at[i]; }); }
inline Floats divide(Floats a, Floats b) { return each<Floats>([&](int i) { return a.at[i] / b.at[i]; }); }
inline Floats larger(Floats a, Floats b) {
  return each<Floats>([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
}
inline Floats smaller(Floats a, Floats b) {
  return each<Floats>([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; });
}
inline Ints greater(Floats a, Floats b) { return each<Ints>([&](int i) { return a.at[i] > b.at[i] ? -1 : 0; }); }
inline float greatest(Floats a) {
  float most = a.at[0];
  for (float x : a.at) most = x > most ? x : most;
  return most;
}
inline Floats neighbours(Floats a) { return each<Floats>([&](int i) { return a.at[i ^ 1]; }); }
inline void store16(void* p, Ints a) {
  uint16_t words[LANES];
  for (int i = 0; i < LANES; i++) words[i] = static_cast<uint16_t>(a.at[i]);
  std::memcpy(p, words, sizeof words);
}
inline void store8(void* p, Ints a) {
  uint8_t low[LANES];
  for (int i = 0; i < LANES; i++) low[i] = static_cast<uint8_t>(a.at[i]);
  std::memcpy(p, low, sizeof low);
}
inline void store_halves(void* p, Floats a) {
  store16(p, each<Ints>([&](int i) { return float_to_half(a.at[i]); }));
}
inline Floats as_halves(Floats a) { return each<Floats>([&](int i) { return half_to_float(float_to_half(a.at[i])); }); }
inline Floats totals(const Floats* a) { return each<Floats>([&](int i) { return total(a[i]); }); }
inline void transpose(Floats* a) {
  for (int i = 0; i < LANES; i++)
    for (int j = 0; j < i; j++) {
      const float x = a[i].at[j];
      a[i].at[j] = a[j].at[i];
      a[j].at[i] = x;
    }
}

}  // namespace bestiary::ISA
