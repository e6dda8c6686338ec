// Plain numbers LANES at a time, as float32.
#pragma once
#include "plain.h"

namespace bestiary::ISA {

template <class T> inline Floats take(const typename T::Stored* p);
template <> inline Floats take<Float32>(const float* p) { return load_floats(p); }
template <> inline Floats take<Brain16>(const uint16_t* p) { return bits(left<16>(words16(p))); }
template <> inline Floats take<Half16>(const uint16_t* p) { return halves(p); }

// The upper half of each lane's bits, rounded to the nearest, ties to even.
inline Ints brain_bits(Floats x) {
  const Ints b = bits(x), high = right<16>(b);
  const Ints rounded = right<16>(add(b, add(ints(0x7fff), both(high, ints(1)))));
  return choose(greater(both(b, ints(0x7fffffff)), ints(0x7f800000)), either(high, ints(0x40)), rounded);
}

template <class T> inline void put(typename T::Stored* p, Floats x);
template <> inline void put<Float32>(float* p, Floats x) { store(p, x); }
template <> inline void put<Brain16>(uint16_t* p, Floats x) { store16(p, brain_bits(x)); }
template <> inline void put<Half16>(uint16_t* p, Floats x) { store_halves(p, x); }

// As it is after it was written and read again.
template <class T> inline Floats rounded(Floats x);
template <> inline Floats rounded<Float32>(Floats x) { return x; }
template <> inline Floats rounded<Brain16>(Floats x) { return bits(left<16>(brain_bits(x))); }
template <> inline Floats rounded<Half16>(Floats x) { return as_halves(x); }

// The same where only so many are there; those that are not read as zeros.
template <class T> inline Floats take(const typename T::Stored* p, int64_t there) {
  if (there >= LANES) return take<T>(p);
  typename T::Stored some[LANES] = {};
  for (int64_t i = 0; i < there; i++) some[i] = p[i];
  return take<T>(some);
}
template <class T> inline void put(typename T::Stored* p, int64_t there, Floats x) {
  if (there >= LANES) return put<T>(p, x);
  typename T::Stored some[LANES];
  put<T>(some, x);
  for (int64_t i = 0; i < there; i++) p[i] = some[i];
}

// The vectors of a row: whole ones, and at its end one of which only some numbers are there.  The two are told apart by
// their types, so that nothing is asked for each vector.
struct Whole {};
struct Some {
  int64_t count;
};
template <class F> inline void each_vector(int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) f(i, Whole{});
  if (i < count) f(i, Some{count - i});
}
template <class T> inline Floats take(const typename T::Stored* p, Whole) { return take<T>(p); }
template <class T> inline Floats take(const typename T::Stored* p, Some some) { return take<T>(p, some.count); }
template <class T> inline void put(typename T::Stored* p, Whole, Floats x) { put<T>(p, x); }
template <class T> inline void put(typename T::Stored* p, Some some, Floats x) { put<T>(p, some.count, x); }

}  // namespace bestiary::ISA
