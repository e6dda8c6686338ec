// Memories of keys and values by slots: written, and read as float32.
#pragma once
#include "cache_arguments.h"
#include "vectors.h"

namespace bestiary::ISA {

constexpr int64_t LARGEST_GROUP = 64;

// A head's numbers in groups of equal, even size; where that does not come out, the last number is repeated.
struct HeadGroups {
  int64_t each, size;
  explicit HeadGroups(int64_t dim) : each(parts(dim, LARGEST_GROUP)), size(2 * parts(dim, 2 * each)) {}
  int64_t row() const { return each * size; }
};

// --- writing

// One group: x is code * scale, codes from -127 to 127, made with the scale as it is kept.
inline void encode_group(const float* x, int64_t size, int8_t* codes, uint16_t* scale) {
  Floats sizes = floats(0), none = floats(0);
  for (int64_t i = 0; i < size; i += LANES) {
    const Floats v = load_floats(x + i);
    sizes = larger(bits(both(bits(v), ints(0x7fffffff))), sizes);  // which loses what is no number
    none = add(none, multiply(v, floats(0)));
  }
  float most_of_all = greatest(sizes);
  if (total(none) != 0)  // NaN or infinity is there
    for (int64_t i = 0; i < size; i++)
      if (x[i] != x[i]) most_of_all = x[i];
  *scale = float_to_brain(most_of_all / 127.0f);
  const float kept = brain_to_float(*scale);
  const Floats divisor = floats(kept == 0 ? 1.0f : kept);
  int8_t made[LARGEST_GROUP + LANES];
  for (int64_t i = 0; i < size; i += LANES) {
    const Floats code = smaller(floats(127), larger(floats(-127), divide(load_floats(x + i), divisor)));
    // Adding 3 * 2^22 leaves no bits for a fraction, and so rounds to the nearest, ties to even.
    store8(made + i, bits(add(code, floats(12582912))));
  }
  std::memcpy(codes, made, static_cast<size_t>(size));
}

template <class T>
inline void encode_row(const typename T::Stored* x, int64_t heads, int64_t dim, int8_t* codes, uint16_t* scales) {
  const HeadGroups groups(dim);
  for (int64_t head = 0; head < heads; head++)
    for (int64_t g = 0; g < groups.each; g++) {
      float v[LARGEST_GROUP + LANES] = {};
      const int64_t first = g * groups.size, there = most(0, least(groups.size, dim - first));
      const auto* from = x + head * dim;
      for (int64_t i = 0; i < there; i += LANES) store(v + i, take<T>(from + first + i, there - i));
      for (int64_t i = there; i < groups.size; i++) v[i] = T::get(from[dim - 1]);
      for (int64_t i = groups.size; i < parts(groups.size, LANES) * LANES; i++) v[i] = 0;
      encode_group(v, groups.size, codes + head * groups.row() + first, scales + head * groups.each + g);
    }
}

constexpr int64_t TOKENS_A_PIECE = 4;

inline int64_t write_pieces(const void* arguments) {
  return parts(static_cast<const CacheWriteArguments*>(arguments)->tokens, TOKENS_A_PIECE);
}

inline void write_row(const CacheWriteArguments& a, const void* x, int64_t stride, const Memory& memory,
                      int64_t token) {
  if (!memory.data) return;
  const int64_t slot = a.slots[token];
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    const auto* from = at<T>(x, token * stride);
    if (a.form == INT8_GROUPS)
      encode_row<T>(from, a.heads, a.dim, static_cast<int8_t*>(memory.data) + slot * memory.stride,
                    static_cast<uint16_t*>(memory.scales) + slot * memory.scale_stride);
    else
      with_type(a.form, [&](auto form) {
        using M = decltype(form);
        auto* to = at<M>(memory.data, slot * memory.stride);
        const int64_t count = a.heads * a.dim;
        for (int64_t i = 0; i < count; i += LANES) put<M>(to + i, count - i, take<T>(from + i, count - i));
      });
  });
}

inline void write_tokens(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const CacheWriteArguments*>(arguments);
  for (int64_t token = piece * TOKENS_A_PIECE; token < least(a.tokens, (piece + 1) * TOKENS_A_PIECE); token++) {
    write_row(a, a.keys, a.key_stride, a.key_memory, token);
    write_row(a, a.values, a.value_stride, a.value_memory, token);
  }
}

// --- reading

// Where one head's numbers of a slot begin.
template <class T>
inline const typename T::Stored* head_at(const Memory& memory, int64_t slot, int64_t head, int64_t dim) {
  return at<T>(static_cast<const void*>(memory.data), slot * memory.stride + head * dim);
}

inline void prefetch_head(const Memory& memory, int64_t form, int64_t slot, int64_t head, int64_t dim) {
  const int64_t width = form == INT8_GROUPS ? 1 : form == F32 ? 4 : 2;
  const char* start = static_cast<const char*>(memory.data) + (slot * memory.stride + head * dim) * width;
  for (int64_t i = 0; i < dim * width; i += 64) prefetch(start + i);
}

// One head of a slot, and zeros up to `width`, a multiple of LANES; y may be written up to LANES numbers further.
inline void read_head(const Memory& memory, int64_t form, int64_t slot, int64_t head, int64_t dim, int64_t width,
                      float* y) {
  if (form != INT8_GROUPS) {
    with_type(form, [&](auto type) {
      using T = decltype(type);
      const auto* x = head_at<T>(memory, slot, head, dim);
      for (int64_t i = 0; i < width; i += LANES) store(y + i, take<T>(x + i, most(0, dim - i)));
    });
    return;
  }
  const HeadGroups groups(dim);
  const int8_t* codes = static_cast<const int8_t*>(memory.data) + slot * memory.stride + head * groups.row();
  const uint16_t* scales =
      static_cast<const uint16_t*>(memory.scales) + slot * memory.scale_stride + head * groups.each;
  for (int64_t g = 0; g < groups.each; g++) {
    const float scale = brain_to_float(scales[g]);
    const int64_t first = g * groups.size, there = most(0, least(groups.size, dim - first));
    int64_t i = 0;
    for (; i + LANES <= there; i += LANES)
      store(y + first + i, multiply(numbers(signed8(codes + first + i)), floats(scale)));
    for (; i < there; i++) y[first + i] = static_cast<float>(codes[first + i]) * scale;
  }
  for (int64_t i = dim; i < width; i++) y[i] = 0;
}

}  // namespace bestiary::ISA
