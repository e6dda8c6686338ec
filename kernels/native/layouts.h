// Where the words, halves and bytes of a block lie in a panel of 16 rows.
//
// A panel has the bytes of its rows, no more and no fewer.  Each field of a block stands in it once for each row: word 0
// of all 16 rows, word 1 of all rows, and so on; then halves and bytes likewise.
#pragma once
#include <cstdint>

namespace bestiary::ISA {

constexpr int PANEL = 16;  // rows

enum WeightType : int32_t {
  TYPE_Q4_0, TYPE_Q4_1, TYPE_Q5_0, TYPE_Q5_1, TYPE_Q8_0, TYPE_Q2_K, TYPE_Q3_K, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K,
  TYPE_IQ4_NL, TYPE_IQ4_XS, TYPE_MXFP4, TYPE_INT8, TYPE_INT4, WEIGHT_TYPES
};

struct Field {
  int16_t from;   // byte in a block of a row
  int16_t width;  // bytes of an item
  int16_t count;  // items
};

struct Layout {
  int16_t columns, bytes;  // of a block of a row
  int16_t head;            // bytes of a panel before its blocks, for each row
  Field fields[4];
};

// Blocks as ggml-common.h of https://github.com/ggml-org/ggml has them; INT8 and INT4 are rows of codes, 32 columns each.
constexpr Layout LAYOUTS[WEIGHT_TYPES] = {
    {32, 18, 0, {{2, 4, 4}, {0, 2, 1}}},                                  // Q4_0: d, qs
    {32, 20, 0, {{4, 4, 4}, {0, 2, 2}}},                                  // Q4_1: d, m, qs
    {32, 22, 0, {{6, 4, 4}, {2, 4, 1}, {0, 2, 1}}},                       // Q5_0: d, qh, qs
    {32, 24, 0, {{8, 4, 4}, {4, 4, 1}, {0, 2, 2}}},                       // Q5_1: d, m, qh, qs
    {32, 34, 0, {{2, 4, 8}, {0, 2, 1}}},                                  // Q8_0: d, qs
    {256, 84, 0, {{16, 4, 16}, {0, 4, 4}, {80, 2, 2}}},                   // Q2_K: scales, qs, d, dmin
    {256, 110, 0, {{0, 4, 8}, {32, 4, 16}, {96, 4, 3}, {108, 2, 1}}},     // Q3_K: hmask, qs, scales, d
    {256, 144, 0, {{16, 4, 32}, {4, 4, 3}, {0, 2, 2}}},                   // Q4_K: d, dmin, scales, qs
    {256, 176, 0, {{48, 4, 32}, {16, 4, 8}, {4, 4, 3}, {0, 2, 2}}},       // Q5_K: d, dmin, scales, qh, qs
    {256, 210, 0, {{0, 4, 32}, {128, 4, 16}, {208, 2, 1}, {192, 1, 16}}}, // Q6_K: ql, qh, scales, d
    {32, 18, 0, {{2, 4, 4}, {0, 2, 1}}},                                  // IQ4_NL: d, qs
    {256, 136, 0, {{8, 4, 32}, {4, 4, 1}, {0, 2, 2}}},                    // IQ4_XS: d, scales_h, scales_l, qs
    {32, 17, 0, {{1, 4, 4}, {0, 1, 1}}},                                  // MXFP4: e, qs
    {32, 32, 4, {{0, 4, 8}}},                                             // INT8: a scale before the codes of each row
    {32, 16, 0, {{0, 4, 4}}},                                             // INT4: scales and addends behind all codes
};

// Bytes of a panel; `group` columns of INT4 share a scale and an addend.
inline int64_t panel_bytes(int32_t type, int64_t columns, int64_t group) {
  const Layout& layout = LAYOUTS[type];
  const int64_t blocks = columns / layout.columns;
  return PANEL * (layout.head + blocks * layout.bytes + (type == TYPE_INT4 ? columns / group * 8 : 0));
}

}  // namespace bestiary::ISA
