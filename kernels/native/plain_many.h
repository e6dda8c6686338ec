// Plain weights times many rows of x: 16 rows of W become float32 columns, which all rows of x pass over.
#pragma once
#include "plain_input.h"
#include "plain_rows.h"

namespace bestiary::ISA {

constexpr int64_t DEEP = 256;     // columns at a time
constexpr int64_t SIDE = 16;      // rows of W
constexpr int64_t TALL = 6;       // rows of x in registers
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

template <class W> inline void many_rows(const Input& x, const PlainWeight& w, int64_t y_type, int64_t row) {
  alignas(64) float panel[DEEP * SIDE];
  alignas(64) float sums[ROWS_AT_ONCE * SIDE];
  for (int64_t top = 0; top < x.rows; top += ROWS_AT_ONCE) {
    const int64_t count = least(ROWS_AT_ONCE, x.rows - top);
    for (int64_t i = 0; i < count * SIDE; i++) sums[i] = 0;
    for (int64_t first = 0; first < x.columns; first += DEEP) {
      const int64_t deep = least(DEEP, x.columns - first);
      widen<W>(w, row, first, deep, x.columns, panel);
      const float* from = x.values + top * x.columns + first;
      int64_t m = 0;
      for (; m + TALL <= count; m += TALL) block<TALL>(from + m * x.columns, x.columns, panel, deep, sums + m * SIDE);
      for (; m + 4 <= count; m += 4) block<4>(from + m * x.columns, x.columns, panel, deep, sums + m * SIDE);
      for (; m + 2 <= count; m += 2) block<2>(from + m * x.columns, x.columns, panel, deep, sums + m * SIDE);
      if (m < count) block<1>(from + m * x.columns, x.columns, panel, deep, sums + m * SIDE);
    }
    const int64_t there = least(SIDE, w.rows - row);
    with_type(y_type, [&](auto type) {
      using T = decltype(type);
      for (int64_t m = 0; m < count; m++)
        for (int64_t r = 0; r < there; r++)
          *at<T>(w.y, (top + m) * w.y_stride + row + r) = written<T>(w, row + r, sums[m * SIDE + r]);
    });
  }
}

}  // namespace bestiary::ISA
