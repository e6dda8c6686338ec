// Plain weights times one row of x, and times a few: W is read as it lies.
#pragma once
#include "inline.h"
#include "plain_input.h"
#include "plain_rows.h"

namespace bestiary::ISA {

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

template <class W> inline void one_row(const float* x, int64_t columns, const PlainWeight& w, int64_t y_type, int64_t row, int64_t last) {
  with_type(y_type, [&](auto type) {
    using T = decltype(type);
    for (; row < last; row++) *at<T>(w.y, row) = written<T>(w, row, dot<W>(w, x, columns, row));
  });
}

// --- a few rows of x: each row of W is multiplied with all of them, some columns at a time

constexpr int64_t NEAR = 6144;    // numbers of x that stay in the nearest cache
constexpr int64_t TOGETHER = 64;  // rows of W, of which sums are kept meanwhile

// sums [M] += scale * the products of columns `first` to `last`, of which whole steps are taken.
template <class W, int M>
inline void add_products(const uint8_t* p, const float* x, int64_t stride, int64_t first, int64_t last, int64_t ahead,
                         float scale, float* sums) {
  constexpr int VECTORS = AT_ONCE<W>, STEP = VECTORS * LANES;
  constexpr int SETS = M > 4 ? 1 : VECTORS;  // of few sums no addition waits for the one before
  Floats acc[SETS][M];
  for (auto& set : acc)
    for (Floats& sum : set) sum = floats(0);
  for (int64_t i = first; i + STEP <= last; i += STEP) {
    if (i * W::BYTES % 64 == 0) prefetch(p + i * W::BYTES + ahead);
    Floats of_w[VECTORS];
    get_some<W>(p, i, of_w);
    for (int j = 0; j < VECTORS; j++)
      for (int m = 0; m < M; m++)
        acc[j % SETS][m] = fused(of_w[j], load_floats(x + m * STEP + j * LANES), acc[j % SETS][m]);
    x += stride;
  }
  for (int m = 0; m < M; m++) {
    Floats sum = acc[0][m];
    for (int j = 1; j < SETS; j++) sum = add(sum, acc[j][m]);
    store(sums + m * LANES, fused(floats(scale), sum, load_floats(sums + m * LANES)));
  }
}

template <class W>
inline void add_rows_products(int64_t rows, const uint8_t* p, const float* x, int64_t stride, int64_t first, int64_t last,
                              int64_t ahead, float scale, float* sums) {
  switch (rows) {
    case 2: return add_products<W, 2>(p, x, stride, first, last, ahead, scale, sums);
    case 3: return add_products<W, 3>(p, x, stride, first, last, ahead, scale, sums);
    case 4: return add_products<W, 4>(p, x, stride, first, last, ahead, scale, sums);
    case 5: return add_products<W, 5>(p, x, stride, first, last, ahead, scale, sums);
    case 6: return add_products<W, 6>(p, x, stride, first, last, ahead, scale, sums);
    case 7: return add_products<W, 7>(p, x, stride, first, last, ahead, scale, sums);
    case 8: return add_products<W, 8>(p, x, stride, first, last, ahead, scale, sums);
    default:
      add_products<W, 6>(p, x, stride, first, last, ahead, scale, sums);
      add_rows_products<W>(rows - 6, p, x + 6 * AT_ONCE<W> * LANES, stride, first, last, ahead, scale, sums + 6 * LANES);
  }
}

// The same of less than a step, one by one; sums [rows].
template <class W>
inline void add_single_products(const Input& x, const uint8_t* p, int64_t first, int64_t last, float scale, float* sums) {
  for (int64_t i = first; i < last; i++)
    for (int64_t m = 0; m < x.rows; m++) sums[m] += scale * W::one(p, i) * *x.at(m, i);
}

// Rows `row` to `last` of W, of which there are up to TOGETHER.
template <class W> inline void few_rows(const Input& x, const PlainWeight& w, int64_t y_type, int64_t row, int64_t last) {
  alignas(64) float sums[TOGETHER * FEW * LANES];
  const int64_t columns = x.columns, rows = x.rows, step = AT_ONCE<W> * LANES;
  for (int64_t i = 0; i < (last - row) * rows * LANES; i++) sums[i] = 0;
  float rest[TOGETHER * FEW] = {};
  const int64_t cuts = most(1, parts(rows * columns, NEAR)), run = run_of(w, columns);
  const int64_t deep = least(run, parts(parts(columns, cuts), 64) * 64);
  // Where a row is cut, the next piece of memory is a row further: two where a row is done before memory answers.
  const int64_t ahead = deep == columns ? ROW_AHEAD : (rows > 4 ? 1 : 2) * w.stride * W::BYTES;
  for (int64_t start = 0; start < columns; start += run)
    for (int64_t first = start; first < least(columns, start + run); first += deep) {
      const int64_t end = least(least(columns, start + run), first + deep);
      // Runs of one scale may begin and end within a step.
      const int64_t from = least(end, parts(first, step) * step), to = most(from, end / step * step);
      for (int64_t r = row; r < last; r++) {
        const uint8_t* p = row_at<W>(w, r);
        const float scale = scale_of(w, r, first, columns);
        float *sum = sums + (r - row) * rows * LANES, *single = rest + (r - row) * rows;
        add_single_products<W>(x, p, first, from, scale, single);
        add_rows_products<W>(rows, p, x.values + from * rows, rows * step, from, to, ahead, scale, sum);
        add_single_products<W>(x, p, to, end, scale, single);
      }
    }
  with_type(y_type, [&](auto type) {
    using T = decltype(type);
    for (int64_t r = row; r < last; r++)
      for (int64_t m = 0; m < rows; m++) {
        const int64_t i = (r - row) * rows + m;
        *at<T>(w.y, m * w.y_stride + r) = written<T>(w, r, total(load_floats(sums + i * LANES)) + rest[i]);
      }
  });
}

}  // namespace bestiary::ISA
