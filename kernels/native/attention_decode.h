// Attention of one new token of each sequence.
//
// The keys of a head are read once for all heads of queries that share it.  A sequence is cut into parts of always the
// same size, so that its numbers are the same whatever runs beside it (flash-decoding, Dao et al. 2023).  A few rows are
// done for all heads, which lie beside each other in them, before the next: so memory is read from front to back.
#pragma once
#include "attention_area.h"

namespace bestiary::ISA {

// Scores of Q queries [Q][width] with each of `count` rows of keys; up to LANES rows more are looked at.
template <class T, int Q, class S = typename T::Stored>
inline void score_keys(const S* const* keys, int64_t count, const float* q, int64_t width, float* scores) {
  constexpr int KEYS = LANES / Q;
  for (int64_t i = 0; i < count; i += KEYS) {
    Floats sums[LANES];
    for (Floats& sum : sums) sum = floats(0);
    for (int64_t d = 0; d < width; d += LANES) {
      for (int k = 0; k < KEYS; k++) {
        const Floats v = take<T>(keys[i + k] + d);
        for (int g = 0; g < Q; g++) sums[g * KEYS + k] = fused(v, load_floats(q + g * width + d), sums[g * KEYS + k]);
      }
    }
    float found[LANES];
    store(found, totals(sums));
    for (int g = 0; g < Q; g++) std::memcpy(scores + g * SCORES + i, found + g * KEYS, KEYS * sizeof(float));
  }
}

// Adds rows of values to sums [Q][width], from column d on, C vectors at a time.
template <class T, int Q, int C, class S = typename T::Stored>
inline void sum_values(const S* const* values, int64_t count, const float* weights, int64_t width, int64_t d,
                       float* sums) {
  for (; d + C * LANES <= width; d += C * LANES) {
    Floats acc[Q][C];
    for (int g = 0; g < Q; g++)
      for (int c = 0; c < C; c++) acc[g][c] = load_floats(sums + g * width + d + c * LANES);
    for (int64_t i = 0; i < count; i++) {
      Floats v[C];
      for (int c = 0; c < C; c++) v[c] = take<T>(values[i] + d + c * LANES);
      for (int g = 0; g < Q; g++) {
        const Floats weight = floats(weights[g * SCORES + i]);
        for (int c = 0; c < C; c++) acc[g][c] = fused(weight, v[c], acc[g][c]);
      }
    }
    for (int g = 0; g < Q; g++)
      for (int c = 0; c < C; c++) store(sums + g * width + d + c * LANES, acc[g][c]);
  }
  if constexpr (C > 1) sum_values<T, Q, C / 2>(values, count, weights, width, d, sums);
}

// Scores become weights relative to the greatest; beyond the last they are zeros.
inline void weigh(float* scores, int64_t count, float softcap, float& most_score, float& sum) {
  const Floats none = floats(-__builtin_inff());
  for (int64_t i = count; i < parts(count, LANES) * LANES; i++) scores[i] = -__builtin_inff();
  Floats top = none;
  for (int64_t i = 0; i < count; i += LANES) {
    Floats s = load_floats(scores + i);
    if (softcap > 0) {
      // What is beyond the last stays below all.
      s = bits(choose(greater(s, none), bits(capped(s, softcap)), bits(s)));
      store(scores + i, s);
    }
    top = larger(s, top);
  }
  most_score = greatest(top);
  if (!(most_score > LOWEST)) most_score = LOWEST;
  Floats total_of = floats(0);
  for (int64_t i = 0; i < count; i += LANES) {
    const Floats weight = power_of_two(subtract(load_floats(scores + i), floats(most_score)));
    store(scores + i, weight);
    total_of = add(total_of, weight);
  }
  sum = total(total_of);
}

// A part of a sequence, for all heads.
struct Decoding {
  const AttentionArguments& a;
  int64_t sequence, group, width, begin, count;
  const int64_t* slots;

  template <class T> void score(const typename T::Stored* const* rows, int64_t n, const float* q, float* scores) const {
    int64_t g = 0;
    for (; g + 4 <= group; g += 4) score_keys<T, 4>(rows, n, q + g * width, width, scores + g * SCORES);
    for (; g + 2 <= group; g += 2) score_keys<T, 2>(rows, n, q + g * width, width, scores + g * SCORES);
    if (g < group) score_keys<T, 1>(rows, n, q + g * width, width, scores + g * SCORES);
  }

  template <class T>
  void sum(const typename T::Stored* const* rows, int64_t n, const float* weights, float* sums) const {
    int64_t g = 0;
    for (; g + 4 <= group; g += 4) sum_values<T, 4, 2>(rows, n, weights + g * SCORES, width, 0, sums + g * width);
    for (; g + 2 <= group; g += 2) sum_values<T, 2, 4>(rows, n, weights + g * SCORES, width, 0, sums + g * width);
    if (g < group) sum_values<T, 1, 8>(rows, n, weights + g * SCORES, width, 0, sums + g * width);
  }

  // Asks for what `tiles` begins with.
  void ask(const Memory& memory, int64_t head) const {
    for (int64_t j = 0; j < least(ROWS_A_TILE, count); j++) prefetch_head(memory, a.form, slots[begin + j], head, a.dim);
  }

  // Calls f(head, rows, first, count) for a few rows of each head, and then for the next.  Rows that cannot be used as
  // they lie are made float32 in `tile`.  While the last ones are worked on, the first of `then` are asked for.
  template <class T, bool DIRECT, class F> void tiles(const Memory& memory, const Memory* then, float* tile, F&& f) const {
    using S = typename T::Stored;
    const S* rows[ROWS_A_TILE];
    const int64_t* slot = slots + begin;
    for (int64_t i = 0; i < count; i += ROWS_A_TILE) {
      const int64_t n = least(ROWS_A_TILE, count - i);
      const int64_t left = count - i - ROWS_A_TILE;
      for (int64_t head = 0; head < a.kv_heads; head++) {
        if (left <= 0 && then) ask(*then, head);
        for (int64_t j = 0; j < ROWS_A_TILE; j++) {
          const int64_t row = i + least(j, n - 1);
          if (j < left) prefetch_head(memory, a.form, slot[row + ROWS_A_TILE], head, a.dim);
          if constexpr (DIRECT) {
            rows[j] = head_at<T>(memory, slot[row], head, a.dim);
          } else {
            if (j < n) read_head(memory, a.form, slot[row], head, a.dim, width, tile + j * width);
            rows[j] = tile + least(j, n - 1) * width;
          }
        }
        f(head, rows, i, n);
      }
    }
  }

  void take_queries(float* q) const {
    with_type(a.type, [&](auto type) {
      using T = decltype(type);
      const Floats scale = floats(static_cast<float>(a.scale * LOG2_OF_E));
      for (int64_t h = 0; h < a.heads; h++) {
        const auto* x = at<T>(a.q, row_of(a, sequence) * a.token_stride + h * a.head_stride);
        for (int64_t i = 0; i < width; i += LANES)
          store(q + h * width + i, multiply(take<T>(x + i, most(0, a.dim - i)), scale));
      }
    });
  }

  template <class T, bool DIRECT, class S = typename T::Stored> void attend(int64_t part, bool whole) const {
    Area area(a);
    float* q = area.numbers(a.heads * width);
    float* sums = area.numbers(a.heads * width);
    float* scores = area.numbers(a.heads * SCORES);
    float* tile = area.numbers(ROWS_A_TILE * width);
    for (int64_t head = 0; head < a.kv_heads; head++) ask(a.keys, head);
    take_queries(q);
    tiles<T, DIRECT>(a.keys, &a.values, tile, [&](int64_t head, const S* const* rows, int64_t i, int64_t n) {
      score<T>(rows, n, q + head * group * width, scores + head * group * SCORES + i);
    });
    // The queries are done with: what their weights add up to takes their place.
    for (int64_t h = 0; h < a.heads; h++)
      weigh(scores + h * SCORES, count, static_cast<float>(a.softcap), q[h * width], q[h * width + 1]);
    for (int64_t i = 0; i < a.heads * width; i++) sums[i] = 0;
    tiles<T, DIRECT>(a.values, nullptr, tile, [&](int64_t head, const S* const* rows, int64_t i, int64_t n) {
      sum<T>(rows, n, scores + head * group * SCORES + i, sums + head * group * width);
    });
    for (int64_t h = 0; h < a.heads; h++) {
      if (whole) {
        put_mean(a, row_of(a, sequence), h, sums + h * width, mean_factor(a, h, q[h * width], q[h * width + 1]));
      } else {
        float* out = part_at(a, sequence, h, part);
        std::memcpy(out, q + h * width, 2 * sizeof(float));
        std::memcpy(out + 2, sums + h * width, static_cast<size_t>(a.dim) * sizeof(float));
      }
    }
  }
};

inline int64_t decode_parts(const AttentionArguments& a) {
  int64_t longest = 0;
  for (int64_t i = 0; i < a.sequences; i++) longest = most(longest, Seen(a, i).parts_of());
  return longest;
}

inline int64_t decode_pieces(const AttentionArguments& a) { return a.sequences * decode_parts(a); }

inline void decode(const AttentionArguments& a, int64_t piece) {
  const int64_t part = piece / a.sequences, sequence = piece % a.sequences, group = a.heads / a.kv_heads;
  const Seen seen(a, sequence);
  const int64_t begin = seen.first + part * PART, width = parts(a.dim, LANES) * LANES;
  if (begin >= seen.end) {
    if (part == 0)
      for (int64_t h = 0; h < a.heads; h++) put_zeros(a, row_of(a, sequence), h);
    return;
  }
  const Decoding at_hand{a, sequence, group, width, begin, least(PART, seen.end - begin), seen.slots};
  const bool whole = seen.parts_of() == 1;
  if (a.form == INT8_GROUPS || width != a.dim) return at_hand.attend<Float32, false>(part, whole);
  with_type(a.form, [&](auto type) { at_hand.attend<decltype(type), true>(part, whole); });
}

// The parts of each head together.
inline int64_t gather_pieces(const AttentionArguments& a) { return decode_parts(a) > 1 ? a.sequences * a.heads : 0; }

inline void gather(const AttentionArguments& a, int64_t piece) {
  const int64_t sequence = piece / a.heads, head = piece % a.heads, count = Seen(a, sequence).parts_of();
  if (count == 1) return;
  float top = LOWEST, weights = 0;
  for (int64_t i = 0; i < count; i++) {
    const float here = part_at(a, sequence, head, i)[0];
    top = here > top ? here : top;
  }
  Area area(a);
  float* sums = area.numbers(a.dim);
  for (int64_t d = 0; d < a.dim; d++) sums[d] = 0;
  for (int64_t i = 0; i < count; i++) {
    const float* part = part_at(a, sequence, head, i);
    const float factor = power_of_two(part[0] - top);
    weights += part[1] * factor;
    for (int64_t d = 0; d < a.dim; d++) sums[d] += part[2 + d] * factor;
  }
  put_mean(a, row_of(a, sequence), head, sums, mean_factor(a, head, top, weights));
}

}  // namespace bestiary::ISA
