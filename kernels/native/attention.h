// Attention over memories by slots: one new token of each sequence, or more.
#pragma once
#include "attention_decode.h"
#include "attention_prefill.h"

namespace bestiary::ISA {

inline int64_t attention_pieces(const void* arguments) {
  const auto& a = *static_cast<const AttentionArguments*>(arguments);
  return a.count == 1 ? decode_pieces(a) : prefill_pieces(a);
}

inline void attend(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const AttentionArguments*>(arguments);
  return a.count == 1 ? decode(a, piece) : prefill(a, piece);
}

inline int64_t gathering_pieces(const void* arguments) {
  const auto& a = *static_cast<const AttentionArguments*>(arguments);
  return a.count == 1 ? gather_pieces(a) : 0;
}

inline void gather_parts(const void* arguments, int64_t piece) {
  gather(*static_cast<const AttentionArguments*>(arguments), piece);
}

}  // namespace bestiary::ISA
