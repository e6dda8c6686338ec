// Activations as int8 with one scale for every 32 of a row.
#pragma once
#include <cstdint>

namespace bestiary::ISA {

constexpr int GROUP = 32;
constexpr int TILE = 32;  // rows that are laid beside each other

// A tile of m rows, group by group; the groups of all its rows lie together.
struct Tile {
  int8_t* values;  // [groups][m][32], -127 to 127
  float* scales;   // [groups][m]
  float* wholes;   // [groups][m]: the sum of a group's values, scaled
  float* halves;   // [groups][m][2]: those of its halves
  int m;
};

// Bytes that a row of `columns` takes in tiles, whatever the number of rows.
inline int64_t activation_bytes(int64_t columns) { return (columns + GROUP - 1) / GROUP * (GROUP + 4 + 4 + 8); }

// Rows are cut into tiles of TILE, the last one shorter.
inline Tile tile_at(void* memory, int64_t columns, int64_t rows, int64_t first) {
  const int64_t groups = (columns + GROUP - 1) / GROUP;
  const int m = static_cast<int>(rows - first < TILE ? rows - first : TILE);
  char* start = static_cast<char*>(memory) + first * activation_bytes(columns);
  Tile tile;
  tile.values = reinterpret_cast<int8_t*>(start);
  tile.scales = reinterpret_cast<float*>(start + groups * m * GROUP);
  tile.wholes = reinterpret_cast<float*>(start + groups * m * (GROUP + 4));
  tile.halves = reinterpret_cast<float*>(start + groups * m * (GROUP + 8));
  tile.m = m;
  return tile;
}

}  // namespace bestiary::ISA
