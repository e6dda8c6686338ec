// Rows of plain numbers, as checkpoints have them, read as float32.
#pragma once
#include "arguments.h"
#include "vectors.h"

namespace bestiary::ISA {

enum PlainType : int32_t { FLOAT8 = 3 };  // E4M3, after the types of numbers.h

// The next LANES numbers of a row as float32.
struct RowFloat32 {
  static constexpr int BYTES = 4;
  static Floats get(const uint8_t* p, int64_t i) { return load_floats(reinterpret_cast<const float*>(p) + i); }
  static float one(const uint8_t* p, int64_t i) { return reinterpret_cast<const float*>(p)[i]; }
};
struct RowBrain16 {
  static constexpr int BYTES = 2;
  static Floats get(const uint8_t* p, int64_t i) { return bits(left<16>(words16(p + 2 * i))); }
  static float one(const uint8_t* p, int64_t i) { return brain_to_float(reinterpret_cast<const uint16_t*>(p)[i]); }
};
// The same two vectors at a time, the numbers at even places and those at odd ones, for which x lies so too: half of the
// work of widening them one vector at a time.
struct RowBrainPairs : RowBrain16 {
  static void get_two(const uint8_t* p, int64_t i, Floats* v) {
    const Ints w = load(p + 2 * i);
    v[0] = bits(left<16>(w));
    v[1] = bits(both(w, ints(static_cast<int32_t>(0xffff0000))));
  }
};
struct RowHalf16 {
  static constexpr int BYTES = 2;
  static Floats get(const uint8_t* p, int64_t i) { return halves(p + 2 * i); }
  static float one(const uint8_t* p, int64_t i) { return half_to_float(reinterpret_cast<const uint16_t*>(p)[i]); }
};
// Sign, 4 bits of exponent, 3 of mantissa: moved to their places in a float32 of 2^-120 times the value, subnormals too
// (OCP 8-bit floating point, E4M3: no infinities, and all ones is NaN).
struct RowFloat8 {
  static constexpr int BYTES = 1;
  static Floats get(const uint8_t* p, int64_t i) {
    const Ints x = unsigned8(p + i), rest = both(x, ints(0x7f));
    const Ints sign = left<24>(both(x, ints(0x80)));
    const Ints value = bits(multiply(bits(left<20>(rest)), floats(0x1p120f)));
    return bits(either(sign, choose(greater(rest, ints(0x7e)), ints(0x7fc00000), value)));
  }
  static float one(const uint8_t* p, int64_t i) {
    const uint32_t x = p[i], rest = x & 0x7f;
    const float value = rest > 0x7e ? from_bits(0x7fc00000) : from_bits(rest << 20) * 0x1p120f;
    return from_bits(to_bits(value) | (x & 0x80) << 24);
  }
};

// Vectors that a reader gives at once.
template <class W> constexpr int AT_ONCE = 1;
template <> constexpr int AT_ONCE<RowBrainPairs> = 2;
template <class W> inline void get_some(const uint8_t* p, int64_t i, Floats* v) {
  if constexpr (AT_ONCE<W> == 2)
    W::get_two(p, i, v);
  else
    v[0] = W::get(p, i);
}

template <class F> inline void with_rows(int64_t type, F&& f) {
  switch (type) {
    case F32: return f(RowFloat32{});
    case BF16: return f(RowBrain16{});
    case F16: return f(RowHalf16{});
    default: return f(RowFloat8{});
  }
}

inline int64_t row_bytes(int64_t type) { return type == F32 ? 4 : type == FLOAT8 ? 1 : 2; }

// Columns between two changes of scale.
inline int64_t run_of(const PlainWeight& w, int64_t columns) { return w.scales ? least(w.scale_columns, columns) : columns; }
inline float scale_of(const PlainWeight& w, int64_t row, int64_t column, int64_t columns) {
  return w.scales ? w.scales[row / w.scale_rows * parts(columns, w.scale_columns) + column / w.scale_columns] : 1.0f;
}

template <class W> inline const uint8_t* row_at(const PlainWeight& w, int64_t row) {
  return static_cast<const uint8_t*>(w.data) + row * w.stride * W::BYTES;
}

// A sum as it is written, with the bias of its row of W.
template <class T> inline typename T::Stored written(const PlainWeight& w, int64_t row, float v) {
  // Rounded before the bias is added, as where the two are operations of their own.
  if (w.bias) v = T::get(T::put(v)) + T::get(*at<T>(w.bias, row));
  return T::put(v);
}

}  // namespace bestiary::ISA
