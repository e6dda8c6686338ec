// What the operations on single numbers and rows are given.  Every field takes 8 bytes; strides count numbers.
#pragma once
#include <cstdint>

namespace bestiary {

struct NormArguments {
  // Row r of x is at r / inner * outer_stride + r % inner * inner_stride, so that x may be heads of tokens.
  const void* x;
  int64_t type, rows, columns, inner, outer_stride, inner_stride;
  const void* weight;  // of the type of x
  double epsilon, offset;
  void* y;  // rows beside each other
};

struct LayerNormArguments {
  const void* x;
  int64_t type, rows, columns, x_stride;
  const void *weight, *bias;  // of the type of x; the bias may be absent
  double epsilon;
  void* y;  // rows beside each other
};

struct AddNormArguments {
  const void *x, *y;
  int64_t type, rows, columns, x_stride, y_stride;
  const void* weight;
  double epsilon, offset;
  void *sum, *norm;  // rows beside each other; the sum may be x or y itself
};

struct AddArguments {
  const void *x, *y;
  int64_t type, rows, columns, x_stride, y_stride;
  void* sum;  // rows beside each other; may be x or y itself
};

struct GatedArguments {
  const void *gate, *up;
  int64_t type, rows, columns, gate_stride, up_stride, activation;
  void* y;  // rows beside each other
};

struct ActivateArguments {
  const void* x;
  int64_t type, rows, columns, x_stride, activation;
  void* y;  // rows beside each other
};

struct RotatedHeads {
  const void* x;
  int64_t heads, token_stride, head_stride;
  void* y;  // [tokens, heads, dim], beside each other; may be x itself where x is so too
};

struct RotateArguments {
  int64_t type, tokens, dim;
  const void *cosines, *sines;  // [tokens, width] of the same type, the sines negative at the first of a pair
  int64_t width, cosine_stride, sine_stride, interleaved, count;
  RotatedHeads of[2];
};

}  // namespace bestiary
