// Norms, sums, gates and rotations, rounded to the type of the tensors wherever plain torch rounds.
#pragma once
#include "functions.h"
#include "pointwise_arguments.h"

namespace bestiary::ISA {

constexpr int64_t ENOUGH = 4096;  // numbers that make a piece

// --- pieces: some whole rows, or a part of a long one

inline int64_t rows_a_piece(int64_t columns) { return most(1, ENOUGH / most(1, columns)); }

inline int64_t span_pieces(int64_t rows, int64_t columns) {
  return columns > ENOUGH ? rows * parts(columns, ENOUGH) : parts(rows, rows_a_piece(columns));
}

// Calls f(row, first column, columns) for the rows of a piece.
template <class F> inline void spans(int64_t rows, int64_t columns, int64_t piece, F&& f) {
  if (columns > ENOUGH) {
    const int64_t cuts = parts(columns, ENOUGH), first = piece % cuts * ENOUGH;
    return f(piece / cuts, first, least(ENOUGH, columns - first));
  }
  const int64_t each = rows_a_piece(columns);
  for (int64_t row = piece * each; row < least(rows, (piece + 1) * each); row++) f(row, int64_t{0}, columns);
}

// --- the root-mean-square norm (Zhang and Sennrich 2019)

// The factor of one row: one over the root of its mean square.
template <class T> inline float norm_factor(const typename T::Stored* x, int64_t columns, double epsilon) {
  constexpr int CHAINS = 4;
  Floats sums[CHAINS];
  for (Floats& sum : sums) sum = floats(0);
  int64_t i = 0;
  for (; i + CHAINS * LANES <= columns; i += CHAINS * LANES)
    for (int j = 0; j < CHAINS; j++) {
      const Floats v = take<T>(x + i + j * LANES);
      sums[j] = fused(v, v, sums[j]);
    }
  for (; i < columns; i += LANES) {
    const Floats v = take<T>(x + i, columns - i);
    sums[0] = fused(v, v, sums[0]);
  }
  const float square = total(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  return 1.0f / __builtin_sqrtf(square / static_cast<float>(columns) + static_cast<float>(epsilon));
}

// With an offset, what is added to the weight, nothing is rounded before the weight multiplies.
template <class T>
inline void norm_row(const typename T::Stored* x, int64_t columns, const void* weight, double epsilon, double offset,
                     typename T::Stored* y) {
  const Floats factor = floats(norm_factor<T>(x, columns, epsilon)), more = floats(static_cast<float>(offset));
  each_vector(columns, [&](int64_t i, auto there) {
    const Floats v = multiply(take<T>(x + i, there), factor), w = take<T>(at<T>(weight, i), there);
    put<T>(y + i, there, offset == 0 ? multiply(rounded<T>(v), w) : multiply(v, add(more, w)));
  });
}

inline int64_t norm_pieces(const void* arguments) {
  const auto& a = *static_cast<const NormArguments*>(arguments);
  return parts(a.rows, rows_a_piece(a.columns));
}

inline void norm(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const NormArguments*>(arguments);
  const int64_t each = rows_a_piece(a.columns);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    for (int64_t row = piece * each; row < least(a.rows, (piece + 1) * each); row++) {
      const auto* x = at<T>(a.x, row / a.inner * a.outer_stride + row % a.inner * a.inner_stride);
      norm_row<T>(x, a.columns, a.weight, a.epsilon, a.offset, at<T>(a.y, row * a.columns));
    }
  });
}

// --- the layer norm (Ba, Kiros and Hinton 2016)

// The sum of f of each number of a row.
template <class T, class F, class G>
inline float row_sum(const typename T::Stored* x, int64_t columns, F&& f, G&& one) {
  constexpr int CHAINS = 4;
  Floats sums[CHAINS];
  for (Floats& sum : sums) sum = floats(0);
  int64_t i = 0;
  for (; i + CHAINS * LANES <= columns; i += CHAINS * LANES)
    for (int j = 0; j < CHAINS; j++) sums[j] = f(take<T>(x + i + j * LANES), sums[j]);
  float sum = total(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  for (; i < columns; i++) sum += one(T::get(x[i]));
  return sum;
}

template <class T>
inline void layer_norm_row(const typename T::Stored* x, const LayerNormArguments& a, typename T::Stored* y) {
  const float count = static_cast<float>(a.columns);
  const float mean = row_sum<T>(
      x, a.columns, [](Floats v, Floats sum) ALWAYS { return add(v, sum); }, [](float v) { return v; }) / count;
  const Floats middle = floats(mean);
  const float square = row_sum<T>(
      x, a.columns,
      [&](Floats v, Floats sum) ALWAYS {
        const Floats off = subtract(v, middle);
        return fused(off, off, sum);
      },
      [&](float v) { return (v - mean) * (v - mean); });
  const Floats factor = floats(1.0f / __builtin_sqrtf(square / count + static_cast<float>(a.epsilon)));
  each_vector(a.columns, [&](int64_t i, auto there) {
    const Floats v = multiply(subtract(take<T>(x + i, there), middle), factor);
    const Floats w = take<T>(at<T>(a.weight, i), there);
    put<T>(y + i, there, a.bias ? fused(v, w, take<T>(at<T>(a.bias, i), there)) : multiply(v, w));
  });
}

inline int64_t layer_norm_pieces(const void* arguments) {
  const auto& a = *static_cast<const LayerNormArguments*>(arguments);
  return parts(a.rows, rows_a_piece(a.columns));
}

inline void layer_norm(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const LayerNormArguments*>(arguments);
  const int64_t each = rows_a_piece(a.columns);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    for (int64_t row = piece * each; row < least(a.rows, (piece + 1) * each); row++)
      layer_norm_row<T>(at<T>(a.x, row * a.x_stride), a, at<T>(a.y, row * a.columns));
  });
}

// --- sums

template <class T>
inline void add_row(const typename T::Stored* x, const typename T::Stored* y, int64_t count, typename T::Stored* sum) {
  each_vector(count, [&](int64_t i, auto there) {
    put<T>(sum + i, there, add(take<T>(x + i, there), take<T>(y + i, there)));
  });
}

inline int64_t add_norm_pieces(const void* arguments) {
  const auto& a = *static_cast<const AddNormArguments*>(arguments);
  return parts(a.rows, rows_a_piece(a.columns));
}

inline void add_norm(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const AddNormArguments*>(arguments);
  const int64_t each = rows_a_piece(a.columns);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    for (int64_t row = piece * each; row < least(a.rows, (piece + 1) * each); row++) {
      auto* sum = at<T>(a.sum, row * a.columns);
      add_row<T>(at<T>(a.x, row * a.x_stride), at<T>(a.y, row * a.y_stride), a.columns, sum);
      norm_row<T>(sum, a.columns, a.weight, a.epsilon, a.offset, at<T>(a.norm, row * a.columns));
    }
  });
}

inline int64_t add_pieces(const void* arguments) {
  const auto& a = *static_cast<const AddArguments*>(arguments);
  return span_pieces(a.rows, a.columns);
}

inline void add_rows(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const AddArguments*>(arguments);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    spans(a.rows, a.columns, piece, [&](int64_t row, int64_t first, int64_t count) {
      add_row<T>(at<T>(a.x, row * a.x_stride + first), at<T>(a.y, row * a.y_stride + first), count,
                 at<T>(a.sum, row * a.columns + first));
    });
  });
}

// --- gates

template <class T, int64_t A>
inline void gate_row(const typename T::Stored* gate, const typename T::Stored* up, int64_t count,
                     typename T::Stored* y) {
  each_vector(count, [&](int64_t i, auto there) {
    const Floats g = rounded<T>(activated<A>(take<T>(gate + i, there)));
    put<T>(y + i, there, multiply(g, take<T>(up + i, there)));
  });
}

inline int64_t gate_pieces(const void* arguments) {
  const auto& a = *static_cast<const GatedArguments*>(arguments);
  return span_pieces(a.rows, a.columns);
}

template <int64_t A> inline void gate_spans(const GatedArguments& a, int64_t piece) {
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    spans(a.rows, a.columns, piece, [&](int64_t row, int64_t first, int64_t count) {
      gate_row<T, A>(at<T>(a.gate, row * a.gate_stride + first), at<T>(a.up, row * a.up_stride + first), count,
                     at<T>(a.y, row * a.columns + first));
    });
  });
}

inline void gate(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const GatedArguments*>(arguments);
  switch (a.activation) {
    case SILU: return gate_spans<SILU>(a, piece);
    case GELU: return gate_spans<GELU>(a, piece);
    case GELU_TANH: return gate_spans<GELU_TANH>(a, piece);
    default: return gate_spans<RELU>(a, piece);
  }
}

// --- activations alone

inline int64_t activate_pieces(const void* arguments) {
  const auto& a = *static_cast<const ActivateArguments*>(arguments);
  return span_pieces(a.rows, a.columns);
}

template <int64_t A> inline void activate_spans(const ActivateArguments& a, int64_t piece) {
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    spans(a.rows, a.columns, piece, [&](int64_t row, int64_t first, int64_t count) {
      const auto* x = at<T>(a.x, row * a.x_stride + first);
      auto* y = at<T>(a.y, row * a.columns + first);
      each_vector(count, [&](int64_t i, auto there) { put<T>(y + i, there, activated<A>(take<T>(x + i, there))); });
    });
  });
}

inline void activate(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const ActivateArguments*>(arguments);
  switch (a.activation) {
    case SILU: return activate_spans<SILU>(a, piece);
    case GELU: return activate_spans<GELU>(a, piece);
    case GELU_TANH: return activate_spans<GELU_TANH>(a, piece);
    default: return activate_spans<RELU>(a, piece);
  }
}

// --- rotations (Su et al. 2021): each number times its cosine, plus the other of its pair times its sine

template <class T> inline Floats turned(Floats x, Floats other, Floats cosine, Floats sine) {
  return add(rounded<T>(multiply(x, cosine)), rounded<T>(multiply(other, sine)));
}

// Pairs of numbers that stand half the width apart.
template <class T, class S = typename T::Stored>
inline void rotate_halves(const S* x, const S* cosines, const S* sines, int64_t width, S* y) {
  const int64_t half = width / 2;
  each_vector(half, [&](int64_t i, auto there) {
    const int64_t j = half + i;
    const Floats a = take<T>(x + i, there), b = take<T>(x + j, there);
    put<T>(y + i, there, turned<T>(a, b, take<T>(cosines + i, there), take<T>(sines + i, there)));
    put<T>(y + j, there, turned<T>(b, a, take<T>(cosines + j, there), take<T>(sines + j, there)));
  });
}

template <class T, class S = typename T::Stored>
inline void rotate_neighbours(const S* x, const S* cosines, const S* sines, int64_t width, S* y) {
  each_vector(width, [&](int64_t i, auto there) {
    const Floats a = take<T>(x + i, there);
    put<T>(y + i, there, turned<T>(a, neighbours(a), take<T>(cosines + i, there), take<T>(sines + i, there)));
  });
}

inline int64_t tokens_a_piece(const RotateArguments& a) {
  return rows_a_piece((a.of[0].heads + (a.count > 1 ? a.of[1].heads : 0)) * a.dim);
}

inline int64_t rotate_pieces(const void* arguments) {
  const auto& a = *static_cast<const RotateArguments*>(arguments);
  return parts(a.tokens, tokens_a_piece(a));
}

inline void rotate(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const RotateArguments*>(arguments);
  const int64_t each = tokens_a_piece(a);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    for (int64_t token = piece * each; token < least(a.tokens, (piece + 1) * each); token++) {
      const auto *cosines = at<T>(a.cosines, token * a.cosine_stride), *sines = at<T>(a.sines, token * a.sine_stride);
      for (int64_t which = 0; which < a.count; which++) {
        const RotatedHeads& of = a.of[which];
        for (int64_t head = 0; head < of.heads; head++) {
          const auto* x = at<T>(of.x, token * of.token_stride + head * of.head_stride);
          auto* y = at<T>(of.y, (token * of.heads + head) * a.dim);
          if (a.interleaved)
            rotate_neighbours<T>(x, cosines, sines, a.width, y);
          else
            rotate_halves<T>(x, cosines, sines, a.width, y);
          if (x != y) std::memcpy(y + a.width, x + a.width, static_cast<size_t>(a.dim - a.width) * sizeof *y);
        }
      }
    }
  });
}

}  // namespace bestiary::ISA
