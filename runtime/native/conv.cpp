#include "conv.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace qmdd {
namespace {

// Rows of one item of work: enough to reuse a panel's weights, few enough to share among threads.
constexpr int64_t kRows = 8;
// Pixels of rows that are computed at once.
constexpr int64_t kMaxGather = 256;
constexpr int64_t kMaxPool = 8;
// Of a weight, as two parts of 8 bits hold it, and as INT16 does.
constexpr int32_t kLargestDense = 16 * 127 + 7, kLargestDepthwise = 32767;
// Two products of a code and a weight of which the sum may pass INT16.
constexpr int32_t kInt16Pair = 32767 / 2;

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

[[noreturn]] void refuse(const char* why) { throw std::invalid_argument(why); }

std::vector<int32_t> unpack(const ConvSpec& spec, const ConvData& data, size_t count) {
  const size_t bits = size_t(spec.bits);
  // First: a model may claim more weights than there is memory.
  if (data.weight_bytes != (count * bits + 7) / 8) refuse("weights: wrong number of bytes");
  std::vector<int32_t> weights(count);
  const uint32_t mask = (1u << bits) - 1;
  for (size_t i = 0; i < count; ++i) {
    const size_t byte = i * bits / 8;
    uint32_t two = data.weights[byte];  // an index lies in two bytes at most
    if (byte + 1 < data.weight_bytes) two |= uint32_t(data.weights[byte + 1]) << 8;
    weights[i] = int32_t(spec.first) + int32_t(spec.step) * int32_t(two >> (i * bits % 8) & mask);
  }
  return weights;
}

// The largest magnitude; refuses what could pass INT32 in a channel's sum.
int32_t largest_weight(const ConvSpec& spec, const std::vector<int32_t>& weights) {
  const size_t each = weights.size() / size_t(spec.out_channels);
  int32_t largest = 0;
  for (size_t out = 0; out < size_t(spec.out_channels); ++out) {
    int64_t sum = 0;
    for (size_t i = out * each; i < (out + 1) * each; ++i) {
      largest = std::max(largest, std::abs(weights[i]));
      sum += std::abs(weights[i]);
    }
    // Twice: a weight's high part alone, and the correction for pad_code, can each be that large.
    if (2 * sum * spec.top_code > std::numeric_limits<int32_t>::max())
      refuse("the sums of a channel may pass INT32");
  }
  return largest;
}

template <class Vector>
void padded_copy(Vector& to, const float* from, int64_t count, int64_t width) {
  to.assign(size_t(width), 0.0f);
  std::copy(from, from + count, to.begin());
}

// Asks for the floats that `finish` will read and write: they come while sums are computed.
void expect(const FinishArgs& f) {
  constexpr int64_t kLine = 16;
  for (int64_t pixel = 0; pixel < f.count; ++pixel) {
    for (int64_t c = 0; c < f.channels; c += kLine) {
      const int64_t at = pixel * f.pixel + c;
      for (int i = 0; i < f.addend_count; ++i) __builtin_prefetch(f.addends[i] + at, 0, 2);
      if (f.z != nullptr) __builtin_prefetch(f.z + at, 1, 2);
    }
  }
}

// Memory of this thread.
template <class T>
T* scratch(int64_t count) {
  thread_local std::vector<T, Aligned<T>> kept;
  if (int64_t(kept.size()) < count) kept.resize(size_t(count));
  return kept.data();
}

// An item of work: some rows of one panel of one image. A panel's items follow each other, since its
// weights then stay in the cache; images come one after the other, since all that of a batch would not.
struct Item {
  int64_t panel, image, row0, row1;

  static int64_t blocks(int64_t rows) { return (rows + kRows - 1) / kRows; }
  static size_t count(int64_t images, int64_t panels, int64_t rows) {
    return size_t(images * panels * blocks(rows));
  }
  Item(size_t index, int64_t panels, int64_t rows) {
    const int64_t block = int64_t(index) % blocks(rows), rest = int64_t(index) / blocks(rows);
    panel = rest % panels;
    image = rest / panels;
    row0 = block * kRows;
    row1 = std::min(row0 + kRows, rows);
  }
};

// The kernels' state while an item of work is done.
struct Session {
  const Kernels& kernels;
  explicit Session(const Kernels& k) : kernels(k) {
    if (kernels.begin != nullptr) kernels.begin();
  }
  ~Session() {
    if (kernels.end != nullptr) kernels.end();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

void check(const ConvSpec& spec, const ConvData& data) {
  const auto within = [](int64_t v, int64_t low, int64_t high) { return v >= low && v <= high; };
  constexpr int64_t kMost = 1 << 20;
  if (!within(spec.in_channels, 1, kMost) || !within(spec.out_channels, 1, kMost))
    refuse("channels must be within 1 and 2^20");
  for (int i = 0; i < 2; ++i) {
    if (!within(spec.kernel[i], 1, 64) || !within(spec.stride[i], 1, 64))
      refuse("kernel and stride must be within 1 and 64");
  }
  for (int i = 0; i < 4; ++i) {
    if (!within(spec.pads[i], 0, 64) || !within(spec.in_halo[i], 0, 64))
      refuse("pads and halo must be within 0 and 64");
  }
  if (!within(spec.out_halo, 0, 64)) refuse("halo must be within 0 and 64");
  if (!within(spec.top_code, 1, 255) || !within(spec.out_pad_code, 0, 255))
    refuse("codes are within 0 and 255");
  if (!within(spec.pad_code, 0, spec.top_code)) refuse("pad_code is a code, top_code at most");
  if (!within(spec.bits, 1, 8)) refuse("weights have 1 to 8 bits");
  if (!within(spec.first, -1024, 1024) || !within(spec.step, 1, 1024))
    refuse("weights: first and step must be within 1024");
  if (spec.groups != 1 && (spec.groups != spec.in_channels || spec.groups != spec.out_channels))
    refuse("groups must be 1 or the number of channels");
  if (spec.in_channels / spec.groups * spec.out_channels * spec.kernel[0] * spec.kernel[1] >
      int64_t(1) << 30)
    refuse("more than 2^30 weights");
  if (!within(spec.thresholds, 0, kMaxThresholds)) refuse("at most 255 thresholds");
  if (spec.thresholds > 0 && spec.table_rows != 1 && spec.table_rows != spec.out_channels)
    refuse("a table has one row, or one a channel");
  if (spec.factors.size() > 2) refuse("at most two addends");
  if (spec.pool_size > 0) {
    if (!within(spec.pool_size, 1, kMaxPool) || !within(spec.pool_stride, 1, kMaxPool) ||
        !within(spec.pool_pad, 0, spec.pool_size - 1))
      refuse("a pooling window has sides of 1 to 8 and less padding than that");
    if (!spec.factors.empty()) refuse("no addends in front of a pooling");
  }
  const bool chain = data.shift_in != nullptr;
  if (chain != (data.slope != nullptr) || chain != (data.shift_out != nullptr))
    refuse("shift, slope and shift come together");
}

}  // namespace

struct Conv::View {
  const uint8_t* x;    // window of the first output pixel of image 0
  const uint8_t* end;  // of the tensor
  ptrdiff_t image, row, column;  // bytes from one to the next
  Extent out;        // sides of the convolution's result
};

Conv::Conv(const ConvSpec& spec, const ConvData& data, const Kernels& kernels)
    : spec_(spec), kernels_(kernels) {
  check(spec, data);
  depthwise_ = spec.groups > 1;
  cell_ = depthwise_ ? spec.in_channels : round_up(spec.in_channels, 4);
  panels_ = (spec.out_channels + kernels.panel - 1) / kernels.panel;
  width_ = panels_ * kernels.panel;
  const int64_t window = spec.kernel[0] * spec.kernel[1];
  const auto weights =
      unpack(spec, data, size_t(spec.out_channels * window * spec.in_channels / spec.groups));
  depthwise_ ? pack_depthwise(weights) : pack_dense(weights);
  padded_copy(multiplier_, data.multiplier, spec.out_channels, width_);
  padded_copy(bias_, data.bias, spec.out_channels, width_);
  if (data.slope != nullptr) {
    padded_copy(shift_in_, data.shift_in, spec.out_channels, width_);
    padded_copy(slope_, data.slope, spec.out_channels, width_);
    padded_copy(shift_out_, data.shift_out, spec.out_channels, width_);
  }
  // Transposed: neighbouring channels are compared together.
  table_.assign(size_t(spec.thresholds * width_), 0.0f);
  for (int64_t i = 0; i < spec.thresholds; ++i) {
    for (int64_t c = 0; c < spec.out_channels; ++c) {
      const int64_t row = spec.table_rows == 1 ? 0 : c;
      table_[size_t(i * width_ + c)] = data.table[row * spec.thresholds + i];
    }
  }
}

void Conv::pack_dense(const std::vector<int32_t>& weights) {
  const int64_t window = spec_.kernel[0] * spec_.kernel[1], panel = kernels_.panel;
  const int32_t largest = largest_weight(spec_, weights);
  if (largest > kLargestDense) refuse("weights must be within 2039");
  if (largest > 127) {  // w = base * high + low, both within INT8
    part_base_ = 16;
    parts_ = 2;
  }
  const int32_t widest = parts_ == 1 ? largest : std::max(part_base_, largest / part_base_ + 1);
  wide_ = spec_.top_code > 127 || spec_.top_code * widest > kInt16Pair;
  short_steps_ = kInt16Pair / std::max<int64_t>(1, spec_.top_code * widest);
  const int64_t run = spec_.kernel[1] * cell_;
  run_ = round_up(run, kernels_.depth);
  const int64_t part_size = spec_.kernel[0] * run_ * panel;
  panel_bytes_ = parts_ * part_size;
  std::vector<int8_t> bytes(size_t(panels_ * panel_bytes_), 0);
  for (int64_t out = 0; out < spec_.out_channels; ++out) {
    int8_t* at = bytes.data() + out / panel * panel_bytes_ + out % panel * 4;
    const int32_t* from = weights.data() + out * window * spec_.in_channels;
    for (int64_t tap = 0; tap < window; ++tap, from += spec_.in_channels) {
      const int64_t row = tap / spec_.kernel[1], column = tap % spec_.kernel[1];
      const int64_t k0 = row * run_ + column * cell_;  // a multiple of 4
      for (int64_t c = 0; c < spec_.in_channels; ++c) {
        int8_t* place = at + (k0 + c / 4 * 4) * panel + c % 4;
        if (parts_ == 1) {
          *place = int8_t(from[c]);
        } else {
          const int32_t high = (from[c] + (from[c] >= 0 ? 8 : -8)) / part_base_;
          *place = int8_t(high);
          place[part_size] = int8_t(from[c] - high * part_base_);
        }
      }
    }
  }
  narrow(bytes);
  if (spec_.pad_code == 0) return;
  offset_.assign(size_t(width_), 0);
  for (int64_t out = 0; out < spec_.out_channels; ++out) {
    const auto first = weights.begin() + out * window * spec_.in_channels;
    const int32_t sum = std::accumulate(first, first + window * spec_.in_channels, int32_t(0));
    offset_[size_t(out)] = -int32_t(spec_.pad_code) * sum;
  }
}

// Keeps weights that fit at 2 or 4 bits, in the order in which the kernels expand them.
void Conv::narrow(const std::vector<int8_t>& bytes) {
  static std::atomic<uint64_t> made{0};
  serial_ = ++made;
  // Places of the layout that hold no weight, channels up to a multiple of 4 and runs up to the
  // kernels' depth, meet bytes that need not be 0, so their level must be.
  const int64_t levels = int64_t(1) << spec_.bits;
  const bool gaps = cell_ != spec_.in_channels || run_ != spec_.kernel[1] * cell_;
  const int64_t needed = levels + (gaps ? 1 : 0);
  if (needed > 16 || parts_ > 1) {
    panels_data_.assign(bytes.begin(), bytes.end());
    return;
  }
  stored_bits_ = needed <= 4 ? 2 : 4;
  for (int64_t i = 0; i < levels; ++i) levels_[i] = int8_t(spec_.first + spec_.step * i);
  const int64_t each = 8 / stored_bits_;
  blocks_ = (panel_bytes_ + 64 * each - 1) / (64 * each);
  panels_data_.assign(size_t(panels_ * blocks_ * 64), 0);
  uint8_t index_of[256];
  for (int value = -128; value < 128; ++value) {
    const int64_t up = value - spec_.first;
    const bool is_level = up >= 0 && up % spec_.step == 0 && up / spec_.step < levels;
    // Without gaps, what is no level belongs to a channel that is not there.
    index_of[uint8_t(value)] = uint8_t(is_level ? up / spec_.step : gaps ? levels : 0);
  }
  for (int64_t panel = 0; panel < panels_; ++panel) {
    const int8_t* from = bytes.data() + panel * panel_bytes_;
    for (int64_t at = 0; at < panel_bytes_; at += 64) {
      int8_t* to = panels_data_.data() + (panel * blocks_ + at / 64 / each) * 64;
      const int shift = int(at / 64 % each) * stored_bits_;
      const int64_t end = std::min<int64_t>(64, panel_bytes_ - at);
      for (int64_t j = 0; j < end; ++j) to[j] |= int8_t(index_of[uint8_t(from[at + j])] << shift);
    }
  }
}

const int8_t* Conv::weights_of(int64_t panel) const {
  if (depthwise_) return nullptr;
  if (stored_bits_ == 8) return panels_data_.data() + panel * panel_bytes_;
  // The last panel that this thread used: work comes panel by panel.
  struct Expanded {
    uint64_t serial = 0;
    int64_t panel = 0;
    std::vector<int8_t, Aligned<int8_t>> bytes;
  };
  thread_local Expanded kept;
  if (kept.serial != serial_ || kept.panel != panel) {
    const size_t size = size_t(blocks_ * 64 * (8 / stored_bits_));
    if (kept.bytes.size() < size) kept.bytes.resize(size);
    const auto* packed = reinterpret_cast<const uint8_t*>(panels_data_.data());
    kernels_.expand({packed + panel * blocks_ * 64, stored_bits_, levels_, kept.bytes.data(),
                     blocks_});
    kept.serial = serial_;
    kept.panel = panel;
  }
  return kept.bytes.data();
}

void Conv::pack_depthwise(const std::vector<int32_t>& weights) {
  const int64_t window = spec_.kernel[0] * spec_.kernel[1];
  if (largest_weight(spec_, weights) > kLargestDepthwise) refuse("weights must be within INT16");
  taps_.assign(size_t(window * width_), 0);
  for (int64_t c = 0; c < spec_.out_channels; ++c) {
    for (int64_t tap = 0; tap < window; ++tap) {
      taps_[size_t(tap * width_ + c)] = int16_t(weights[size_t(c * window + tap)]);
    }
  }
}

Extent Conv::conv_output(int64_t padded_height, int64_t padded_width) const {
  const auto& s = spec_;
  const int64_t height = padded_height - s.in_halo[0] - s.in_halo[2];
  const int64_t width = padded_width - s.in_halo[1] - s.in_halo[3];
  const int64_t rows = height + s.pads[0] + s.pads[2] - s.kernel[0];
  const int64_t columns = width + s.pads[1] + s.pads[3] - s.kernel[1];
  if (height < 1 || width < 1 || rows < 0 || columns < 0) refuse("the image is too small");
  return {rows / s.stride[0] + 1, columns / s.stride[1] + 1};
}

Extent Conv::output(int64_t padded_height, int64_t padded_width) const {
  Extent out = conv_output(padded_height, padded_width);
  if (spec_.pool_size > 0) {
    const int64_t grown = 2 * spec_.pool_pad - spec_.pool_size;
    if (out.height + grown < 0 || out.width + grown < 0) refuse("the image is too small");
    out.height = (out.height + grown) / spec_.pool_stride + 1;
    out.width = (out.width + grown) / spec_.pool_stride + 1;
  }
  return out;
}

void Conv::run(const ConvTensors& tensors, const Parallel& parallel) const {
  const auto& s = spec_;
  if (tensors.n == 0) return;
  View view{};
  view.out = conv_output(tensors.padded_height, tensors.padded_width);
  bool direct = cell_ == s.in_channels;
  for (int side = 0; side < 4; ++side) direct = direct && s.in_halo[side] >= s.pads[side];
  int64_t width = tensors.padded_width, height = tensors.padded_height;
  std::vector<uint8_t> copy;
  const uint8_t* x = tensors.x;
  int64_t above = s.in_halo[0] - s.pads[0], left = s.in_halo[1] - s.pads[1];
  if (!direct) {  // lay the padding and the channels out as the kernels need them
    const int64_t from_height = height, from_width = width;
    height += s.pads[0] + s.pads[2];
    width += s.pads[1] + s.pads[3];
    copy.assign(size_t(tensors.n * height * width * cell_), uint8_t(s.pad_code));
    for (int64_t line = 0; line < tensors.n * from_height; ++line) {
      const int64_t image = line / from_height, row = line % from_height + s.pads[0];
      uint8_t* to = copy.data() + ((image * height + row) * width + s.pads[1]) * cell_;
      const uint8_t* from = x + line * from_width * s.in_channels;
      for (int64_t column = 0; column < from_width; ++column) {
        std::memcpy(to + column * cell_, from + column * s.in_channels, size_t(s.in_channels));
      }
    }
    x = copy.data();
    above = s.in_halo[0];
    left = s.in_halo[1];
  }
  view.row = width * cell_;
  view.image = height * view.row;
  view.column = s.stride[1] * cell_;
  view.x = x + above * view.row + left * cell_;
  view.end = x + tensors.n * view.image;
  if (tensors.codes != nullptr && s.out_halo > 0) {
    const Extent out = output(tensors.padded_height, tensors.padded_width);
    fill_halo(tensors.codes, tensors.n, out.height, out.width, s.out_channels, s.out_halo,
              uint8_t(s.out_pad_code));
  }
  s.pool_size > 0 ? run_pooled(view, tensors, parallel) : run_rows(view, tensors, parallel);
}

void Conv::sums(const View& view, int64_t image, int64_t row, int64_t column, int64_t count,
                int64_t panel, const int8_t* weights, int32_t* acc) const {
  const uint8_t* x =
      view.x + image * view.image + row * spec_.stride[0] * view.row + column * view.column;
  const int64_t first = panel * kernels_.panel;
  if (depthwise_) {
    const int64_t channels = std::min<int64_t>(kernels_.panel, spec_.out_channels - first);
    kernels_.depthwise({x + first, view.column, view.row, cell_, spec_.kernel[0], spec_.kernel[1],
                        int32_t(spec_.pad_code), taps_.data() + first, width_, channels, count,
                        acc});
    return;
  }
  kernels_.dot({x, view.column, view.row, spec_.kernel[0], spec_.kernel[1] * cell_, view.end,
                weights, run_, parts_, part_base_, wide_, short_steps_, count, acc});
}

FinishArgs Conv::finish_args(int64_t first) const {
  FinishArgs f{};
  f.channels = std::min<int64_t>(kernels_.panel, spec_.out_channels - first);
  if (!offset_.empty()) f.offset = offset_.data() + first;
  f.multiplier = multiplier_.data() + first;
  f.bias = bias_.data() + first;
  f.addend_count = int(spec_.factors.size());
  for (int i = 0; i < f.addend_count; ++i) f.factors[i] = spec_.factors[size_t(i)];
  f.relu = spec_.relu != 0;
  if (!slope_.empty()) {
    f.shift_in = shift_in_.data() + first;
    f.slope = slope_.data() + first;
    f.shift_out = shift_out_.data() + first;
  }
  if (!table_.empty()) f.table = table_.data() + first;
  f.table_stride = width_;
  f.thresholds = spec_.thresholds;
  return f;
}

void Conv::place(FinishArgs& f, const ConvTensors& tensors, Extent out, int64_t image, int64_t row,
                 int64_t column, int64_t first) const {
  const int64_t channels = spec_.out_channels, halo = spec_.out_halo;
  const int64_t at = ((image * out.height + row) * out.width + column) * channels + first;
  f.pixel = channels;
  for (int i = 0; i < f.addend_count; ++i) f.addends[i] = tensors.addends[size_t(i)] + at;
  f.z = tensors.z == nullptr ? nullptr : tensors.z + at;
  if (tensors.codes == nullptr) return;
  const int64_t line = out.width + 2 * halo;
  const int64_t pixel = (image * (out.height + 2 * halo) + row + halo) * line + halo + column;
  f.codes = tensors.codes + pixel * channels + first;
}

void Conv::run_rows(const View& view, const ConvTensors& tensors, const Parallel& parallel) const {
  struct Work {
    const Conv& conv;
    const View& view;
    const ConvTensors& tensors;
    int64_t at_once;  // rows
  };
  // Rows too narrow for the kernels are computed as one long row, with the pixels between them.
  int64_t at_once = 1;
  const int64_t step = view.row * spec_.stride[0];
  if (!depthwise_ && view.out.width < kernels_.gather_below && step % view.column == 0) {
    at_once = std::max<int64_t>(1, (kMaxGather - view.out.width) / (step / view.column) + 1);
  }
  Work work{*this, view, tensors, at_once};
  parallel.run(
      parallel.context,
      [](void* user, size_t index) {
        const Work& w = *static_cast<Work*>(user);
        const Conv& conv = w.conv;
        const Kernels& kernels = conv.kernels_;
        const Extent out = w.view.out;
        const auto [panel, image, row0, row1] = Item(index, conv.panels_, out.height);
        const int64_t first = panel * kernels.panel;
        const Session session(kernels);
        const int8_t* weights = conv.weights_of(panel);
        FinishArgs f = conv.finish_args(first);
        if (w.at_once > 1) {
          const int64_t pitch = w.view.row * conv.spec_.stride[0] / w.view.column;
          int32_t* acc = scratch<int32_t>(kMaxGather * kernels.panel);
          f.count = out.width;
          for (int64_t row = row0; row < row1; row += w.at_once) {
            const int64_t end = std::min(row + w.at_once, row1);
            for (int64_t r = row; r < end; ++r) {
              conv.place(f, w.tensors, out, image, r, 0, first);
              expect(f);
            }
            const int64_t count = (end - 1 - row) * pitch + out.width;
            conv.sums(w.view, image, row, 0, count, panel, weights, acc);
            for (int64_t r = row; r < end; ++r) {
              conv.place(f, w.tensors, out, image, r, 0, first);
              f.acc = acc + (r - row) * pitch * kernels.panel;
              kernels.finish(f);
            }
          }
          return;
        }
        alignas(64) int32_t acc[kMaxSpan * kMaxPanel];
        f.acc = acc;
        for (int64_t row = row0; row < row1; ++row) {
          for (int64_t column = 0; column < out.width; column += kernels.span) {
            f.count = std::min<int64_t>(kernels.span, out.width - column);
            conv.place(f, w.tensors, out, image, row, column, first);
            expect(f);
            conv.sums(w.view, image, row, column, f.count, panel, weights, acc);
            kernels.finish(f);
          }
        }
      },
      Item::count(tensors.n, panels_, view.out.height), &work);
}

void Conv::run_pooled(const View& view, const ConvTensors& tensors,
                      const Parallel& parallel) const {
  struct Work {
    const Conv& conv;
    const View& view;
    const ConvTensors& tensors;
    Extent out;
  };
  const ConvSpec& spec = spec_;
  const int64_t grown = 2 * spec.pool_pad - spec.pool_size;
  const Extent out{(view.out.height + grown) / spec.pool_stride + 1,
                   (view.out.width + grown) / spec.pool_stride + 1};
  Work work{*this, view, tensors, out};
  parallel.run(
      parallel.context,
      [](void* user, size_t index) {
        const Work& w = *static_cast<Work*>(user);
        const Conv& conv = w.conv;
        const ConvSpec& s = conv.spec_;
        const auto [panel, image, row0, row1] = Item(index, conv.panels_, w.out.height);
        const int64_t first = panel * conv.kernels_.panel, columns = w.view.out.width;
        const Session session(conv.kernels_);
        const int8_t* weights = conv.weights_of(panel);
        alignas(64) int32_t acc[kMaxSpan * kMaxPanel];
        FinishArgs sums = conv.finish_args(first);  // up to the pooling
        const int64_t channels = sums.channels;
        sums.acc = acc;
        sums.pixel = channels;
        FinishArgs f = conv.finish_args(first);  // and behind it
        f.relu = false;
        f.pixel_in = channels;
        f.count = w.out.width;
        // A ring of the rows of one pooling window, [columns, channels] each, then a pooled row:
        // one panel's, so that they stay in the first cache.
        const int64_t length = columns * channels;
        float* ring = scratch<float>(s.pool_size * length + w.out.width * channels);
        float* pooled = ring + s.pool_size * length;
        int64_t next = std::max<int64_t>(0, row0 * s.pool_stride - s.pool_pad);
        for (int64_t row = row0; row < row1; ++row) {
          const int64_t top = std::max<int64_t>(0, row * s.pool_stride - s.pool_pad);
          const int64_t bottom =
              std::min(w.view.out.height, row * s.pool_stride - s.pool_pad + s.pool_size);
          for (; next < bottom; ++next) {
            for (int64_t column = 0; column < columns; column += conv.kernels_.span) {
              sums.count = std::min<int64_t>(conv.kernels_.span, columns - column);
              conv.sums(w.view, image, next, column, sums.count, panel, weights, acc);
              sums.z = ring + next % s.pool_size * length + column * channels;
              conv.kernels_.finish(sums);
            }
          }
          const float* lines[kMaxPool];
          for (int64_t other = top; other < bottom; ++other) {
            lines[other - top] = ring + other % s.pool_size * length;
          }
          conv.kernels_.pool({lines, bottom - top, columns, channels, s.pool_size, s.pool_stride,
                              s.pool_pad, w.out.width, pooled});
          f.z_in = pooled;
          conv.place(f, w.tensors, w.out, image, row, 0, first);
          conv.kernels_.finish(f);
        }
      },
      Item::count(tensors.n, panels_, out.height), &work);
}

void fill_halo(uint8_t* codes, int64_t n, int64_t height, int64_t width, int64_t channels,
               int64_t halo, uint8_t code) {
  const size_t line = size_t((width + 2 * halo) * channels);
  const size_t side = size_t(halo * channels);
  for (int64_t image = 0; image < n; ++image) {
    uint8_t* top = codes + size_t(image * (height + 2 * halo)) * line;
    std::memset(top, code, size_t(halo) * line);
    for (int64_t row = halo; row < halo + height; ++row) {
      std::memset(top + size_t(row) * line, code, side);
      std::memset(top + size_t(row + 1) * line - side, code, side);
    }
    std::memset(top + size_t(halo + height) * line, code, size_t(halo) * line);
  }
}

}  // namespace qmdd
