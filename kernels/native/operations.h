// The operations that a list may hold, and how each is cut into pieces of work.
#pragma once
#include <cstdint>

namespace bestiary {

enum OperationNumber : int64_t {
  PACK, UNPACK, ROWS, LINEAR, PLAIN_LINEAR,
  RMS_NORM, ADD_RMS_NORM, ADD, GATED, ROTATE, CACHE_WRITE, ATTENTION, EXPERTS, RESIZE,
  LAYER_NORM, ACTIVATE,
  OPERATIONS
};

// Pieces of a step may run at once, in any order; a step begins when the one before it is done.
struct Step {
  int64_t (*pieces)(const void* arguments);
  void (*run)(const void* arguments, int64_t piece);
};

struct Operation {
  Step steps[6];
  int count;
};

using Operations = const Operation*;  // [OPERATIONS]

}  // namespace bestiary
