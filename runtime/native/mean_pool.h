// Averages of neighbouring pixels: what a CQB's shortcut takes where its layer has a stride.
#pragma once

#include "conv.h"

namespace qmdd {

// Windows of 1 or 2 pixels, side by side; where only one pixel is left, it is its own average.
struct MeanPoolSpec {
  int64_t window[2] = {1, 1};  // rows, columns
  bool round_up = false;       // whether an incomplete window counts (ONNX: ceil_mode)
};

void check_mean_pool(const MeanPoolSpec& spec);  // throws std::invalid_argument
Extent mean_pool_output(const MeanPoolSpec& spec, int64_t height, int64_t width);

// x [n, height, width, channels] -> out, of the sides above. Columns are averaged first, then rows:
// (a + b) / 2 each time, as AveragePool does it one side after the other.
void mean_pool(const MeanPoolSpec& spec, const float* x, int64_t n, int64_t height, int64_t width,
               int64_t channels, float* out, const Parallel& parallel);

}  // namespace qmdd
