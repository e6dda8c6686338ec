// Some rows of panels as plain numbers: what an embedding asks for.
#pragma once
#include "arguments.h"
#include "linear.h"

namespace bestiary::ISA {

constexpr int LONGEST_BLOCK = 256;

// The columns of one block of one row.
template <class T> void block_of_row(const Panel& panel, int row, int64_t block, float* y) {
  const int part = row / LANES, lane = row % LANES;
  const T decoded(panel, block, part * LANES);
  unroll<T::COLUMNS / GROUP>([&](auto s) {
    constexpr int S = decltype(s)::value;
    const Group<T> g = group_of<T, S>(decoded);
    float scales[T::HALVES][LANES], addends[T::HALVES][LANES] = {};
    for (int half = 0; half < T::HALVES; half++) {
      store(scales[half], g.scale[half]);
      if constexpr (T::ADDS) store(addends[half], g.addend[half]);
    }
    for (int i = 0; i < GROUP; i++) {
      uint32_t words[LANES];
      std::memcpy(words, &g.words[i / 4], sizeof words);
      const auto byte = static_cast<uint8_t>(words[lane] >> (8 * (i % 4)));
      const int code = (T::SIGNED ? static_cast<int8_t>(byte) : byte) - T::OFFSET, half = T::HALVES == 2 ? i / 16 : 0;
      y[S * GROUP + i] = static_cast<float>(code) * scales[half][lane] + addends[half][lane];
    }
  });
}

using BlockOfRow = void (*)(const Panel&, int, int64_t, float*);

constexpr BlockOfRow BLOCKS_OF_ROWS[WEIGHT_TYPES] = {
    block_of_row<Q4_0>,   block_of_row<Q4_1>,   block_of_row<Q5_0>,  block_of_row<Q5_1>, block_of_row<Q8_0>,
    block_of_row<Q2_K>,   block_of_row<Q3_K>,   block_of_row<Q4_K>,  block_of_row<Q5_K>, block_of_row<Q6_K>,
    block_of_row<IQ4_NL>, block_of_row<IQ4_XS>, block_of_row<MXFP4>, block_of_row<INT8>, block_of_row<INT4>,
};

inline int64_t row_pieces(const void* arguments) { return static_cast<const RowsArguments*>(arguments)->count; }

inline void put_row(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const RowsArguments*>(arguments);
  const int64_t row = a.index ? a.index[piece] : piece;
  const bool there = row >= 0 && row < a.rows;  // one that is not reads as zeros
  const int64_t columns = LAYOUTS[a.type].columns;
  const Panel panel = panel_at(a.panels, a.type, a.columns, a.group, there ? row / PANEL : 0);
  with_type(a.y_type, [&](auto plain) {
    using T = decltype(plain);
    const float scale = T::get(T::put(static_cast<float>(a.scale)));
    for (int64_t block = 0; block < panel.blocks; block++) {
      float v[LONGEST_BLOCK] = {};
      if (there) BLOCKS_OF_ROWS[a.type](panel, static_cast<int>(row % PANEL), block, v);
      auto* y = at<T>(a.y, piece * a.y_stride + block * columns);
      for (int64_t i = 0; i < columns; i++) y[i] = scale == 1 ? T::put(v[i]) : T::put(T::get(T::put(v[i])) * scale);
    }
  });
}

}  // namespace bestiary::ISA
