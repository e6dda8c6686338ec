// What writing and reading memories of keys and values is given.  Every field takes 8 bytes; strides count numbers.
#pragma once
#include <cstdint>

namespace bestiary {

// How a token's heads lie in memory: as numbers of a type, by its number; or as codes of 8 bits, in groups that have a
// scale each, as `bestiary.generation.engine.packed_memory.Int8` has them.
enum CacheForm : int64_t { INT8_GROUPS = 3 };

struct Memory {
  void* data;      // [slots, row]; null: there is none
  int64_t stride;  // from a slot to the next
  void* scales;    // of groups: bfloat16 [slots, heads * groups of a head]
  int64_t scale_stride;
};

struct CacheWriteArguments {
  const void *keys, *values;  // [tokens, heads * dim]
  int64_t type, key_stride, value_stride, tokens, heads, dim;
  int64_t form;
  const int64_t* slots;  // [tokens]
  Memory key_memory, value_memory;
};

struct AttentionArguments {
  const void* q;  // [T, heads, dim]
  int64_t type, token_stride, head_stride, heads, kv_heads, dim;
  int64_t form;
  Memory keys, values;
  const int64_t* rows;     // [sequences]: the first row of each in q and y; null: one after another
  const int64_t* seen;     // [sequences, seen_stride]: the slots that each one's last query sees, in order
  const int64_t* lengths;  // [sequences]: how many of them are real
  int64_t sequences, seen_stride, count;  // count: new tokens of each sequence
  int64_t window;                         // 0: none
  double scale, softcap;                  // softcap 0: none
  const void* sinks;                      // [heads], or null
  int64_t sinks_type;
  void* y;  // [T, heads, dim], heads beside each other
  int64_t y_stride;
  float* scratch;       // see attention.h
  int64_t areas, area;  // how many threads have room in it, and the numbers of each
};

}  // namespace bestiary
