// Rows of blocks to panels, and back: the same bytes in another order.
#pragma once
#include "arguments.h"
#include "layouts.h"
#include "plain.h"

namespace bestiary::ISA {

// Moves `count` items of one field between 16 rows and a panel.
template <int WIDTH, bool BACK> inline void move(uint8_t* const* rows, uint8_t* panel, int count) {
  for (int i = 0; i < count; i++)
    for (int r = 0; r < PANEL; r++) {
      uint8_t *row = rows[r] + i * WIDTH, *there = panel + (i * PANEL + r) * WIDTH;
      if (BACK)
        std::memcpy(row, there, WIDTH);
      else
        std::memcpy(there, row, WIDTH);
    }
}

template <bool BACK> inline void move_field(const Field& field, uint8_t* const* rows, uint8_t* panel) {
  uint8_t* from[PANEL];
  for (int r = 0; r < PANEL; r++) from[r] = rows[r] + field.from;
  if (field.width == 4)
    move<4, BACK>(from, panel, field.count);
  else if (field.width == 2)
    move<2, BACK>(from, panel, field.count);
  else
    move<1, BACK>(from, panel, field.count);
}

// Only whole panels are read and written: of the last rows, `spare` stands for those that are missing.
template <bool BACK> inline void move_panel(const PackArguments& a, int64_t panel) {
  const Layout& layout = LAYOUTS[a.type];
  const int64_t first = panel * PANEL, there = least(PANEL, a.rows - first);
  uint8_t* out = a.panels + panel * a.panel + PANEL * layout.head;
  uint8_t spare[256] = {};
  uint8_t* rows[PANEL];
  for (int64_t block = 0; block < a.blocks; block++) {
    for (int64_t r = 0; r < PANEL; r++)
      rows[r] = r < there ? a.data + (first + r) * a.stride + block * layout.bytes : spare;
    for (const Field& field : layout.fields) {
      move_field<BACK>(field, rows, out);
      out += PANEL * field.width * field.count;
    }
  }
}

inline int64_t panels_of(const void* arguments) { return parts(static_cast<const PackArguments*>(arguments)->rows, PANEL); }
inline void pack(const void* a, int64_t panel) { move_panel<false>(*static_cast<const PackArguments*>(a), panel); }
inline void unpack(const void* a, int64_t panel) { move_panel<true>(*static_cast<const PackArguments*>(a), panel); }

}  // namespace bestiary::ISA
