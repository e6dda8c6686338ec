// y = x W' for W in panels and x in int8: sums of products are exact, and scaled and added in float32.
//
// Each number of y is the same whatever else is computed beside it: M rows give what each row alone gives.
#pragma once
#include "activations.h"
#include "arguments.h"
#include "layouts.h"
#include "plain.h"
#include "types.h"

namespace bestiary::ISA {

constexpr int PARTS = PANEL / LANES;
constexpr int64_t AHEAD = 6144;  // bytes that are asked for before they are used

// 32 columns of LANES rows: a number is scale * byte + addend, for each half or for both.
template <class T> struct Group {
  static constexpr bool ADDS = T::ADDS || T::OFFSET != 0;
  Ints words[8];
  Floats scale[T::HALVES], addend[T::HALVES];
};

template <class T, int S> ALWAYS_INLINE Group<T> group_of(const T& block) {
  Group<T> g;
  block.template words<S>(g.words);
  for (int half = 0; half < T::HALVES; half++) {
    g.scale[half] = block.template scale<S>(half);
    if constexpr (T::ADDS) g.addend[half] = block.template addend<S>(half);
    if constexpr (T::OFFSET != 0) g.addend[half] = multiply(g.scale[half], floats(-T::OFFSET));
  }
  return g;
}

// acc + the products of 32 columns with the activations at `place` of a tile.
template <class T> ALWAYS_INLINE Floats product(Floats acc, const Group<T>& g, const Tile& tile, int64_t place) {
  constexpr int COUNT = 8 / T::HALVES;
  const int8_t* a = tile.values + place * GROUP;
  const Floats scale = floats(tile.scales[place]);
  for (int half = 0; half < T::HALVES; half++) {
    Ints c;
    if constexpr (T::SIGNED)
      c = dot_signed<COUNT>(g.words + half * COUNT, a + half * 16);
    else
      c = dot<COUNT, T::LIMIT>(g.words + half * COUNT, a + half * 16);
    acc = fused(numbers(c), multiply(scale, g.scale[half]), acc);
    if constexpr (Group<T>::ADDS)
      acc = fused(floats(T::HALVES == 2 ? tile.halves[2 * place + half] : tile.wholes[place]), g.addend[half], acc);
  }
  return acc;
}

// Keeps the compiler from working on several groups at once, for which there are too few registers.
inline void one_after_another() { asm volatile("" ::: "memory"); }

// A block, unpacked for each part of the panel's rows.
template <class T, int... P> struct Decoded {
  T parts[sizeof...(P)];
  Decoded(const Panel& panel, int64_t block) : parts{T(panel, block, P * LANES)...} {}
};
template <class T, int N> struct Parts;
template <class T> struct Parts<T, 1> : Decoded<T, 0> {
  using Decoded<T, 0>::Decoded;
};
template <class T> struct Parts<T, 2> : Decoded<T, 0, 1> {
  using Decoded<T, 0, 1>::Decoded;
};
template <class T> struct Parts<T, 4> : Decoded<T, 0, 1, 2, 3> {
  using Decoded<T, 0, 1, 2, 3>::Decoded;
};

// Cache lines that a group of 16 rows takes.
template <class T> constexpr int LINES = (T::BYTES / (T::COLUMNS / GROUP) + 63) / 64;

// What will be read AHEAD bytes after a group.
template <class T> ALWAYS_INLINE const uint8_t* after(const Panel& panel, int64_t block, int group) {
  return panel.data + block * T::BYTES + AHEAD + group * LINES<T> * 64;
}

// A panel times one row; sums [16].  Parts take turns, so that memory is read evenly.
template <class T> inline void one(const Panel& panel, const Tile& given, float* out) {
  constexpr int GROUPS = T::COLUMNS / GROUP;
  const Tile tile = given;  // a copy, which stays in registers
  Floats acc[PARTS];
  for (Floats& x : acc) x = floats(0);
  for (int64_t block = 0; block < panel.blocks; block++) {
    const Parts<T, PARTS> decoded(panel, block);
    unroll<GROUPS>([&](auto s) ALWAYS {
      constexpr int S = decltype(s)::value;
      for (int i = 0; i < LINES<T>; i++) prefetch(after<T>(panel, block, S) + i * 64);
      unroll<PARTS>([&](auto of) ALWAYS {
        constexpr int P = decltype(of)::value;
        acc[P] = product<T>(acc[P], group_of<T, S>(decoded.parts[P]), tile, block * GROUPS + S);
        if constexpr (GROUPS > 1) one_after_another();
      });
    });
  }
  for (int part = 0; part < PARTS; part++) store(out + part * LANES, acc[part]);
}

// A panel times all rows of a tile; sums [m][16].
template <class T> inline void many(const Panel& panel, const Tile& given, float* out) {
  constexpr int GROUPS = T::COLUMNS / GROUP;
  const Tile tile = given;
  for (int i = 0; i < tile.m * PANEL; i++) out[i] = 0;
  for (int64_t block = 0; block < panel.blocks; block++) {
    const Parts<T, PARTS> decoded(panel, block);
    unroll<GROUPS>([&](auto s) ALWAYS {
      constexpr int S = decltype(s)::value;
      const int64_t place = (block * GROUPS + S) * tile.m;
      for (int i = 0; i < LINES<T>; i++) prefetch(after<T>(panel, block, S) + i * 64);
      unroll<PARTS>([&](auto of) ALWAYS {
        constexpr int P = decltype(of)::value;
        const Group<T> g = group_of<T, S>(decoded.parts[P]);
        float* sum = out + P * LANES;
        for (int m = 0; m < tile.m; m++, sum += PANEL) store(sum, product<T>(load_floats(sum), g, tile, place + m));
      });
    });
  }
}

template <class T> void panel_times_tile(const Panel& panel, const Tile& tile, float* out) {
  if (tile.m == 1) return one<T>(panel, tile, out);
  many<T>(panel, tile, out);
}

using PanelTimesTile = void (*)(const Panel&, const Tile&, float*);

constexpr PanelTimesTile PRODUCTS[WEIGHT_TYPES] = {
    panel_times_tile<Q4_0>,   panel_times_tile<Q4_1>, panel_times_tile<Q5_0>,  panel_times_tile<Q5_1>, panel_times_tile<Q8_0>,
    panel_times_tile<Q2_K>,   panel_times_tile<Q3_K>, panel_times_tile<Q4_K>,  panel_times_tile<Q5_K>, panel_times_tile<Q6_K>,
    panel_times_tile<IQ4_NL>, panel_times_tile<IQ4_XS>, panel_times_tile<MXFP4>, panel_times_tile<INT8>, panel_times_tile<INT4>,
};

inline Panel panel_at(const uint8_t* panels, int64_t type, int64_t columns, int64_t group, int64_t number) {
  const int64_t bytes = panel_bytes(static_cast<int32_t>(type), columns, group);
  return {panels + number * bytes, columns / LAYOUTS[type].columns, static_cast<int32_t>(group)};
}

// Writes sums [m][16] of a panel where they belong.
inline void put_sums(const float* sums, int m, const PanelWeight& w, int64_t y_type, int64_t row, int64_t column) {
  const int64_t there = least(PANEL, w.rows - column);
  with_type(y_type, [&](auto type) {
    using T = decltype(type);
    for (int r = 0; r < m; r++) {
      auto* y = at<T>(w.y, (row + r) * w.y_stride + column);
      float v[PANEL];
      for (int i = 0; i < PANEL; i++) v[i] = sums[r * PANEL + i];
      if (w.bias) {
        // Rounded before the bias is added, as where the two are operations of their own.
        const auto* bias = at<T>(w.bias, column);
        for (int64_t i = 0; i < there; i++) v[i] = T::get(T::put(v[i])) + T::get(bias[i]);
      }
      if (there == PANEL)
        for (int i = 0; i < PANEL; i++) y[i] = T::put(v[i]);
      else
        for (int64_t i = 0; i < there; i++) y[i] = T::put(v[i]);
    }
  });
}

// Panels of a piece: as many as stay in the cache while all tiles pass over them.
inline int64_t panels_a_piece(const PanelWeight& w, int64_t columns) {
  const int64_t bytes = panel_bytes(static_cast<int32_t>(w.type), columns, w.group);
  return most(1, least(98304 / most(bytes, 1), parts(parts(w.rows, PANEL), 16)));
}

// Panels `first` to `last` of one weight, times all rows of a.
inline void multiply_some(const LinearArguments& a, const PanelWeight& w, int64_t first, int64_t last) {
  alignas(64) float sums[TILE * PANEL];
  for (int64_t row = 0; row < a.rows; row += TILE) {
    const Tile tile = tile_at(a.scratch, a.columns, a.rows, row);
    for (int64_t p = first; p < last; p++) {
      PRODUCTS[w.type](panel_at(w.panels, w.type, a.columns, w.group, p), tile, sums);
      put_sums(sums, tile.m, w, a.y_type, row, p * PANEL);
    }
  }
}

inline int64_t product_pieces(const void* arguments) {
  const auto& a = *static_cast<const LinearArguments*>(arguments);
  int64_t pieces = 0;
  for (int64_t i = 0; i < a.count; i++) pieces += parts(parts(a.weights[i].rows, PANEL), panels_a_piece(a.weights[i], a.columns));
  return pieces;
}

inline void multiply_panels(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const LinearArguments*>(arguments);
  int64_t i = 0;
  for (;; i++) {
    const int64_t pieces = parts(parts(a.weights[i].rows, PANEL), panels_a_piece(a.weights[i], a.columns));
    if (piece < pieces) break;
    piece -= pieces;
  }
  const PanelWeight& w = a.weights[i];
  const int64_t each = panels_a_piece(w, a.columns);
  multiply_some(a, w, piece * each, least(parts(w.rows, PANEL), (piece + 1) * each));
}

}  // namespace bestiary::ISA
