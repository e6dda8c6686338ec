// Attention of several new tokens of each sequence, a block of queries at a time (FlashAttention, Dao et al. 2022).
//
// Queries stand along the lanes: their scores, weights and sums are [key or dimension][query], so that keys and values
// are used as they lie, one number at a time for all lanes, and nothing is added across lanes.
#pragma once
#include "attention_area.h"

namespace bestiary::ISA {

constexpr int WIDE = 2 * LANES;           // queries of a panel
constexpr int64_t PANELS = BLOCK / WIDE;  // of a block
constexpr int64_t ROWS_AHEAD = 8;
constexpr int TALLEST = 6;                // rows of sums that stay in registers, WIDE numbers each

// Scores [M][WIDE] of rows of keys with a panel of queries [dim][WIDE].
template <int M>
inline void score_rows(const float* keys, int64_t stride, const float* queries, int64_t dim, float* scores) {
  Floats acc[M][2];
  for (auto& row : acc) row[0] = row[1] = floats(0);
  for (int64_t d = 0; d < dim; d++) {
    const Floats a = load_floats(queries + d * WIDE), b = load_floats(queries + d * WIDE + LANES);
    for (int m = 0; m < M; m++) {
      const Floats v = floats(keys[m * stride + d]);
      acc[m][0] = fused(v, a, acc[m][0]);
      acc[m][1] = fused(v, b, acc[m][1]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int j = 0; j < 2; j++) store(scores + m * WIDE + j * LANES, acc[m][j]);
}

// sums [M][WIDE] times the factors of the queries, plus M columns of values times the weights [count][WIDE].
template <int M>
inline void sum_columns(const float* values, int64_t stride, int64_t count, const float* weights, const float* factors,
                        float* sums) {
  Floats acc[M][2];
  for (int m = 0; m < M; m++)
    for (int j = 0; j < 2; j++)
      acc[m][j] = multiply(load_floats(sums + m * WIDE + j * LANES), load_floats(factors + j * LANES));
  for (int64_t i = 0; i < count; i++) {
    const Floats a = load_floats(weights + i * WIDE), b = load_floats(weights + i * WIDE + LANES);
    for (int m = 0; m < M; m++) {
      const Floats v = floats(values[i * stride + m]);
      acc[m][0] = fused(v, a, acc[m][0]);
      acc[m][1] = fused(v, b, acc[m][1]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int j = 0; j < 2; j++) store(sums + m * WIDE + j * LANES, acc[m][j]);
}

struct Prefilling {
  const AttentionArguments& a;
  int64_t sequence, head, group, begin, rows;  // the block's queries: `rows` from `begin`, those of a token together
  int64_t stride, strip;                       // of a tile of keys or values
  float *queries, *weights, *sums, *tile, *tops, *totals_of, *factors;

  // The position in the sequence of the query at a row of the block.
  int64_t position(const Seen& seen, int64_t row) const { return seen.end - a.count + (begin + row) / group; }

  // LANES queries at a time, turned so that they stand along the lanes.
  void take_queries() const {
    with_type(a.type, [&](auto type) {
      using T = decltype(type);
      const Floats scale = floats(static_cast<float>(a.scale * LOG2_OF_E));
      for (int64_t lane = 0; lane < parts(rows, LANES) * LANES; lane += LANES) {
        float* out = queries + lane / WIDE * a.dim * WIDE + lane % WIDE;
        const typename T::Stored* x[LANES];
        for (int64_t i = 0; i < LANES; i++) {
          const int64_t row = begin + least(lane + i, rows - 1);
          const int64_t token = row_of(a, sequence) + row / group, h = head * group + row % group;
          x[i] = at<T>(a.q, token * a.token_stride + h * a.head_stride);
        }
        for (int64_t d = 0; d < a.dim; d += LANES) {
          Floats square[LANES];
          for (int i = 0; i < LANES; i++) square[i] = multiply(take<T>(x[i] + d, a.dim - d), scale);
          transpose(square);
          for (int64_t i = 0; i < least(LANES, a.dim - d); i++) store(out + (d + i) * WIDE, square[i]);
        }
      }
      // Lanes of a panel that no query has.
      for (int64_t lane = parts(rows, LANES) * LANES; lane < parts(rows, WIDE) * WIDE; lane += LANES)
        for (int64_t d = 0; d < a.dim; d++) store(queries + (lane / WIDE * a.dim + d) * WIDE + lane % WIDE, floats(0));
    });
  }

  void read(const Memory& memory, const int64_t* slots, int64_t count) const {
    for (int64_t i = 0; i < count; i++) {
      if (i + ROWS_AHEAD < count) prefetch_head(memory, a.form, slots[i + ROWS_AHEAD], head, a.dim);
      read_head(memory, a.form, slots[i], head, a.dim, parts(a.dim, LANES) * LANES, tile + i * stride);
    }
  }

  void multiply_keys(int64_t panel, int64_t count, float* out) const {
    const float* q = queries + panel * a.dim * WIDE;
    int64_t i = 0;
    for (; i + TALLEST <= count; i += TALLEST) score_rows<TALLEST>(tile + i * stride, stride, q, a.dim, out + i * WIDE);
    for (; i + 2 <= count; i += 2) score_rows<2>(tile + i * stride, stride, q, a.dim, out + i * WIDE);
    if (i < count) score_rows<1>(tile + i * stride, stride, q, a.dim, out + i * WIDE);
  }

  // What the queries of LANES lanes do not see of a tile from position `first` on.
  void hide(float* scores, int64_t lane, const Seen& seen, int64_t first, int64_t count) const {
    int32_t last[LANES], before[LANES];
    for (int64_t i = 0; i < LANES; i++) {
      const int64_t here = position(seen, least(lane + i, rows - 1)) - first;
      last[i] = static_cast<int32_t>(here);
      before[i] = static_cast<int32_t>(a.window > 0 ? most(-1, here - a.window) : -1);
    }
    const Ints latest = load(last), earlier = load(before), none = bits(floats(-__builtin_inff()));
    for (int64_t i = 0; i < count; i++) {
      const Ints key = ints(static_cast<int32_t>(i)), score = bits(load_floats(scores + i * WIDE));
      const Ints seen_here = choose(greater(key, latest), none, choose(greater(key, earlier), score, none));
      store(scores + i * WIDE, bits(seen_here));
    }
  }

  // Scores of LANES lanes become weights relative to the greatest so far.
  void weigh(float* scores, int64_t lane, int64_t count) const {
    const Floats before = load_floats(tops + lane);
    Floats top = before;
    for (int64_t i = 0; i < count; i++) top = larger(load_floats(scores + i * WIDE), top);
    const Floats factor = power_of_two(subtract(before, top));
    Floats sum = multiply(load_floats(totals_of + lane), factor);
    for (int64_t i = 0; i < count; i++) {
      const Floats weight = power_of_two(subtract(load_floats(scores + i * WIDE), top));
      store(scores + i * WIDE, weight);
      sum = add(sum, weight);
    }
    store(tops + lane, top);
    store(totals_of + lane, sum);
    store(factors + lane, factor);
  }

  void cap(float* scores, int64_t count) const {
    for (int64_t i = 0; i < count * WIDE; i += LANES)
      store(scores + i, capped(load_floats(scores + i), static_cast<float>(a.softcap)));
  }

  void sum(int64_t panel, int64_t count) const {
    const float* w = weights + panel * strip * WIDE;
    const float* f = factors + panel * WIDE;
    float* out = sums + panel * a.dim * WIDE;
    int64_t d = 0;
    for (; d + TALLEST <= a.dim; d += TALLEST) sum_columns<TALLEST>(tile + d, stride, count, w, f, out + d * WIDE);
    for (; d + 2 <= a.dim; d += 2) sum_columns<2>(tile + d, stride, count, w, f, out + d * WIDE);
    if (d < a.dim) sum_columns<1>(tile + d, stride, count, w, f, out + d * WIDE);
  }

  void put_means(const Seen& seen) const {
    float* turned = tile;  // [LANES][dim in whole vectors]
    const int64_t width = parts(a.dim, LANES) * LANES;
    for (int64_t lane = 0; lane < rows; lane += LANES) {
      const float* from = sums + lane / WIDE * a.dim * WIDE + lane % WIDE;
      for (int64_t d = 0; d < a.dim; d += LANES) {
        Floats square[LANES];
        for (int64_t i = 0; i < LANES; i++) square[i] = d + i < a.dim ? load_floats(from + (d + i) * WIDE) : floats(0);
        transpose(square);
        for (int i = 0; i < LANES; i++) store(turned + i * width + d, square[i]);
      }
      for (int64_t i = 0; i < least(LANES, rows - lane); i++) {
        const int64_t row = begin + lane + i, h = head * group + row % group;
        const int64_t where = row_of(a, sequence) + row / group;
        if (position(seen, lane + i) < 0)
          put_zeros(a, where, h);
        else
          put_mean(a, where, h, turned + i * width, mean_factor(a, h, tops[lane + i], totals_of[lane + i]));
      }
    }
  }

  // How many keys of a tile, from its first, the queries of a panel see.
  int64_t look(const Seen& seen, int64_t panel, int64_t first, int64_t count) const {
    const int64_t newest = position(seen, least(rows, (panel + 1) * WIDE) - 1), oldest = position(seen, panel * WIDE);
    if (a.window > 0 && first + count <= oldest - a.window + 1) return 0;
    return least(count, newest + 1 - first);
  }

  // The weights of a tile's keys for a panel of queries.
  void score(int64_t panel, int64_t count, const Seen& seen, int64_t first) const {
    const int64_t newest = position(seen, least(rows, (panel + 1) * WIDE) - 1), oldest = position(seen, panel * WIDE);
    const bool all = first + count - 1 <= oldest && (a.window <= 0 || newest - a.window < first);
    float* scores = weights + panel * strip * WIDE;
    multiply_keys(panel, count, scores);
    if (a.softcap > 0) cap(scores, count);
    for (int64_t lane = 0; lane < WIDE; lane += LANES) {
      if (!all) hide(scores + lane, panel * WIDE + lane, seen, first, count);
      weigh(scores + lane, panel * WIDE + lane, count);
    }
  }

  void attend() const {
    const Seen seen(a, sequence);
    const int64_t used = parts(rows, WIDE), oldest = position(seen, 0), newest = position(seen, rows - 1);
    take_queries();
    for (int64_t i = 0; i < BLOCK; i++) tops[i] = LOWEST, totals_of[i] = 0;
    for (int64_t i = 0; i < used * a.dim * WIDE; i++) sums[i] = 0;
    for (int64_t first = a.window > 0 ? most(0, oldest - a.window + 1) : 0; first <= newest; first += strip) {
      const int64_t count = least(strip, newest + 1 - first);
      int64_t counts[PANELS];
      read(a.keys, seen.slots + first, count);
      for (int64_t panel = 0; panel < used; panel++) {
        counts[panel] = look(seen, panel, first, count);
        if (counts[panel] > 0) score(panel, counts[panel], seen, first);
      }
      read(a.values, seen.slots + first, count);
      for (int64_t panel = 0; panel < used; panel++)
        if (counts[panel] > 0) sum(panel, counts[panel]);
    }
    put_means(seen);
  }
};

inline int64_t blocks_of(const AttentionArguments& a) { return parts(a.count * (a.heads / a.kv_heads), BLOCK); }

inline int64_t prefill_pieces(const AttentionArguments& a) { return a.sequences * a.kv_heads * blocks_of(a); }

inline void prefill(const AttentionArguments& a, int64_t piece) {
  // The last blocks see most, and begin first.
  const int64_t all = a.sequences * a.kv_heads, block = blocks_of(a) - 1 - piece / all, rest = piece % all;
  const int64_t group = a.heads / a.kv_heads, begin = block * BLOCK, dim = whole_lines(a.dim);
  Area area(a);
  const Prefilling at_hand{a,
                           rest / a.kv_heads,
                           rest % a.kv_heads,
                           group,
                           begin,
                           least(BLOCK, a.count * group - begin),
                           dim + LINE,
                           STRIP,
                           area.numbers(BLOCK * dim),
                           area.numbers(BLOCK * STRIP),
                           area.numbers(BLOCK * dim),
                           area.numbers(STRIP * (dim + LINE)),
                           area.numbers(BLOCK),
                           area.numbers(BLOCK),
                           area.numbers(BLOCK)};
  at_hand.attend();
}

}  // namespace bestiary::ISA
