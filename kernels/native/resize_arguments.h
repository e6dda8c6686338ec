// What a pass over a picture is given.  Every field takes 8 bytes; strides count bytes.
#pragma once
#include <cstdint>

namespace bestiary {

struct ResizeArguments {  // of pixels of 4 bytes, of which the fourth becomes zero
  const uint8_t* x;
  int64_t rows, columns, x_stride;
  int64_t along_rows;  // whether it is the columns that become `size` ones, else the rows
  int64_t size, filter;
  int64_t taps;     // 2 ceil(support * max(1, shrinking)) + 1: as many as one pixel can have
  int64_t* spans;   // scratch: [size, 2]
  double* weights;  // scratch: [size, taps]
  uint8_t* y;
  int64_t y_stride;
};

}  // namespace bestiary
