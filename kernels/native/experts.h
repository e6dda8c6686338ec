// A layer of gated experts (Shazeer et al. 2017): rows are sorted by expert, so that each weight is read once.
#pragma once
#include "experts_arguments.h"
#include "linear.h"
#include "plain_linear.h"
#include "pointwise.h"
#include "quantize.h"

namespace bestiary::ISA {

// Slots, a token's choices one after another, in the order of their experts.
struct Order {
  int64_t *starts, *slots, *places, *busy, *next;  // [count + 1], [slots], [slots], [1 + count], [count]
};

inline Order order_of(const ExpertsArguments& a) {
  const int64_t slots = a.tokens * a.chosen;
  int64_t* p = a.order;
  return {p, p + a.count + 1, p + a.count + 1 + slots, p + a.count + 1 + 2 * slots, p + 2 * a.count + 2 + 2 * slots};
}

inline int64_t one_sorting(const void*) { return 1; }

// Counts and sorts; tokens of an expert stay in their order.
inline void sort_slots(const void* arguments, int64_t) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const Order order = order_of(a);
  const int64_t slots = a.tokens * a.chosen;
  for (int64_t e = 0; e <= a.count; e++) order.starts[e] = 0;
  for (int64_t s = 0; s < slots; s++) order.starts[a.indices[s] + 1]++;
  order.busy[0] = 0;
  for (int64_t e = 0; e < a.count; e++) {
    if (order.starts[e + 1] > 0) order.busy[++order.busy[0]] = e;
    order.starts[e + 1] += order.starts[e];
    order.next[e] = order.starts[e];
  }
  for (int64_t s = 0; s < slots; s++) {
    const int64_t place = order.next[a.indices[s]]++;
    order.slots[place] = s;
    order.places[s] = place;
  }
}

// --- one row as a product asks for it: int8 with scales, or float32

inline int64_t prepared_bytes(const ExpertStack& w) {
  return w.packed ? activation_bytes(w.columns) : w.columns * static_cast<int64_t>(sizeof(float));
}

// The rows of one expert, behind `first` of others.
inline Input input_of(const ExpertStack& w, void* memory, int64_t first, int64_t count) {
  return {static_cast<float*>(memory) + first * w.columns, count, w.columns, count <= FEW && w.type == BF16};
}

template <class T>
inline void prepare_row(const ExpertStack& w, const typename T::Stored* x, void* memory, int64_t first, int64_t count, int64_t row) {
  if (!w.packed) return input_of(w, memory, first, count).template put<T>(row, x);
  char* start = static_cast<char*>(memory) + first * prepared_bytes(w);
  const Tile tile = tile_at(start, w.columns, count, row / TILE * TILE);
  for (int64_t g = 0; g < parts(w.columns, GROUP); g++) {
    quantize_group<T>(x + g * GROUP, w.columns - g * GROUP, tile, g * tile.m + row % TILE);
  }
}

inline int64_t slot_pieces(const void* arguments) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  return a.tokens * a.chosen;
}

inline void prepare_slot(const void* arguments, int64_t place) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const Order order = order_of(a);
  const int64_t slot = order.slots[place], expert = a.indices[slot], first = order.starts[expert];
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    prepare_row<T>(a.gate, at<T>(a.x, slot / a.chosen * a.x_stride), a.prepared, first, order.starts[expert + 1] - first, place - first);
  });
}

// --- products of the rows of one expert

inline int64_t bytes_of(int64_t type) { return type == F32 ? 4 : 2; }

// Rows of a piece of one weight: all experts are cut alike, whatever the number of their rows.
inline int64_t stack_piece(const ExpertStack& w) {
  if (w.packed) return panels_a_piece({nullptr, w.type, w.rows, w.group, nullptr, 0, nullptr}, w.columns) * PANEL;
  return SIDE;
}
inline int64_t stack_pieces(const ExpertStack& w) { return parts(w.rows, stack_piece(w)); }

inline void multiply_expert(const ExpertsArguments& a, const ExpertStack& w, void* prepared, void* y, int64_t expert, int64_t piece) {
  const Order order = order_of(a);
  const int64_t first = order.starts[expert], rows = order.starts[expert + 1] - first;
  const int64_t each = stack_piece(w);
  void* target = static_cast<char*>(y) + first * w.rows * bytes_of(a.type);
  if (w.packed) {
    const int64_t stride = w.rows / PANEL * panel_bytes(static_cast<int32_t>(w.type), w.columns, w.group);
    const PanelWeight weight{static_cast<const uint8_t*>(w.data) + expert * stride, w.type, w.rows, w.group, target, w.rows, nullptr};
    LinearArguments one{};
    one.rows = rows, one.columns = w.columns, one.scratch = static_cast<char*>(prepared) + first * prepared_bytes(w), one.y_type = a.type;
    multiply_some(one, weight, piece * each / PANEL, least(w.rows, (piece + 1) * each) / PANEL);
    return;
  }
  const int64_t stride = w.rows * w.columns * row_bytes(w.type);
  const PlainWeight weight{static_cast<const uint8_t*>(w.data) + expert * stride, w.type, w.rows, w.columns, nullptr, 1, 1, target, w.rows, nullptr};
  multiply_plain_some(input_of(w, prepared, first, rows), weight, a.type, piece * each, least(w.rows, (piece + 1) * each));
}

// Only experts that were chosen have pieces.
inline int64_t gate_up_pieces(const void* arguments) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  return order_of(a).busy[0] * (stack_pieces(a.gate) + stack_pieces(a.up));
}

inline void multiply_gate_up(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const int64_t gates = stack_pieces(a.gate), each = gates + stack_pieces(a.up);
  const int64_t expert = order_of(a).busy[1 + piece / each], part = piece % each;
  if (part < gates)
    multiply_expert(a, a.gate, a.prepared, a.gates, expert, part);
  else
    multiply_expert(a, a.up, a.prepared, a.ups, expert, part - gates);
}

inline void gate_slot(const void* arguments, int64_t place) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const Order order = order_of(a);
  const int64_t expert = a.indices[order.slots[place]], first = order.starts[expert];
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    auto* gates = at<T>(a.gates, place * a.hidden);
    const auto* ups = at<T>(const_cast<const void*>(a.ups), place * a.hidden);
    switch (a.activation) {
      case SILU: gate_row<T, SILU>(gates, ups, a.hidden, gates); break;
      case GELU: gate_row<T, GELU>(gates, ups, a.hidden, gates); break;
      case GELU_TANH: gate_row<T, GELU_TANH>(gates, ups, a.hidden, gates); break;
      default: gate_row<T, RELU>(gates, ups, a.hidden, gates);
    }
    prepare_row<T>(a.down, gates, a.prepared_hidden, first, order.starts[expert + 1] - first, place - first);
  });
}

inline int64_t down_pieces(const void* arguments) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  return order_of(a).busy[0] * stack_pieces(a.down);
}

inline void multiply_down(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const int64_t each = stack_pieces(a.down);
  multiply_expert(a, a.down, a.prepared_hidden, a.made, order_of(a).busy[1 + piece / each], piece % each);
}

// Each token's choices, weighed and rounded, and summed in float32 in their order.
inline int64_t token_pieces(const void* arguments) { return static_cast<const ExpertsArguments*>(arguments)->tokens; }

inline void sum_choices(const void* arguments, int64_t token) {
  const auto& a = *static_cast<const ExpertsArguments*>(arguments);
  const Order order = order_of(a);
  with_type(a.type, [&](auto type) {
    using T = decltype(type);
    auto* y = at<T>(a.y, token * a.columns);
    for (int64_t i = 0; i < a.columns; i++) {
      float sum = 0;
      for (int64_t k = 0; k < a.chosen; k++) {
        const int64_t slot = token * a.chosen + k;
        const float made = T::get(*at<T>(const_cast<const void*>(a.made), order.places[slot] * a.columns + i));
        sum += T::get(T::put(made * T::get(*at<T>(a.weights, slot))));
      }
      y[i] = T::put(sum);
    }
  });
}

}  // namespace bestiary::ISA
