// Tensors of plain numbers, whatever their type: read and written through float32.
#pragma once
#include "numbers.h"

namespace bestiary::ISA {

// Calls f with the type's own reader and writer.
template <class F> inline void with_type(int64_t type, F&& f) {
  switch (type) {
    case F32: return f(Float32{});
    case BF16: return f(Brain16{});
    default: return f(Half16{});
  }
}

template <class T> inline const typename T::Stored* at(const void* p, int64_t i) {
  return static_cast<const typename T::Stored*>(p) + i;
}
template <class T> inline typename T::Stored* at(void* p, int64_t i) { return static_cast<typename T::Stored*>(p) + i; }

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

}  // namespace bestiary::ISA
