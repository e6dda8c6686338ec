// One pass of resizing: rows or columns of a picture weighted and added, in whole numbers as Pillow does it.
//
// A product of a byte and a weight, and their sums, fit 32 bits; the order in which they are added makes no difference.
#pragma once
#include "functions.h"
#include "inline.h"
#include "resize_weights.h"

namespace bestiary::ISA {

constexpr int PIXEL = 4;  // bytes

// --- sums of vectors of bytes

// Half a unit, for rounding, and 2^31, so that no sum is negative when it is shifted.
inline Ints begun() { return ints(INT32_MIN + (1 << (FRACTION - 1))); }

template <int WIDE>
ALWAYS_INLINE void add_weighted(Ints (&sums)[WIDE], const uint8_t* x, int64_t stride, const int32_t* weights, int64_t count) {
  for (int64_t i = 0; i < count; i++, x += stride) {
    const Ints weight = ints(weights[i]);
    for (int j = 0; j < WIDE; j++) sums[j] = add(sums[j], multiply(unsigned8(x + j * LANES), weight));
  }
}

constexpr int32_t COLOURS[16] = {-1, -1, -1, 0, -1, -1, -1, 0, -1, -1, -1, 0, -1, -1, -1, 0};

template <int WIDE> ALWAYS_INLINE void put_clipped(uint8_t* y, const Ints (&sums)[WIDE]) {
  static_assert(LANES <= 16);
  const Ints colours = load(COLOURS);
  for (int j = 0; j < WIDE; j++) {
    const Ints v = subtract(right<FRACTION>(sums[j]), ints(1 << (31 - FRACTION)));
    const Ints positive = both(v, greater(v, ints(0)));
    store8(y + j * LANES, both(choose(greater(positive, ints(255)), ints(255), positive), colours));
  }
}

// --- rows from rows

constexpr int LINE_OF_VECTORS = 64 / LANES;  // a line of the cache is read once
constexpr int64_t ROWS_A_PASS = 8;           // rows that make a piece

template <int WIDE> inline void weigh_rows(const uint8_t* x, int64_t stride, const Span& span, uint8_t* y) {
  Ints sums[WIDE];
  for (Ints& sum : sums) sum = begun();
  add_weighted(sums, x, stride, span.weights, span.count);
  put_clipped(y, sums);
}

inline void resize_down(const ResizeArguments& a, int64_t row) {
  const Span span = span_of(a, row);
  const uint8_t* x = a.x + span.first * a.x_stride;
  uint8_t* y = a.y + row * a.y_stride;
  const int64_t bytes = a.columns * PIXEL;
  int64_t i = 0;
  for (; i + LINE_OF_VECTORS * LANES <= bytes; i += LINE_OF_VECTORS * LANES)
    weigh_rows<LINE_OF_VECTORS>(x + i, a.x_stride, span, y + i);
  for (; i + LANES <= bytes; i += LANES) weigh_rows<1>(x + i, a.x_stride, span, y + i);
  for (; i < bytes; i++) {
    int32_t sum = 1 << (FRACTION - 1);
    for (int64_t j = 0; j < span.count; j++) sum += x[j * a.x_stride + i] * span.weights[j];
    y[i] = i % PIXEL == 3 ? 0 : static_cast<uint8_t>(least(255, most(0, sum >> FRACTION)));
  }
}

// --- columns from columns: of LANES rows at once, whose pixels of one column lie beside each other meanwhile

constexpr int64_t WINDOW = 256;  // columns

using Column = uint32_t[LANES];  // a pixel of each row

// Columns of up to LANES rows that lie beside each other in memory; rows that are not there are those of the last.
class Window {
 public:
  Window(const ResizeArguments& a, int64_t row) : a_(a), row_(row) {}

  // The columns from `first` on, of which `count` are needed, at most WINDOW.
  const uint8_t* at(int64_t first, int64_t count) {
    if (first < first_ || first + count > end_) read(first);
    return reinterpret_cast<const uint8_t*>(columns_[first - first_]);
  }

 private:
  const uint8_t* pixel(int64_t row, int64_t column) const {
    return a_.x + least(row_ + row, a_.rows - 1) * a_.x_stride + column * PIXEL;
  }

  void read(int64_t first) {
    first_ = first;
    end_ = least(a_.columns, first + WINDOW);
    int64_t i = first;
    for (; i + LANES <= end_; i += LANES) {
      Floats rows[LANES];
      for (int r = 0; r < LANES; r++) rows[r] = bits(load(pixel(r, i)));
      transpose(rows);
      for (int j = 0; j < LANES; j++) store(reinterpret_cast<float*>(columns_[i - first + j]), rows[j]);
    }
    for (; i < end_; i++)
      for (int r = 0; r < LANES; r++) std::memcpy(&columns_[i - first][r], pixel(r, i), PIXEL);
  }

  const ResizeArguments& a_;
  const int64_t row_;
  int64_t first_ = 0, end_ = 0;
  alignas(64) Column columns_[WINDOW];
};

// Writes up to LANES columns to where they belong.
inline void put_columns(const ResizeArguments& a, int64_t row, int64_t first, int64_t count, const Column* columns) {
  const int64_t rows = least(LANES, a.rows - row);
  uint8_t* y = a.y + row * a.y_stride + first * PIXEL;
  if (count < LANES) {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < count; i++) std::memcpy(y + r * a.y_stride + i * PIXEL, &columns[i][r], PIXEL);
    return;
  }
  Floats lines[LANES];
  for (int i = 0; i < LANES; i++) lines[i] = bits(load(columns[i]));
  transpose(lines);
  for (int64_t r = 0; r < rows; r++) store(reinterpret_cast<float*>(y + r * a.y_stride), lines[r]);
}

inline void resize_across(const ResizeArguments& a, int64_t row) {
  Window window(a, row);
  alignas(64) Column made[LANES];
  for (int64_t i = 0; i < a.size; i++) {
    const Span span = span_of(a, i);
    Ints sums[PIXEL];
    for (Ints& sum : sums) sum = begun();
    for (int64_t j = 0; j < span.count; j += WINDOW) {
      const int64_t some = least(WINDOW, span.count - j);
      add_weighted(sums, window.at(span.first + j, some), sizeof(Column), span.weights + j, some);
    }
    put_clipped(reinterpret_cast<uint8_t*>(made[i % LANES]), sums);
    if (i % LANES == LANES - 1 || i == a.size - 1) put_columns(a, row, i / LANES * LANES, i % LANES + 1, made);
  }
}

// --- pieces

inline int64_t pass_pieces(const void* arguments) {
  const auto& a = *static_cast<const ResizeArguments*>(arguments);
  return a.along_rows ? parts(a.rows, LANES) : parts(a.size, ROWS_A_PASS);
}

inline void pass(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const ResizeArguments*>(arguments);
  if (a.along_rows) return resize_across(a, piece * LANES);
  for (int64_t row = piece * ROWS_A_PASS; row < least(a.size, (piece + 1) * ROWS_A_PASS); row++) resize_down(a, row);
}

}  // namespace bestiary::ISA
