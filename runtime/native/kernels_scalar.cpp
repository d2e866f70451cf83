// The reference: plain loops, one statement an operation. Every other kernel must equal it.
#include <cmath>
#include <cstring>

#include "kernels.h"

namespace qmdd {
namespace {

constexpr int kPanel = 16;

// Sums wrap around where a code is larger than the model said it could be, in every kernel.
int32_t wrapped(int32_t sum, int32_t more) { return int32_t(uint32_t(sum) + uint32_t(more)); }

void dot(const DotArgs& args) {
  for (int64_t pixel = 0; pixel < args.count; ++pixel) {
    int32_t* acc = args.acc + pixel * kPanel;
    std::memset(acc, 0, kPanel * sizeof(int32_t));
    const int8_t* w = args.w;
    for (int part = 0; part < args.parts; ++part) {
      for (int channel = 0; part > 0 && channel < kPanel; ++channel) {
        acc[channel] = int32_t(uint32_t(acc[channel]) * uint32_t(args.part_base));
      }
      for (int64_t row = 0; row < args.rows; ++row) {
        const uint8_t* x = args.x + pixel * args.pixel + row * args.row;
        for (int64_t k = 0; k < args.run; k += 4, w += 4 * kPanel) {
          for (int channel = 0; channel < kPanel; ++channel) {
            for (int i = 0; i < 4; ++i) {
              acc[channel] = wrapped(acc[channel], int32_t(x[k + i]) * w[4 * channel + i]);
            }
          }
        }
        w += (args.w_run - args.run) * kPanel;
      }
    }
  }
}

void depthwise(const DepthwiseArgs& args) {
  for (int64_t pixel = 0; pixel < args.count; ++pixel) {
    for (int64_t channel = 0; channel < args.channels; ++channel) {
      int32_t sum = 0;
      for (int64_t row = 0; row < args.rows; ++row) {
        for (int64_t tap = 0; tap < args.taps; ++tap) {
          const uint8_t code =
              args.x[pixel * args.pixel + row * args.row + tap * args.tap + channel];
          sum = wrapped(sum, (int32_t(code) - args.pad_code) *
                                 args.w[(row * args.taps + tap) * args.stride + channel]);
        }
      }
      args.acc[pixel * kPanel + channel] = sum;
    }
  }
}

void finish(const FinishArgs& args) {
  for (int64_t pixel = 0; pixel < args.count; ++pixel) {
    for (int64_t c = 0; c < args.channels; ++c) {
      float z;
      if (args.acc != nullptr) {
        const int32_t offset = args.offset != nullptr ? args.offset[c] : 0;
        const float product = float(wrapped(args.acc[pixel * kPanel + c], offset)) * args.multiplier[c];
        z = product + args.bias[c];
      } else {
        z = args.z_in[pixel * args.pixel_in + c];
      }
      for (int i = 0; i < args.addend_count; ++i) {
        const float addend = args.addends[i][pixel * args.pixel + c] * args.factors[i];
        z = z + addend;
      }
      if (args.relu) z = z > 0.0f ? z : 0.0f;
      if (args.z != nullptr) args.z[pixel * args.pixel + c] = z;
      if (args.codes == nullptr) continue;
      if (args.slope != nullptr) {
        z = z + args.shift_in[c];
        const float below = z * args.slope[c];
        z = z < 0.0f ? below : z;
        z = z + args.shift_out[c];
      }
      int code = 0;
      for (int64_t i = 0; i < args.thresholds; ++i) code += z >= args.table[i * args.table_stride + c];
      args.codes[pixel * args.pixel + c] = uint8_t(code);
    }
  }
}

void expand(const ExpandArgs& args) {
  const int each = 8 / args.bits, mask = (1 << args.bits) - 1;
  for (int64_t block = 0; block < args.blocks; ++block) {
    for (int i = 0; i < each; ++i) {
      for (int j = 0; j < 64; ++j) {
        args.out[(block * each + i) * 64 + j] =
            args.levels[args.packed[block * 64 + j] >> (args.bits * i) & mask];
      }
    }
  }
}

void pool(const PoolArgs& args) {
  for (int64_t pixel = 0; pixel < args.count; ++pixel) {
    const int64_t left = pixel * args.stride - args.pad;
    for (int64_t c = 0; c < args.channels; ++c) {
      float best = -INFINITY;
      for (int64_t row = 0; row < args.row_count; ++row) {
        for (int64_t column = left; column < left + args.size; ++column) {
          if (column < 0 || column >= args.columns) continue;
          const float here = args.rows[row][column * args.channels + c];
          best = here > best ? here : best;
        }
      }
      args.out[pixel * args.channels + c] = best;
    }
  }
}

int64_t peak(int64_t rounds) {
  volatile int32_t sink = 0;
  int32_t sum = 0;
  for (int64_t i = 0; i < rounds; ++i) sum += int32_t(i & 255) * int32_t(i & 127);
  sink = sum;
  (void)sink;
  return rounds;
}

}  // namespace

const Kernels kScalarKernels = {"scalar", kPanel, 4, 16, 0, dot, depthwise, finish, expand, pool, peak, nullptr, nullptr};

}  // namespace qmdd
