// Activations become int8, each 32 of a row with a scale of their own: the greatest of them is 127.
#pragma once
#include "activations.h"
#include "arguments.h"
#include "plain.h"

namespace bestiary::ISA {

// One group of one row, at `place` of a tile; columns beyond the row's end count as zeros.
template <class T> inline void quantize_group(const typename T::Stored* x, int64_t there, const Tile& tile, int64_t place) {
  float v[GROUP] = {};
  if (there >= GROUP)
    for (int i = 0; i < GROUP; i++) v[i] = T::get(x[i]);
  else
    for (int64_t i = 0; i < there; i++) v[i] = T::get(x[i]);
  float greatest = 0, none = 0;
  for (float one : v) {
    const float size = one < 0 ? -one : one;
    greatest = size > greatest ? size : greatest;
    none += one - one;  // NaN where there is NaN or infinity, which no int8 can stand for
  }
  const float inverse = greatest > 0 ? 127.0f / greatest : 0.0f, scale = greatest / 127.0f + none;
  int8_t* values = tile.values + place * GROUP;
  // Adding 3 * 2^22 leaves no bits for a fraction, and so rounds to the nearest, ties to even.
  for (int i = 0; i < GROUP; i++) values[i] = static_cast<int8_t>(to_bits(v[i] * inverse + 12582912.0f));
  int32_t sums[2] = {};
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < GROUP / 2; i++) sums[half] += values[half * GROUP / 2 + i];
  tile.scales[place] = scale;
  tile.wholes[place] = scale * static_cast<float>(sums[0] + sums[1]);
  for (int half = 0; half < 2; half++) tile.halves[2 * place + half] = scale * static_cast<float>(sums[half]);
}

constexpr int64_t GROUPS_A_PIECE = 256;

inline int64_t quantize_pieces(const void* arguments) {
  const auto& a = *static_cast<const LinearArguments*>(arguments);
  return a.rows * parts(parts(a.columns, GROUP), GROUPS_A_PIECE);
}

inline void quantize(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const LinearArguments*>(arguments);
  const int64_t groups = parts(a.columns, GROUP), cuts = parts(groups, GROUPS_A_PIECE);
  const int64_t row = piece / cuts, first = piece % cuts * GROUPS_A_PIECE;
  const Tile tile = tile_at(a.scratch, a.columns, a.rows, row / TILE * TILE);
  const int64_t r = row % TILE;
  with_type(a.x_type, [&](auto type) {
    using T = decltype(type);
    const auto* x = at<T>(a.x, row * a.x_stride);
    for (int64_t g = first; g < least(groups, first + GROUPS_A_PIECE); g++) {
      quantize_group<T>(x + g * GROUP, a.columns - g * GROUP, tile, g * tile.m + r);
    }
  });
}

}  // namespace bestiary::ISA
