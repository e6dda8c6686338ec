// y = x W' for W of plain numbers, row by row as checkpoints have them; sums are float32.
#pragma once
#include "arguments.h"
#include "plain.h"

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

// --- one row of x: W is read as it lies

constexpr int64_t ROW_AHEAD = 1024;  // bytes that are asked for before they are used

template <class W> inline float dot(const PlainWeight& w, const float* x, int64_t columns, int64_t row) {
  // So many sums that no addition waits for the one before.
  constexpr int SUMS = 8, VECTORS = AT_ONCE<W>;
  constexpr int64_t STEP = SUMS * LANES;
  const uint8_t* p = row_at<W>(w, row);
  float out = 0;
  const int64_t run = run_of(w, columns);
  for (int64_t start = 0; start < columns; start += run) {
    const int64_t end = least(columns, start + run);
    Floats sums[SUMS];
    for (Floats& sum : sums) sum = floats(0);
    int64_t i = start;
    for (; i + STEP <= end; i += STEP) {
      for (int64_t b = 0; b < STEP * W::BYTES; b += 64) prefetch(p + i * W::BYTES + ROW_AHEAD + b);
      for (int s = 0; s < SUMS; s += VECTORS) {
        Floats of_w[VECTORS];
        get_some<W>(p, i + s * LANES, of_w);
        for (int j = 0; j < VECTORS; j++) sums[s + j] = fused(of_w[j], load_floats(x + i + (s + j) * LANES), sums[s + j]);
      }
    }
    for (; i + VECTORS * LANES <= end; i += VECTORS * LANES) {
      Floats of_w[VECTORS];
      get_some<W>(p, i, of_w);
      for (int j = 0; j < VECTORS; j++) sums[j] = fused(of_w[j], load_floats(x + i + j * LANES), sums[j]);
    }
    Floats all = floats(0);
    for (const Floats& sum : sums) all = add(all, sum);
    float sum = total(all);
    for (; i < end; i++) sum += W::one(p, i) * x[i];
    out += sum * scale_of(w, row, start, columns);
  }
  return out;
}

// --- a few rows of x: each row of W is read once from memory, and summed with R others against M of x at a time

// Of the R rows after these each turn asks for its share: they are too many at once, and each too short, for the
// processor to guess what comes.
struct Turn {
  int64_t number, of;
};

template <class W, int R, int M>
inline void dots(const PlainWeight& w, const float* x, int64_t columns, int64_t row, Turn turn, float out[R][M]) {
  constexpr int VECTORS = AT_ONCE<W>, STEP = VECTORS * LANES;
  const uint8_t* p[R];
  for (int r = 0; r < R; r++) p[r] = row_at<W>(w, row + r);
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) out[r][m] = 0;
  const int64_t run = run_of(w, columns);
  int64_t asked = turn.number * 64;
  for (int64_t start = 0; start < columns; start += run) {
    const int64_t end = least(columns, start + run), whole = start + (end - start) / STEP * STEP;
    Floats sums[R][M];
    for (auto& of_row : sums)
      for (Floats& sum : of_row) sum = floats(0);
    for (int64_t i = start; i < whole; i += STEP) {
      if (i * W::BYTES >= asked) {
        for (int r = 0; r < R; r++) prefetch(p[r] + R * w.stride * W::BYTES + asked);
        asked += turn.of * 64;
      }
      Floats of_x[M][VECTORS], of_w[VECTORS];
      for (int m = 0; m < M; m++)
        for (int j = 0; j < VECTORS; j++) of_x[m][j] = load_floats(x + m * columns + i + j * LANES);
      for (int r = 0; r < R; r++) {
        get_some<W>(p[r], i, of_w);
        for (int m = 0; m < M; m++)
          for (int j = 0; j < VECTORS; j++) sums[r][m] = fused(of_w[j], of_x[m][j], sums[r][m]);
      }
    }
    for (int r = 0; r < R; r++) {
      const float scale = scale_of(w, row + r, start, columns);
      for (int m = 0; m < M; m++) {
        float sum = total(sums[r][m]);
        for (int64_t i = whole; i < end; i++) sum += W::one(p[r], i) * x[m * columns + i];
        out[r][m] += sum * scale;
      }
    }
  }
}

template <int R, int M>
inline void put_dots(const PlainWeight& w, int64_t y_type, int64_t row, int64_t m, const float (&out)[R][M]) {
  with_type(y_type, [&](auto type) {
    using T = decltype(type);
    for (int r = 0; r < R; r++)
      for (int i = 0; i < M; i++) {
        float v = out[r][i];
        if (w.bias) v = T::get(T::put(v)) + T::get(*at<T>(w.bias, row + r));
        *at<T>(w.y, (m + i) * w.y_stride + row + r) = T::put(v);
      }
  });
}

template <class W, int R, int M>
inline void some_rows(const PlainLinearArguments& a, const PlainWeight& w, int64_t row, Turn turn) {
  float out[R][M];
  const int64_t m = turn.number * 2;
  dots<W, R, M>(w, a.scratch + m * a.columns, a.columns, row, turn, out);
  put_dots<R, M>(w, a.y_type, row, m, out);
}

template <class W, int R> inline void few_rows(const PlainLinearArguments& a, const PlainWeight& w, int64_t row) {
  if (a.rows == 1) {
    float out[R][1];
    for (int r = 0; r < R; r++) out[r][0] = dot<W>(w, a.scratch, a.columns, row + r);
    return put_dots<R, 1>(w, a.y_type, row, 0, out);
  }
  const int64_t turns = parts(a.rows, 2);
  int64_t turn = 0;
  for (; turn < a.rows / 2; turn++) some_rows<W, R, 2>(a, w, row, {turn, turns});
  if (turn < turns) some_rows<W, R, 1>(a, w, row, {turn, turns});
}

// --- many rows of x: 16 rows of W become float32 columns, which all rows of x pass over

constexpr int64_t DEEP = 256;     // columns at a time
constexpr int64_t SIDE = 16;      // rows of W
constexpr int64_t TALL = 6;       // rows of x in registers
constexpr int64_t FEW = 12;       // rows of x up to which the other way is better
constexpr int64_t ROWS_AT_ONCE = 96;

template <class W> inline void widen(const PlainWeight& w, int64_t row, int64_t first, int64_t deep, int64_t columns, float* out) {
  const int64_t there = least(SIDE, w.rows - row), whole = deep / LANES * LANES;
  int64_t r = 0;
  for (; r + LANES <= there; r += LANES) {
    for (int64_t i = 0; i < whole; i += LANES) {
      Floats square[LANES];
      for (int j = 0; j < LANES; j++) square[j] = W::get(row_at<W>(w, row + r + j), first + i);
      transpose(square);
      for (int j = 0; j < LANES; j++) store(out + (i + j) * SIDE + r, square[j]);
    }
    for (int j = 0; j < LANES; j++)
      for (int64_t i = whole; i < deep; i++) out[i * SIDE + r + j] = W::one(row_at<W>(w, row + r + j), first + i);
  }
  for (; r < SIDE; r++)
    for (int64_t i = 0; i < deep; i++) out[i * SIDE + r] = r < there ? W::one(row_at<W>(w, row + r), first + i) : 0;
  if (w.scales)
    for (r = 0; r < there; r++)
      for (int64_t i = 0; i < deep; i++) out[i * SIDE + r] *= scale_of(w, row + r, first + i, columns);
}

template <int M> inline void block(const float* x, int64_t stride, const float* w, int64_t deep, float* sums) {
  constexpr int WIDE = static_cast<int>(SIDE) / LANES;
  Floats acc[M][WIDE];
  for (int m = 0; m < M; m++)
    for (int j = 0; j < WIDE; j++) acc[m][j] = load_floats(sums + m * SIDE + j * LANES);
  for (int64_t i = 0; i < deep; i++) {
    Floats column[WIDE];
    for (int j = 0; j < WIDE; j++) column[j] = load_floats(w + i * SIDE + j * LANES);
    for (int m = 0; m < M; m++) {
      const Floats v = floats(x[m * stride + i]);
      for (int j = 0; j < WIDE; j++) acc[m][j] = fused(v, column[j], acc[m][j]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int j = 0; j < WIDE; j++) store(sums + m * SIDE + j * LANES, acc[m][j]);
}

template <class W> inline void many_rows(const PlainLinearArguments& a, const PlainWeight& w, int64_t row) {
  alignas(64) float panel[DEEP * SIDE];
  alignas(64) float sums[ROWS_AT_ONCE * SIDE];
  for (int64_t top = 0; top < a.rows; top += ROWS_AT_ONCE) {
    const int64_t count = least(ROWS_AT_ONCE, a.rows - top);
    for (int64_t i = 0; i < count * SIDE; i++) sums[i] = 0;
    for (int64_t first = 0; first < a.columns; first += DEEP) {
      const int64_t deep = least(DEEP, a.columns - first);
      widen<W>(w, row, first, deep, a.columns, panel);
      const float* x = a.scratch + top * a.columns + first;
      int64_t m = 0;
      for (; m + TALL <= count; m += TALL) block<TALL>(x + m * a.columns, a.columns, panel, deep, sums + m * SIDE);
      for (; m + 4 <= count; m += 4) block<4>(x + m * a.columns, a.columns, panel, deep, sums + m * SIDE);
      for (; m + 2 <= count; m += 2) block<2>(x + m * a.columns, a.columns, panel, deep, sums + m * SIDE);
      if (m < count) block<1>(x + m * a.columns, a.columns, panel, deep, sums + m * SIDE);
    }
    const int64_t there = least(SIDE, w.rows - row);
    with_type(a.y_type, [&](auto type) {
      using T = decltype(type);
      for (int64_t m = 0; m < count; m++)
        for (int64_t r = 0; r < there; r++) {
          float v = sums[m * SIDE + r];
          if (w.bias) v = T::get(T::put(v)) + T::get(*at<T>(w.bias, row + r));
          *at<T>(w.y, (top + m) * w.y_stride + row + r) = T::put(v);
        }
    });
  }
}

// --- the steps

inline int64_t widen_pieces(const void* arguments) { return static_cast<const PlainLinearArguments*>(arguments)->rows; }

// Whether x lies as RowBrainPairs needs it.
inline bool in_pairs(const PlainLinearArguments& a) {
  if (a.rows > FEW) return false;
  for (int64_t i = 0; i < a.count; i++)
    if (a.weights[i].type != BF16) return false;
  return true;
}

inline void widen_row(const void* arguments, int64_t row) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  with_type(a.x_type, [&](auto type) {
    using T = decltype(type);
    const auto* x = at<T>(a.x, row * a.x_stride);
    float* out = a.scratch + row * a.columns;
    int64_t i = 0;
    if (in_pairs(a))
      for (; i + 2 * LANES <= a.columns; i += 2 * LANES)
        for (int j = 0; j < 2 * LANES; j++) out[i + j % 2 * LANES + j / 2] = T::get(x[i + j]);
    for (; i < a.columns; i++) out[i] = T::get(x[i]);
  });
}

inline int64_t plain_piece_rows(const PlainLinearArguments& a, const PlainWeight& w) {
  if (a.rows > FEW) return SIDE;
  // Long pieces: memory is read fastest where nothing is jumped over.
  const int64_t bytes = most(1, a.columns * row_bytes(w.type));
  return most(4, least(262144 / bytes, parts(w.rows, 8)) / 4 * 4);
}

template <class W> inline void multiply_rows(const PlainLinearArguments& a, const PlainWeight& w, int64_t row, int64_t last) {
  if (a.rows > FEW) return many_rows<W>(a, w, row);
  for (; row + 4 <= last; row += 4) few_rows<W, 4>(a, w, row);
  for (; row < last; row++) few_rows<W, 1>(a, w, row);
}

// Rows `row` to `last` of one weight, which are a piece, times all rows of a; `pairs` says how these lie.
inline void multiply_plain_some(const PlainLinearArguments& a, const PlainWeight& w, int64_t row, int64_t last, bool pairs) {
  if (pairs) return multiply_rows<RowBrainPairs>(a, w, row, last);
  with_rows(w.type, [&](auto type) { multiply_rows<decltype(type)>(a, w, row, last); });
}

inline int64_t plain_pieces(const void* arguments) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  int64_t pieces = 0;
  for (int64_t i = 0; i < a.count; i++) pieces += parts(a.weights[i].rows, plain_piece_rows(a, a.weights[i]));
  return pieces;
}

inline void multiply_plain(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  int64_t i = 0;
  for (;; i++) {
    const int64_t pieces = parts(a.weights[i].rows, plain_piece_rows(a, a.weights[i]));
    if (piece < pieces) break;
    piece -= pieces;
  }
  const PlainWeight& w = a.weights[i];
  const int64_t each = plain_piece_rows(a, w);
  multiply_plain_some(a, w, piece * each, least(w.rows, (piece + 1) * each), in_pairs(a));
}

}  // namespace bestiary::ISA
