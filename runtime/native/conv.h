// A quantised convolution on codes, channels last, and everything up to the next layer's codes.
//
//   acc  = sum over the window of code * weight             (int32, exact)
//   z    = acc * multiplier + bias                           (float32, two roundings, no FMA)
//   z    = z + addend * factor                               (for each addend, in order)
//   z    = max(z, 0)                                         (if relu)
//   z    = maximum of z over a window                        (if pool_size)
//   v    = prelu(z + shift_in) + shift_out                   (if slope)
//   code = number of thresholds t of the channel with v >= t
//
// These are the float operations of the source model, one IEEE operation each and in its order, so
// codes are equal bit for bit (paper Eq. 6, 10 and 11; docs/exactness.md). No kernel may contract
// or reorder them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace qmdd {

// Calls body(user, i) for i in 0 .. count-1, on any threads, and returns when all are done.
struct Parallel {
  void* context;
  void (*run)(void* context, void (*body)(void* user, size_t index), size_t count, void* user);
};

// What is fixed when a session loads. Sides are those of the tensor without its halo.
struct ConvSpec {
  int64_t in_channels = 0, out_channels = 0, groups = 1;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1};
  int64_t pads[4] = {0, 0, 0, 0};     // top, left, bottom, right
  int64_t in_halo[4] = {0, 0, 0, 0};  // of padding that the input tensor already has
  int64_t out_halo = 0;               // of padding around the codes that are written
  int64_t top_code = 255;  // the largest code of the input
  int64_t pad_code = 0;    // code that stands for zero: taken from all codes; padding holds it
  int64_t out_pad_code = 0;           // the same of the codes that are written
  int64_t bits = 0, first = 0, step = 0;  // weight = first + step * index, bits to an index
  int64_t relu = 0, pool_size = 0, pool_stride = 0, pool_pad = 0;
  int64_t thresholds = 0;    // per channel; 0: no codes are written
  int64_t table_rows = 0;    // 1 or out_channels
  std::vector<float> factors;
};

struct ConvData {  // of the session's constants
  const uint8_t* weights = nullptr;  // indices [out, kernel, kernel, in / groups], packed
  size_t weight_bytes = 0;
  const float* multiplier = nullptr;  // [out]
  const float* bias = nullptr;        // [out]
  const float* table = nullptr;       // [table_rows, thresholds]
  const float* shift_in = nullptr;    // [out], with the next two, or none of them
  const float* slope = nullptr;
  const float* shift_out = nullptr;
};

struct ConvTensors {  // of one run
  const uint8_t* x = nullptr;  // [n, height + halo, width + halo, in_channels]
  int64_t n = 0, padded_height = 0, padded_width = 0;
  std::vector<const float*> addends;  // each [n, out_height, out_width, out_channels]
  float* z = nullptr;                 // the same shape, or null
  uint8_t* codes = nullptr;           // with out_halo around it, or null
};

struct Extent {
  int64_t height, width;
};

class Conv {
 public:
  // Throws std::invalid_argument with one line where the parts do not fit together.
  Conv(const ConvSpec& spec, const ConvData& data, const Kernels& kernels);
  // Sides of z for an input tensor of these sides (halo included); throws if nothing is left.
  Extent output(int64_t padded_height, int64_t padded_width) const;
  void run(const ConvTensors& tensors, const Parallel& parallel) const;
  const ConvSpec& spec() const { return spec_; }

 private:
  struct View;  // the input as the kernels read it
  void pack_dense(const std::vector<int32_t>& weights);
  void narrow(const std::vector<int8_t>& bytes);
  void pack_depthwise(const std::vector<int32_t>& weights);
  void run_rows(const View& view, const ConvTensors& tensors, const Parallel& parallel) const;
  void run_pooled(const View& view, const ConvTensors& tensors, const Parallel& parallel) const;
  void sums(const View& view, int64_t image, int64_t row, int64_t column, int64_t count,
            int64_t panel, const int8_t* weights, int32_t* acc) const;
  // What `finish` is told of the panel that begins at channel `first`; then of a run of pixels.
  FinishArgs finish_args(int64_t first) const;
  void place(FinishArgs& f, const ConvTensors& tensors, Extent out, int64_t image, int64_t row,
             int64_t column, int64_t first) const;
  // A panel's weights as bytes: in place, or expanded into memory of this thread.
  const int8_t* weights_of(int64_t panel) const;
  Extent conv_output(int64_t padded_height, int64_t padded_width) const;

  ConvSpec spec_;
  const Kernels& kernels_;
  bool depthwise_ = false;
  int64_t cell_ = 0;    // channels of the input as the kernels read it: a multiple of 4
  int64_t panels_ = 0;  // of kernels_.panel output channels each
  int64_t width_ = 0;   // panels_ * kernels_.panel
  int parts_ = 1;       // a weight is parts of 8 bits, the higher times part_base_
  int32_t part_base_ = 0;
  bool wide_ = false;  // see DotArgs, as the next
  int64_t short_steps_ = 0;
  uint64_t serial_ = 0;     // no two of a process are the same
  int64_t run_ = 0;         // bytes of weights for a kernel's row and a channel
  int64_t panel_bytes_ = 0;
  int stored_bits_ = 8;     // of a weight in panels_data_: 2, 4 or 8
  int64_t blocks_ = 0;      // of 64 packed bytes in a panel
  alignas(16) int8_t levels_[16] = {};
  std::vector<int8_t, Aligned<int8_t>> panels_data_;
  std::vector<int32_t, Aligned<int32_t>> offset_;  // minus pad_code times the sum of weights; or none
  std::vector<int16_t, Aligned<int16_t>> taps_;  // depthwise: [kernel * kernel, width_]
  std::vector<float, Aligned<float>> multiplier_, bias_, table_, shift_in_, slope_, shift_out_;
};

// Writes `code` into the border of codes [n, height + 2 halo, width + 2 halo, channels].
void fill_halo(uint8_t* codes, int64_t n, int64_t height, int64_t width, int64_t channels,
               int64_t halo, uint8_t code);

}  // namespace qmdd
