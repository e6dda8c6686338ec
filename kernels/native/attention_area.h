// Room to work in, which the caller gives: one area for each thread, and the results of parts of long sequences.
#pragma once
#include "cache.h"
#include "functions.h"

namespace bestiary::ISA {

constexpr int64_t LINE = 16;       // numbers of a cache line
constexpr int64_t PART = 64;       // positions that one query's piece of work has
constexpr int64_t SCORES = PART + LINE;
constexpr int64_t ROWS_A_TILE = LANES;  // at least as many; with more, what is asked for is gone before it is used

constexpr int64_t BLOCK = 128;     // queries that share tiles of keys
constexpr int64_t STRIP = 96;      // keys of such a tile, at most
constexpr float LOWEST = -3.4028235e38f;

// Scores are taken times this, so that weights are powers of two.
constexpr float LOG2_OF_E = 1.44269504f;

inline int64_t whole_lines(int64_t count) { return parts(count, LINE) * LINE; }

// The scratch memory is: a line for each area, of which the first word says whether it is taken; the areas; and for
// each sequence, head, and part of the longest sequence that could be: the greatest score, the sum of weights, [dim].
//
// An area holds at least
//   for one query    heads * (2 * D + SCORES) + 16 * D, as no instruction set has more lanes
//   for more         BLOCK * (2 * D + STRIP + 3) + STRIP * (D + LINE)
// numbers, where D is the dim in whole lines.
inline float* area_at(const AttentionArguments& a, int64_t i) { return a.scratch + a.areas * LINE + i * a.area; }
inline int64_t most_parts(const AttentionArguments& a) { return parts(a.seen_stride, PART); }
inline float* part_at(const AttentionArguments& a, int64_t sequence, int64_t head, int64_t part) {
  return area_at(a, a.areas) + ((sequence * a.heads + head) * most_parts(a) + part) * (a.dim + 2);
}

inline int64_t one_piece(const void*) { return 1; }

inline void free_areas(const void* arguments, int64_t) {
  const auto& a = *static_cast<const AttentionArguments*>(arguments);
  for (int64_t i = 0; i < a.areas; i++) reinterpret_cast<int32_t*>(a.scratch + i * LINE)[0] = 0;
}

// An area that nobody else has, until this is gone; with as many as threads nobody waits.
class Area {
 public:
  explicit Area(const AttentionArguments& a) {
    for (int64_t i = 0;; i = (i + 1) % a.areas) {
      taken_ = reinterpret_cast<int32_t*>(a.scratch + i * LINE);
      if (__atomic_exchange_n(taken_, 1, __ATOMIC_ACQUIRE) == 0) {
        next_ = area_at(a, i);
        return;
      }
    }
  }
  ~Area() { __atomic_store_n(taken_, 0, __ATOMIC_RELEASE); }
  Area(const Area&) = delete;
  Area& operator=(const Area&) = delete;

  float* numbers(int64_t count) {
    float* given = next_;
    next_ += whole_lines(count);
    return given;
  }

 private:
  int32_t* taken_;
  float* next_;
};

inline float power_of_two(float x) {
  float y[LANES];
  store(y, power_of_two(floats(x)));
  return y[0];
}

inline Floats capped(Floats score, float softcap) {
  const Floats cap = floats(softcap * LOG2_OF_E);
  return multiply(hyperbolic_tangent(divide(score, cap)), cap);
}

// What a sequence's last query sees: positions from `first` to `end`.
struct Seen {
  const int64_t* slots;
  int64_t first, end;
  Seen(const AttentionArguments& a, int64_t sequence)
      : slots(a.seen + sequence * a.seen_stride),
        first(a.window > 0 ? most(0, a.lengths[sequence] - a.window) : 0),
        end(most(0, a.lengths[sequence])) {}
  int64_t parts_of() const { return most(1, parts(end - first, PART)); }
};

inline int64_t row_of(const AttentionArguments& a, int64_t sequence) {
  return a.rows ? a.rows[sequence] : sequence * a.count;
}

inline float sink_of(const AttentionArguments& a, int64_t head) {
  float sink = 0;
  with_type(a.sinks_type, [&](auto type) {
    using T = decltype(type);
    sink = T::get(*at<T>(a.sinks, head));
  });
  return sink;
}

// How weighted sums become the mean: by one over the sum of weights, the sink's among them, which gives nothing.
inline float mean_factor(const AttentionArguments& a, int64_t head, float most_score, float weights) {
  float scale = 1;
  if (a.sinks) {
    const float sink = sink_of(a, head) * LOG2_OF_E, top = sink > most_score ? sink : most_score;
    scale = power_of_two(most_score - top);
    weights = weights * scale + power_of_two(sink - top);
  }
  return scale / weights;
}

inline void put_mean(const AttentionArguments& a, int64_t row, int64_t head, const float* sums, float factor) {
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    auto* y = at<T>(a.y, row * a.y_stride + head * a.dim);
    for (int64_t i = 0; i < a.dim; i += LANES)
      put<T>(y + i, a.dim - i, multiply(take<Float32>(sums + i, a.dim - i), floats(factor)));
  });
}

inline void put_zeros(const AttentionArguments& a, int64_t row, int64_t head) {
  const auto bytes = static_cast<int64_t>(a.type == F32 ? 4 : 2);
  char* y = static_cast<char*>(a.y) + (row * a.y_stride + head * a.dim) * bytes;
  std::memset(y, 0, static_cast<size_t>(a.dim * bytes));
}

}  // namespace bestiary::ISA
