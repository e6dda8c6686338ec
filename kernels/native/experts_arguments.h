// What a layer of experts is given.  Every field takes 8 bytes; strides count numbers.
#pragma once
#include <cstdint>

namespace bestiary {

// The weights [rows, columns] of all experts, one after another.
struct ExpertStack {
  const void* data;  // whole panels for each expert, or numbers row by row
  int64_t packed;    // whether they are panels
  int64_t type, rows, columns, group;
};

struct ExpertsArguments {
  const void* x;  // [tokens, columns]
  int64_t type, x_stride, tokens, columns, hidden;
  const int64_t* indices;  // [tokens, chosen]: the experts of each token
  const void* weights;     // [tokens, chosen], of the type of x
  int64_t chosen, count, activation;
  ExpertStack gate, up, down;
  // Scratch memory: 3 * count + 2 * slots + 2 whole numbers, where slots = tokens * chosen; the prepared inputs of the
  // products, as each asks for them, for slots rows; and rows of the type of x.
  int64_t* order;
  void *prepared, *prepared_hidden;
  void *gates, *ups, *made;  // [slots, hidden] twice, [slots, columns]
  void* y;                   // [tokens, columns]
};

}  // namespace bestiary
