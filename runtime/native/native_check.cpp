// Every kernel that this processor can run against the scalar one, on convolutions drawn at random:
// native_check [count] [seed]. Exit code 1 and a line for the first that differs.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "conv.h"
#include "pixel_cells.h"

using namespace qmdd;

namespace {

using Random = std::mt19937_64;

int64_t draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

// Numbers near each other, so that sums meet thresholds exactly, and now and then an extreme one.
float draw_float(Random& random) {
  switch (draw(random, 0, 15)) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return std::numeric_limits<float>::infinity();
    case 3: return -std::numeric_limits<float>::infinity();
    case 4: return std::numeric_limits<float>::quiet_NaN();
    case 5: return std::numeric_limits<float>::denorm_min() * float(draw(random, -9, 9));
    case 6: return std::numeric_limits<float>::max();
    default: return float(draw(random, -64, 64)) / 8.0f;
  }
}

struct Case {
  ConvSpec spec;
  std::vector<uint8_t> weights, x;
  std::vector<float> multiplier, bias, table, shift_in, slope, shift_out;
  std::vector<std::vector<float>> addends;
  int64_t n, height, width;

  explicit Case(Random& random) {
    const auto floats = [&](int64_t count) {
      std::vector<float> all(static_cast<size_t>(count));
      for (float& v : all) v = draw_float(random);
      return all;
    };
    const bool pooled = draw(random, 0, 4) == 0, depthwise = draw(random, 0, 4) == 0;
    spec.out_channels = draw(random, 1, 70);
    spec.in_channels = depthwise ? spec.out_channels : draw(random, 1, 40);
    spec.groups = depthwise ? spec.out_channels : 1;
    for (int i = 0; i < 2; ++i) {
      spec.kernel[i] = draw(random, 1, 4);
      spec.stride[i] = draw(random, 1, 3);
    }
    for (int i = 0; i < 4; ++i) {
      spec.pads[i] = draw(random, 0, 2);
      spec.in_halo[i] = draw(random, 0, 2);
    }
    spec.out_halo = draw(random, 0, 2);
    spec.bits = draw(random, 1, 8);
    const int64_t levels = int64_t(1) << spec.bits;
    spec.step = draw(random, 1, 2);
    spec.first = spec.step == 2 ? 1 - levels : -levels / 2;
    spec.top_code = draw(random, 0, 2) ? (int64_t(1) << draw(random, 1, 4)) - 1 : 255;
    spec.pad_code = draw(random, 0, 2) ? 0 : draw(random, 0, spec.top_code);
    spec.out_pad_code = draw(random, 0, 3);
    spec.relu = draw(random, 0, 1);
    const int64_t counts[] = {0, 1, 3, 7, 15, 31, 255, 2};
    spec.thresholds = counts[draw(random, 0, 7)];
    spec.table_rows = draw(random, 0, 1) ? 1 : spec.out_channels;
    if (pooled) {
      spec.pool_size = draw(random, 2, 3);
      spec.pool_stride = draw(random, 1, 3);
      spec.pool_pad = draw(random, 0, 1);
    }
    const int64_t window = spec.kernel[0] * spec.kernel[1];
    const int64_t count = spec.out_channels * window * spec.in_channels / spec.groups;
    weights.resize(size_t((count * spec.bits + 7) / 8));
    for (uint8_t& byte : weights) byte = uint8_t(draw(random, 0, 255));
    multiplier = floats(spec.out_channels);
    bias = floats(spec.out_channels);
    table = floats(spec.table_rows * spec.thresholds);
    if (draw(random, 0, 1)) {
      shift_in = floats(spec.out_channels);
      slope = floats(spec.out_channels);
      shift_out = floats(spec.out_channels);
    }
    n = draw(random, 1, 2);
    height = draw(random, 5, 14);
    width = draw(random, 5, 40);
    const int64_t padded_height = height + spec.in_halo[0] + spec.in_halo[2];
    const int64_t padded_width = width + spec.in_halo[1] + spec.in_halo[3];
    x.resize(size_t(n * padded_height * padded_width * spec.in_channels));
    for (uint8_t& code : x) code = uint8_t(draw(random, 0, spec.top_code));
    if (!pooled) {
      const int64_t addend_count = draw(random, 0, 2);
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

const Parallel kInOrder = {nullptr, [](void*, void (*body)(void*, size_t), size_t count,
                                       void* user) {
                             for (size_t i = 0; i < count; ++i) body(user, i);
                           }};

Result run(const Case& c, const Kernels& kernels) {
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

void check_cells_once(Random& random) {
  CellSpec spec;
  spec.repeats = draw(random, 0, 3);
  spec.channels = (12 + 3 * spec.repeats + 3) / 4 * 4;
  for (int64_t& side : spec.halo) side = draw(random, 0, 2);
  const int64_t n = draw(random, 1, 2), height = 2 * draw(random, 1, 9);
  const int64_t width = 2 * draw(random, 1, 9);
  std::vector<uint8_t> image(size_t(n * 3 * height * width));
  std::vector<uint8_t> cells(size_t(n * (height / 2 + spec.halo[0] + spec.halo[2]) *
                                    (width / 2 + spec.halo[1] + spec.halo[3]) * spec.channels));
  make_cells(spec, image.data(), n, height, width, cells.data(), kInOrder);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 1000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  size_t tables = 0;
  const Kernels* const* kernels = available_kernels(&tables);
  for (int64_t number = 0; number < count; ++number) {
    Random random(seed * 1000003 + uint64_t(number));
    check_cells_once(random);
    try {
      const Case drawn(random);
      const Result expected = run(drawn, kScalarKernels);
      for (size_t i = 0; i + 1 < tables; ++i) {
        if (run(drawn, *kernels[i]) == expected) continue;
        std::printf("%s differs from scalar: seed %llu, convolution %lld\n", kernels[i]->name,
                    static_cast<unsigned long long>(seed), static_cast<long long>(number));
        return 1;
      }
    } catch (const std::exception& error) {
      // Drawn parts need not fit together; what is refused is refused by every kernel.
      if (std::string(error.what()) == "the image is too small") continue;
      std::printf("convolution %lld: %s\n", static_cast<long long>(number), error.what());
      return 1;
    }
  }
  std::printf("%lld convolutions, %zu kernels: equal\n", static_cast<long long>(count), tables);
  return 0;
}
