// What each operation is given.  Every field takes 8 bytes, so that a caller of any language lays them out alike.
#pragma once
#include <cstdint>

namespace bestiary {

struct PackArguments {  // rows of blocks to panels, or back
  int64_t type, rows, blocks;
  uint8_t* data;   // blocks of a row beside each other
  int64_t stride;  // bytes from a row to the next
  uint8_t* panels;
  int64_t panel;  // bytes from a panel to the next
};

struct RowsArguments {  // some rows of panels as plain numbers
  int64_t type;
  const uint8_t* panels;
  int64_t rows, columns, group;
  const int64_t* index;  // the rows that are wanted; null: the first `count`
  int64_t count;
  void* y;
  int64_t y_type, y_stride;
  double scale;  // rounded to the type of y, it multiplies what was rounded too
};

struct PanelWeight {
  const uint8_t* panels;
  int64_t type, rows, group;
  void* y;
  int64_t y_stride;
  const void* bias;  // of the type of y, or null
};

struct LinearArguments {
  const void* x;
  int64_t x_type, x_stride, rows, columns;
  void* scratch;  // activation_bytes(columns) for each row
  int64_t y_type, count;
  PanelWeight weights[4];
};

struct PlainWeight {  // numbers row by row
  const void* data;
  int64_t type, rows, stride;
  const float* scales;  // of FP8: [rows / scale_rows, columns / scale_columns], or null
  int64_t scale_rows, scale_columns;
  void* y;
  int64_t y_stride;
  const void* bias;
};

struct PlainLinearArguments {
  const void* x;
  int64_t x_type, x_stride, rows, columns;
  float* scratch;  // [rows, columns]
  int64_t y_type, count;
  PlainWeight weights[4];
};

}  // namespace bestiary
