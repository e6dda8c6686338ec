// y = x W' for W of plain numbers, row by row as checkpoints have them; sums are float32.
#pragma once
#include "plain_few.h"
#include "plain_many.h"

namespace bestiary::ISA {

inline Input input_of(const PlainLinearArguments& a) {
  bool pairs = a.rows <= FEW;
  for (int64_t i = 0; i < a.count; i++) pairs = pairs && a.weights[i].type == BF16;
  return {a.scratch, a.rows, a.columns, pairs};
}

inline int64_t widen_pieces(const void* arguments) { return static_cast<const PlainLinearArguments*>(arguments)->rows; }

inline void widen_row(const void* arguments, int64_t row) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  with_type(a.x_type, [&](auto type) {
    using T = decltype(type);
    input_of(a).put<T>(row, at<T>(a.x, row * a.x_stride));
  });
}

// Rows of W of a piece.
inline int64_t plain_piece(const Input& x, const PlainWeight& w) {
  if (x.rows > FEW) return SIDE;
  // Long pieces: memory is read fastest where nothing is jumped over.
  const int64_t bytes = most(1, x.columns * row_bytes(w.type));
  return most(1, least(262144 / bytes, parts(w.rows, 8)));
}

template <class W> inline void multiply_rows(const Input& x, const PlainWeight& w, int64_t y_type, int64_t row, int64_t last) {
  if (x.rows > FEW) return many_rows<W>(x, w, y_type, row);
  if (x.rows == 1) return one_row<W>(x.values, x.columns, w, y_type, row, last);
  for (; row < last; row += TOGETHER) few_rows<W>(x, w, y_type, row, least(last, row + TOGETHER));
}

// Rows `row` to `last` of one weight, which are a piece, times all rows of x.
inline void multiply_plain_some(const Input& x, const PlainWeight& w, int64_t y_type, int64_t row, int64_t last) {
  if (x.pairs) return multiply_rows<RowBrainPairs>(x, w, y_type, row, last);
  with_rows(w.type, [&](auto type) { multiply_rows<decltype(type)>(x, w, y_type, row, last); });
}

inline int64_t plain_pieces(const void* arguments) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  const Input x = input_of(a);
  int64_t pieces = 0;
  for (int64_t i = 0; i < a.count && x.rows > 0; i++) pieces += parts(a.weights[i].rows, plain_piece(x, a.weights[i]));
  return pieces;
}

inline void multiply_plain(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const PlainLinearArguments*>(arguments);
  const Input x = input_of(a);
  int64_t i = 0;
  for (;; i++) {
    const int64_t pieces = parts(a.weights[i].rows, plain_piece(x, a.weights[i]));
    if (piece < pieces) break;
    piece -= pieces;
  }
  const PlainWeight& w = a.weights[i];
  const int64_t each = plain_piece(x, w);
  multiply_plain_some(x, w, a.y_type, piece * each, least(w.rows, (piece + 1) * each));
}

}  // namespace bestiary::ISA
