// Rows of x as float32, lying as products with plain weights read them.
#pragma once
#include "plain.h"

namespace bestiary::ISA {

constexpr int64_t FEW = 12;  // rows of x that are multiplied with a row of W as it lies; more are, with some made float32

struct Input {
  float* values;
  int64_t rows, columns;
  bool pairs;  // as RowBrainPairs reads them

  // Of a few rows, a step of each lies beside the others', and at the end what is less than a step; more lie row by row.
  int64_t step() const { return rows > FEW ? columns : pairs ? 2 * LANES : LANES; }
  float* at(int64_t row, int64_t column) const {
    const int64_t start = column / step() * step();
    return values + start * rows + row * least(step(), columns - start) + column - start;
  }

  template <class T> void put(int64_t row, const typename T::Stored* x) const {
    const int64_t each = step();
    for (int64_t i = 0; i < columns; i += each) {
      const int64_t there = least(each, columns - i);
      float* out = at(row, i);
      if (pairs && there == 2 * LANES)
        for (int j = 0; j < 2 * LANES; j++) out[j % 2 * LANES + j / 2] = T::get(x[i + j]);
      else
        for (int64_t j = 0; j < there; j++) out[j] = T::get(x[i + j]);
    }
  }
};

}  // namespace bestiary::ISA
