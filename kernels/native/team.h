// Threads that help a caller through a list of operations.
#pragma once
#include <cstdint>

#include "operations.h"

namespace bestiary {

struct Call {
  int64_t operation;
  const void* arguments;
};

// Runs the calls one after another, each by up to `threads` threads, the caller among them.
//
// The caller never waits for a helper that has not begun a piece of work: where the machine is busy, it does all itself.
// While one thread has the helpers, others run alone.  After a fork the child starts helpers of its own.
void run(Operations operations, const Call* calls, int64_t count, int threads);

}  // namespace bestiary
