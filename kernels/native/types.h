// How each packed type is unpacked from a panel: 32 columns of LANES rows at a time, as bytes and their scales.
//
// A panel holds 16 rows.  Every 4-byte word of a row's block stands beside the same word of the other rows (64 bytes),
// and likewise halves and bytes, in the order that layouts.h gives; so a lane of a vector is a row, and nothing is summed
// across lanes.  The formulas are those of ggml's blocks (ggml-common.h, ggml-quants.c of https://github.com/ggml-org/ggml),
// GPTQ, AWQ and OCP MX.
//
// A decoder has
//   COLUMNS  of a block, WORDS of 64 bytes and BYTES of its 16 rows in a panel
//   SIGNED   whether bytes are signed; if not, LIMIT is the greatest, and OFFSET is what is to be taken off each
//   HALVES   scales for 32 columns: 1, or 2 where each 16 columns have their own
//   ADDS     whether numbers are scale * byte + addend
// and a constructor (panel, block, lane), and words<S>(w), scale<S>(half), addend<S>(half) for the S-th 32 columns.
#pragma once
#include "inline.h"

namespace bestiary::ISA {

struct Panel {
  const uint8_t* data;
  int64_t blocks;  // of a row
  int32_t group;   // columns of a scale, where the type does not say it
};

inline Ints nibbles(Ints w) { return both(w, bytes(15)); }
inline Ints high_nibbles(Ints w) { return nibbles(right<4>(w)); }

// The words of 32 columns of which the low nibbles are the first 16 and the high ones the last 16.
ALWAYS_INLINE void split_nibbles(const uint8_t* p, Ints* w) {
  for (int i = 0; i < 4; i++) {
    const Ints x = load(p + 64 * i);
    w[i] = nibbles(x);
    w[4 + i] = high_nibbles(x);
  }
}

// Bits 0 to 3 of a word, each into the lowest bit of a byte.
ALWAYS_INLINE Ints spread(Ints x) { return both(multiply(nibbles(both(x, ints(15))), ints(0x00204081)), bytes(1)); }

template <int I> struct Index {
  static constexpr int value = I;
};
template <int N, class F> ALWAYS_INLINE void unroll(F&& f) {
  if constexpr (N > 0) {
    unroll<N - 1>(f);
    f(Index<N - 1>{});
  }
}

// Byte I of every lane, unsigned.
template <int I> ALWAYS_INLINE Ints byte_of(Ints x) { return both(right<8 * I>(x), ints(255)); }

// Bits of every byte, moved N places to the right, or to the left where N is negative, to where `mask` has them.
template <int N> ALWAYS_INLINE Ints picked(Ints x, int8_t mask) {
  if constexpr (N > 0) x = right<N>(x);
  if constexpr (N < 0) x = left<-N>(x);
  return both(x, bytes(mask));
}

struct Simple {  // what blocks of 32 columns share
  static constexpr int COLUMNS = 32, HALVES = 1, OFFSET = 0, LIMIT = 15;
  static constexpr bool SIGNED = false, ADDS = false;
};

struct Q4_0 : Simple {
  static constexpr int BYTES = 16 * 18, OFFSET = 8;
  const uint8_t* p;
  Floats d;
  Q4_0(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4), d(halves(panel.data + block * BYTES + 256 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const { split_nibbles(p, w); }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
};

struct Q4_1 : Simple {
  static constexpr int BYTES = 16 * 20;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  Floats d, m;
  Q4_1(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4),
        d(halves(panel.data + block * BYTES + 256 + lane * 2)),
        m(halves(panel.data + block * BYTES + 288 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const { split_nibbles(p, w); }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
  template <int S> ALWAYS_INLINE Floats addend(int) const { return m; }
};

// Adds the fifth bits, of which `h` has one for each of the 32 columns.
ALWAYS_INLINE void add_fifth(Ints h, Ints* w) {
  unroll<8>([&](auto i) { w[i.value] = either(w[i.value], left<4>(spread(right<4 * i.value>(h)))); });
}

struct Q5_0 : Simple {
  static constexpr int BYTES = 16 * 22, OFFSET = 16, LIMIT = 31;
  const uint8_t* p;
  Floats d;
  Q5_0(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4), d(halves(panel.data + block * BYTES + 320 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    split_nibbles(p, w);
    add_fifth(load(p + 256), w);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
};

struct Q5_1 : Simple {
  static constexpr int BYTES = 16 * 24, LIMIT = 31;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  Floats d, m;
  Q5_1(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4),
        d(halves(panel.data + block * BYTES + 320 + lane * 2)),
        m(halves(panel.data + block * BYTES + 352 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    split_nibbles(p, w);
    add_fifth(load(p + 256), w);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
  template <int S> ALWAYS_INLINE Floats addend(int) const { return m; }
};

struct Q8_0 : Simple {
  static constexpr int BYTES = 16 * 34;
  static constexpr bool SIGNED = true;
  const uint8_t* p;
  Floats d;
  Q8_0(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4), d(halves(panel.data + block * BYTES + 512 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    for (int i = 0; i < 8; i++) w[i] = load(p + 64 * i);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
};

struct Super {  // what blocks of 256 columns share
  static constexpr int COLUMNS = 256, HALVES = 1, OFFSET = 0, LIMIT = 15;
  static constexpr bool SIGNED = false, ADDS = false;
};

// The S-th 32 columns of two bits each: four of them share 8 words.
template <int S> ALWAYS_INLINE void two_bits(const uint8_t* p, Ints* w) {
  for (int i = 0; i < 8; i++) w[i] = picked<2 * (S % 4)>(load(p + 64 * (8 * (S / 4) + i)), 3);
}

struct Q2_K : Super {
  static constexpr int BYTES = 16 * 84, HALVES = 2, LIMIT = 3;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  Floats d, least;
  Ints scales[4];
  Q2_K(const Panel& panel, int64_t block, int lane) : p(panel.data + block * BYTES + lane * 4) {
    for (int i = 0; i < 4; i++) scales[i] = load(p + 64 * (16 + i));
    const uint8_t* h = panel.data + block * BYTES + 64 * 20 + lane * 2;
    d = halves(h);
    least = multiply(halves(h + 32), floats(-1));
  }
  template <int S> ALWAYS_INLINE void words(Ints* w) const { two_bits<S>(p, w); }
  template <int S> ALWAYS_INLINE Ints entry(int half) const {
    return half ? byte_of<(2 * S + 1) % 4>(scales[S / 2]) : byte_of<2 * S % 4>(scales[S / 2]);
  }
  template <int S> ALWAYS_INLINE Floats scale(int half) const { return multiply(d, numbers(both(entry<S>(half), ints(15)))); }
  template <int S> ALWAYS_INLINE Floats addend(int half) const { return multiply(least, numbers(right<4>(entry<S>(half)))); }
};

struct Q3_K : Super {
  static constexpr int BYTES = 16 * 110, HALVES = 2, LIMIT = 7, OFFSET = 4;
  const uint8_t* p;
  Floats d;
  Ints scales[4];
  Q3_K(const Panel& panel, int64_t block, int lane) : p(panel.data + block * BYTES + lane * 4) {
    const Ints a = load(p + 64 * 24), b = load(p + 64 * 25), c = load(p + 64 * 26);
    const Ints three = bytes(3);
    scales[0] = either(nibbles(a), left<4>(both(c, three)));
    scales[1] = either(nibbles(b), left<4>(both(right<2>(c), three)));
    scales[2] = either(high_nibbles(a), left<4>(both(right<4>(c), three)));
    scales[3] = either(high_nibbles(b), left<4>(both(right<6>(c), three)));
    d = halves(panel.data + block * BYTES + 64 * 27 + lane * 2);
  }
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    two_bits<S>(p + 64 * 8, w);
    for (int i = 0; i < 8; i++) w[i] = either(w[i], picked<S - 2>(load(p + 64 * i), 4));
  }
  template <int S> ALWAYS_INLINE Floats scale(int half) const {
    const Ints x = half ? byte_of<(2 * S + 1) % 4>(scales[S / 2]) : byte_of<2 * S % 4>(scales[S / 2]);
    return multiply(d, numbers(subtract(x, ints(32))));
  }
};

// Scales and minima of Q4_K and Q5_K: eight of six bits each, in three words.
struct SixBits {
  Floats d, least;
  Ints scales[2], minima[2];
  SixBits(const uint8_t* words, const uint8_t* h) {
    const Ints a = load(words), b = load(words + 64), c = load(words + 128);
    const Ints six = bytes(63), top = bytes(48);
    scales[0] = both(a, six);
    scales[1] = either(nibbles(c), both(right<2>(a), top));
    minima[0] = both(b, six);
    minima[1] = either(high_nibbles(c), both(right<2>(b), top));
    d = halves(h);
    least = multiply(halves(h + 32), floats(-1));
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return multiply(d, numbers(byte_of<S % 4>(scales[S / 4]))); }
  template <int S> ALWAYS_INLINE Floats addend(int) const { return multiply(least, numbers(byte_of<S % 4>(minima[S / 4]))); }
};

// The S-th 32 columns of four bits each: two of them share 8 words.
template <int S> ALWAYS_INLINE void four_bits(const uint8_t* p, Ints* w) {
  for (int i = 0; i < 8; i++) w[i] = picked<4 * (S % 2)>(load(p + 64 * (8 * (S / 2) + i)), 15);
}

struct Q4_K : Super, SixBits {
  static constexpr int BYTES = 16 * 144;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  Q4_K(const Panel& panel, int64_t block, int lane)
      : SixBits(panel.data + block * BYTES + 64 * 32 + lane * 4, panel.data + block * BYTES + 64 * 35 + lane * 2),
        p(panel.data + block * BYTES + lane * 4) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const { four_bits<S>(p, w); }
};

struct Q5_K : Super, SixBits {
  static constexpr int BYTES = 16 * 176, LIMIT = 31;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  Q5_K(const Panel& panel, int64_t block, int lane)
      : SixBits(panel.data + block * BYTES + 64 * 40 + lane * 4, panel.data + block * BYTES + 64 * 43 + lane * 2),
        p(panel.data + block * BYTES + lane * 4) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    four_bits<S>(p, w);
    for (int i = 0; i < 8; i++) w[i] = either(w[i], picked<S - 4>(load(p + 64 * (32 + i)), 16));
  }
};

struct Q6_K : Super {
  static constexpr int BYTES = 16 * 210, HALVES = 2, LIMIT = 63, OFFSET = 32;
  const uint8_t *p, *scales;
  Floats d;
  Q6_K(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4),
        scales(panel.data + block * BYTES + 64 * 48 + 32 + lane),
        d(halves(panel.data + block * BYTES + 64 * 48 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    constexpr int HIGH = S / 4, QUARTER = S % 4;  // of 128 columns
    for (int i = 0; i < 8; i++) {
      const Ints low = picked<QUARTER & 2 ? 4 : 0>(load(p + 64 * (16 * HIGH + 8 * (QUARTER & 1) + i)), 15);
      w[i] = either(low, picked<2 * QUARTER - 4>(load(p + 64 * (32 + 8 * HIGH + i)), 48));
    }
  }
  template <int S> ALWAYS_INLINE Floats scale(int half) const { return multiply(d, numbers(signed8(scales + 16 * (2 * S + half)))); }
};

alignas(16) constexpr int8_t IQ4_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL : Q4_0 {
  static constexpr int OFFSET = 0;
  static constexpr bool SIGNED = true;
  using Q4_0::Q4_0;
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    split_nibbles(p, w);
    for (int i = 0; i < 8; i++) w[i] = lookup(IQ4_VALUES, w[i]);
  }
};

struct IQ4_XS : Super {
  static constexpr int BYTES = 16 * 136;
  static constexpr bool SIGNED = true;
  const uint8_t* p;
  Floats d;
  Ints low, high;
  IQ4_XS(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4),
        d(halves(panel.data + block * BYTES + 64 * 33 + lane * 2)),
        low(load(p + 64 * 32)),
        high(words16(panel.data + block * BYTES + 64 * 33 + 32 + lane * 2)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    split_nibbles(p + 64 * 4 * S, w);
    for (int i = 0; i < 8; i++) w[i] = lookup(IQ4_VALUES, w[i]);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const {
    const Ints x = either(both(right<4 * S>(low), ints(15)), left<4>(both(right<2 * S>(high), ints(3))));
    return multiply(d, numbers(subtract(x, ints(32))));
  }
};

// Twice the values of E2M1, and 12 more, so that they are not negative.
alignas(16) constexpr int8_t E2M1_VALUES[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

struct MXFP4 : Simple {
  static constexpr int BYTES = 16 * 17, OFFSET = 12, LIMIT = 24;
  const uint8_t* p;
  Floats d;
  MXFP4(const Panel& panel, int64_t block, int lane) : p(panel.data + block * BYTES + lane * 4) {
    // 2^(e - 128), of which the two smallest are subnormal.
    const Ints e = unsigned8(panel.data + block * BYTES + 256 + lane);
    const Ints small = choose(greater(e, ints(0)), ints(0x00400000), ints(0x00200000));
    d = bits(choose(greater(e, ints(1)), left<23>(subtract(e, ints(1))), small));
  }
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    split_nibbles(p, w);
    for (int i = 0; i < 8; i++) w[i] = lookup(E2M1_VALUES, w[i]);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
};

// One scale a row, before the words of the panel.
struct INT8 : Simple {
  static constexpr int BYTES = 16 * 32;
  static constexpr bool SIGNED = true;
  const uint8_t* p;
  Floats d;
  INT8(const Panel& panel, int64_t block, int lane)
      : p(panel.data + 64 + block * BYTES + lane * 4),
        d(load_floats(reinterpret_cast<const float*>(panel.data) + lane)) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const {
    for (int i = 0; i < 8; i++) w[i] = load(p + 64 * i);
  }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return d; }
};

// Codes of four bits as in Q4_1; scale and addend of each group of columns, float32, behind the words of the panel.
struct INT4 : Simple {
  static constexpr int BYTES = 16 * 16;
  static constexpr bool ADDS = true;
  const uint8_t* p;
  const float* s;
  INT4(const Panel& panel, int64_t block, int lane)
      : p(panel.data + block * BYTES + lane * 4),
        s(reinterpret_cast<const float*>(panel.data + panel.blocks * BYTES) + block * 32 / panel.group * 32 + lane) {}
  template <int S> ALWAYS_INLINE void words(Ints* w) const { split_nibbles(p, w); }
  template <int S> ALWAYS_INLINE Floats scale(int) const { return load_floats(s); }
  template <int S> ALWAYS_INLINE Floats addend(int) const { return load_floats(s + 16); }
};

}  // namespace bestiary::ISA
