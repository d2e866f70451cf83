// Convolutions drawn at random, run by any kernels, and computed by plain loops over the definition
// (conv.h): what native_check and the fuzzer share.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "conv.h"
#include "pixel_cells.h"

namespace qmdd {
namespace checking {

// Where numbers come from: a generator, or bytes that a fuzzer chose.
struct Source {
  virtual ~Source() = default;
  virtual int64_t draw(int64_t low, int64_t high) = 0;  // both included
};

// Numbers near each other, so that sums meet thresholds exactly, and now and then an extreme one.
inline float draw_float(Source& random) {
  switch (random.draw(0, 15)) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return std::numeric_limits<float>::infinity();
    case 3: return -std::numeric_limits<float>::infinity();
    case 4: return std::numeric_limits<float>::quiet_NaN();
    case 5: return std::numeric_limits<float>::denorm_min() * float(random.draw(-9, 9));
    case 6: return std::numeric_limits<float>::max();
    default: return float(random.draw(-64, 64)) / 8.0f;
  }
}

inline std::vector<float> draw_floats(Source& random, int64_t count) {
  std::vector<float> all(static_cast<size_t>(count));
  for (float& v : all) v = draw_float(random);
  return all;
}

// Bytes that end where the page behind them cannot be read: what a sanitizer does not see, loads of
// whole tiles, is seen too.
class Guarded {
 public:
  Guarded() = default;
  explicit Guarded(size_t size) : size_(size) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    mapped_ = (size + page - 1) / page * page + page;
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<uint8_t*>(memory);
    mprotect(memory_ + mapped_ - page, page, PROT_NONE);
    data_ = memory_ + mapped_ - page - size;
  }
  ~Guarded() {
    if (memory_ != nullptr) munmap(memory_, mapped_);
  }
  Guarded(const Guarded&) = delete;
  Guarded(Guarded&& other) { *this = std::move(other); }
  Guarded& operator=(Guarded&& other) {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(mapped_, other.mapped_);
    std::swap(size_, other.size_);
    return *this;
  }
  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  uint8_t& operator[](size_t at) { return data_[at]; }
  const uint8_t& operator[](size_t at) const { return data_[at]; }
  uint8_t* begin() { return data_; }
  uint8_t* end() { return data_ + size_; }

 private:
  uint8_t *memory_ = nullptr, *data_ = nullptr;
  size_t mapped_ = 0, size_ = 0;
};

struct Case {
  ConvSpec spec;
  std::vector<uint8_t> weights;
  Guarded x;
  std::vector<float> multiplier, bias, table, shift_in, slope, shift_out;
  std::vector<std::vector<float>> addends;
  int64_t n, height, width;

  // wide: smaller, but of every shape and number that is allowed, and of some that are not.
  explicit Case(Source& random, bool wide = false) {
    const auto floats = [&](int64_t count) { return draw_floats(random, count); };
    const bool pooled = random.draw(0, 4) == 0, depthwise = random.draw(0, 4) == 0;
    spec.out_channels = random.draw(1, wide && random.draw(0, 7) ? 20 : 70);
    const int64_t usual[] = {16, 20, 32, 64, 128};
    spec.in_channels = depthwise           ? spec.out_channels
                       : random.draw(0, 1) ? random.draw(1, 40)
                                            : usual[random.draw(0, 4)];
    if (wide && !depthwise && random.draw(0, 7)) spec.in_channels = random.draw(1, 9);
    spec.groups = depthwise ? spec.out_channels : 1;
    const bool odd = wide && random.draw(0, 3) == 0;
    for (int i = 0; i < 2; ++i) {
      spec.kernel[i] = random.draw(1, odd ? 7 : 4);
      spec.stride[i] = random.draw(1, odd ? 9 : 3);
    }
    for (int i = 0; i < 4; ++i) {
      spec.pads[i] = random.draw(0, odd ? 9 : 2);
      spec.in_halo[i] = random.draw(0, odd ? 9 : 2);
    }
    spec.out_halo = random.draw(0, odd ? 9 : 2);
    spec.bits = random.draw(1, 8);
    const int64_t levels = int64_t(1) << spec.bits;
    spec.step = random.draw(1, 2);
    spec.first = spec.step == 2 ? 1 - levels : -levels / 2;
    if (odd) {
      spec.step = random.draw(1, 20);
      spec.first = random.draw(-1024, 1024);
    }
    spec.top_code = random.draw(0, 2) ? (int64_t(1) << random.draw(1, 4)) - 1 : 255;
    spec.pad_code = random.draw(0, 2) ? 0 : random.draw(0, spec.top_code);
    spec.out_pad_code = random.draw(0, 3);
    spec.relu = random.draw(0, 1);
    const int64_t counts[] = {0, 1, 3, 7, 15, 31, 255, 2};
    spec.thresholds = odd ? random.draw(0, 255) : counts[random.draw(0, 7)];
    spec.table_rows = random.draw(0, 1) ? 1 : spec.out_channels;
    if (pooled) {
      spec.pool_size = odd ? random.draw(1, 8) : random.draw(2, 3);
      spec.pool_stride = random.draw(1, odd ? 8 : 3);
      spec.pool_pad = random.draw(0, odd ? spec.pool_size - 1 : 1);
    }
    const int64_t window = spec.kernel[0] * spec.kernel[1];
    const int64_t count = spec.out_channels * window * spec.in_channels / spec.groups;
    weights.resize(size_t((count * spec.bits + 7) / 8));
    for (uint8_t& byte : weights) byte = uint8_t(random.draw(0, 255));
    multiplier = floats(spec.out_channels);
    bias = floats(spec.out_channels);
    table = floats(spec.table_rows * spec.thresholds);
    if (random.draw(0, 1)) {
      shift_in = floats(spec.out_channels);
      slope = floats(spec.out_channels);
      shift_out = floats(spec.out_channels);
    }
    n = random.draw(1, 2);
    height = wide ? random.draw(1, 5) : random.draw(5, 14);
    width = wide ? random.draw(1, random.draw(0, 7) ? 20 : 70)
                 : random.draw(5, random.draw(0, 3) ? 40 : 90);
    const int64_t padded_height = height + spec.in_halo[0] + spec.in_halo[2];
    const int64_t padded_width = width + spec.in_halo[1] + spec.in_halo[3];
    x = Guarded(size_t(n * padded_height * padded_width * spec.in_channels));
    for (uint8_t& code : x) code = uint8_t(random.draw(0, spec.top_code));
    for (size_t at = 0; at < x.size(); ++at) {
      const int64_t pixel = int64_t(at) / spec.in_channels;
      const int64_t row = pixel / padded_width % padded_height, column = pixel % padded_width;
      const bool inside = row >= spec.in_halo[0] && row < spec.in_halo[0] + height &&
                          column >= spec.in_halo[1] && column < spec.in_halo[1] + width;
      if (!inside) x[at] = uint8_t(spec.pad_code);
    }
    if (!pooled) {
      const int64_t addend_count = random.draw(0, 2);
      for (int64_t i = 0; i < addend_count; ++i) spec.factors.push_back(draw_float(random));
      if (addend_count > 0) {
        const Extent out = conv(kScalarKernels).output(padded_height, padded_width);
        for (int64_t i = 0; i < addend_count; ++i) {
          addends.push_back(floats(n * out.height * out.width * spec.out_channels));
        }
      }
    }
  }

  Conv conv(const Kernels& kernels) const {
    ConvData data;
    data.weights = weights.data();
    data.weight_bytes = weights.size();
    data.multiplier = multiplier.data();
    data.bias = bias.data();
    data.table = table.data();
    if (!slope.empty()) {
      data.shift_in = shift_in.data();
      data.slope = slope.data();
      data.shift_out = shift_out.data();
    }
    return Conv(spec, data, kernels);
  }
};

struct Result {
  std::vector<uint8_t> codes;
  std::vector<float> z;
  // NaNs are equal whatever their bits.
  bool operator==(const Result& other) const {
    if (codes != other.codes || z.size() != other.z.size()) return false;
    for (size_t i = 0; i < z.size(); ++i) {
      if (z[i] != z[i] && other.z[i] != other.z[i]) continue;
      if (std::memcmp(&z[i], &other.z[i], sizeof(float)) != 0) return false;
    }
    return true;
  }
};

inline const Parallel kInOrder = {nullptr, [](void*, void (*body)(void*, size_t), size_t count,
                                       void* user) {
                             for (size_t i = 0; i < count; ++i) body(user, i);
                           }};

inline Result run(const Case& c, const Kernels& kernels) {
  const Conv conv = c.conv(kernels);
  ConvTensors tensors;
  tensors.x = c.x.data();
  tensors.n = c.n;
  tensors.padded_height = c.height + c.spec.in_halo[0] + c.spec.in_halo[2];
  tensors.padded_width = c.width + c.spec.in_halo[1] + c.spec.in_halo[3];
  for (const auto& addend : c.addends) tensors.addends.push_back(addend.data());
  const Extent out = conv.output(tensors.padded_height, tensors.padded_width);
  const int64_t halo = 2 * c.spec.out_halo;
  Result result;
  result.z.resize(size_t(c.n * out.height * out.width * c.spec.out_channels));
  tensors.z = result.z.data();
  if (c.spec.thresholds > 0) {
    result.codes.resize(
        size_t(c.n * (out.height + halo) * (out.width + halo) * c.spec.out_channels));
    tensors.codes = result.codes.data();
  }
  conv.run(tensors, kInOrder);
  return result;
}

// The definition, one number after the other.
inline Result by_definition(const Case& c) {
  const ConvSpec& s = c.spec;
  const Extent out = c.conv(kScalarKernels)
                         .output(c.height + s.in_halo[0] + s.in_halo[2],
                                 c.width + s.in_halo[1] + s.in_halo[3]);
  const int64_t rows = (c.height + s.pads[0] + s.pads[2] - s.kernel[0]) / s.stride[0] + 1;
  const int64_t columns = (c.width + s.pads[1] + s.pads[3] - s.kernel[1]) / s.stride[1] + 1;
  const int64_t each = s.in_channels / s.groups;
  const auto weight = [&](int64_t number) {
    int64_t index = 0;
    for (int64_t b = 0; b < s.bits; ++b) {
      const int64_t bit = number * s.bits + b;
      index |= int64_t(c.weights[size_t(bit / 8)] >> (bit % 8) & 1) << b;
    }
    return s.first + s.step * index;
  };
  const auto code_at = [&](int64_t image, int64_t y, int64_t x, int64_t channel) -> int64_t {
    if (y < 0 || y >= c.height || x < 0 || x >= c.width) return s.pad_code;
    const int64_t line = c.width + s.in_halo[1] + s.in_halo[3];
    const int64_t row = image * (c.height + s.in_halo[0] + s.in_halo[2]) + y + s.in_halo[0];
    return c.x[size_t((row * line + x + s.in_halo[1]) * s.in_channels + channel)];
  };
  const auto conv_at = [&](int64_t image, int64_t row, int64_t column, int64_t o) {
    int64_t acc = 0;
    for (int64_t ky = 0; ky < s.kernel[0]; ++ky) {
      for (int64_t kx = 0; kx < s.kernel[1]; ++kx) {
        for (int64_t i = 0; i < each; ++i) {
          const int64_t code =
              code_at(image, row * s.stride[0] + ky - s.pads[0],
                      column * s.stride[1] + kx - s.pads[1], s.groups > 1 ? o : i);
          acc += (code - s.pad_code) * weight(((o * s.kernel[0] + ky) * s.kernel[1] + kx) * each + i);
        }
      }
    }
    const float product = float(acc) * c.multiplier[size_t(o)];
    return product + c.bias[size_t(o)];
  };
  Result result;
  const int64_t border = s.out_halo, line = out.width + 2 * border;
  if (s.thresholds > 0) {
    result.codes.assign(size_t(c.n * (out.height + 2 * border) * line * s.out_channels),
                        uint8_t(s.out_pad_code));
  }
  for (int64_t image = 0; image < c.n; ++image) {
    for (int64_t row = 0; row < out.height; ++row) {
      for (int64_t column = 0; column < out.width; ++column) {
        for (int64_t o = 0; o < s.out_channels; ++o) {
          const size_t at = size_t(
              ((image * out.height + row) * out.width + column) * s.out_channels + o);
          float z;
          if (s.pool_size > 0) {
            z = -std::numeric_limits<float>::infinity();
            for (int64_t y = 0; y < s.pool_size; ++y) {
              for (int64_t x = 0; x < s.pool_size; ++x) {
                const int64_t r = row * s.pool_stride + y - s.pool_pad;
                const int64_t k = column * s.pool_stride + x - s.pool_pad;
                if (r < 0 || r >= rows || k < 0 || k >= columns) continue;
                float here = conv_at(image, r, k, o);
                if (s.relu) here = here > 0.0f ? here : 0.0f;
                z = here > z ? here : z;
              }
            }
          } else {
            z = conv_at(image, row, column, o);
            for (size_t i = 0; i < c.addends.size(); ++i) {
              const float addend = c.addends[i][at] * s.factors[i];
              z = z + addend;
            }
            if (s.relu) z = z > 0.0f ? z : 0.0f;
          }
          result.z.push_back(z);
          if (s.thresholds == 0) continue;
          if (!c.slope.empty()) {
            z = z + c.shift_in[size_t(o)];
            const float below = z * c.slope[size_t(o)];
            z = (z < 0.0f ? below : z) + c.shift_out[size_t(o)];
          }
          int code = 0;
          for (int64_t i = 0; i < s.thresholds; ++i) {
            const int64_t table_row = s.table_rows == 1 ? 0 : o;
            code += z >= c.table[size_t(table_row * s.thresholds + i)];
          }
          const int64_t place =
              (image * (out.height + 2 * border) + row + border) * line + border + column;
          result.codes[size_t(place * s.out_channels + o)] = uint8_t(code);
        }
      }
    }
  }
  return result;
}

inline bool cells_are_right(Source& random) {
  CellSpec spec;
  spec.repeats = random.draw(0, 3);
  spec.channels = (12 + 3 * spec.repeats + 3) / 4 * 4;
  for (int64_t& side : spec.halo) side = random.draw(0, 2);
  const int64_t n = random.draw(1, 2), height = 2 * random.draw(1, 9);
  const int64_t width = 2 * random.draw(1, 9);
  std::vector<uint8_t> image(size_t(n * 3 * height * width));
  std::vector<uint8_t> cells(size_t(n * (height / 2 + spec.halo[0] + spec.halo[2]) *
                                    (width / 2 + spec.halo[1] + spec.halo[3]) * spec.channels));
  for (uint8_t& pixel : image) pixel = uint8_t(random.draw(0, 255));
  make_cells(spec, image.data(), n, height, width, cells.data(), kInOrder);
  const int64_t rows = height / 2 + spec.halo[0] + spec.halo[2];
  const int64_t columns = width / 2 + spec.halo[1] + spec.halo[3];
  for (int64_t at = 0; at < n * rows * columns * spec.channels; ++at) {
    const int64_t byte = at % spec.channels, column = at / spec.channels % columns - spec.halo[1];
    const int64_t row = at / spec.channels / columns % rows - spec.halo[0];
    const int64_t batch = at / spec.channels / columns / rows;
    const int64_t pixel = byte < 12 ? byte / 3 : 0;
    const bool inside = row >= 0 && row < height / 2 && column >= 0 && column < width / 2;
    uint8_t expected = 0;
    if (inside && byte < 12 + 3 * spec.repeats) {
      expected = image[size_t(((batch * 3 + byte % 3) * height + 2 * row + pixel / 2) * width +
                              2 * column + pixel % 2)];
    }
    if (cells[size_t(at)] != expected) return false;
  }
  return true;
}

}  // namespace checking
}  // namespace qmdd
