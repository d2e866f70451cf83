// Raw pixels as the folded stem reads them: the four pixels of each 2x2 cell side by side.
#pragma once

#include "conv.h"

namespace qmdd {

// A cell's bytes, as SpaceToDepth orders them: pixel (row, column) of a colour at
// 3 * (2 * row + column) + colour; then the three of the top left pixel, `repeats` times over (its
// weights pass INT8 and are shared out); zeros up to `channels`.
struct CellSpec {
  int64_t repeats = 0, channels = 12;
  int64_t halo[4] = {0, 0, 0, 0};  // of zero cells: top, left, bottom, right
};

void check_cells(const CellSpec& spec);  // throws std::invalid_argument

// image [n, 3, height, width], sides even -> cells [n, height / 2 + halo, width / 2 + halo, channels]
void make_cells(const CellSpec& spec, const uint8_t* image, int64_t n, int64_t height,
                int64_t width, uint8_t* cells, const Parallel& parallel);

}  // namespace qmdd
