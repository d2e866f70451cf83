// The kernels, each against the definition or against the scalar one.
#include <stdexcept>

#include "fuzz.h"
#include "mean_pool.h"

namespace fuzz {

using namespace qmdd;
using namespace qmdd::checking;

namespace {

template <class Body>
void for_all_kernels(Body body) {
  size_t count = 0;
  const Kernels* const* tables = available_kernels(&count);
  for (size_t i = 0; i < count; ++i) body(*tables[i]);
}

// Floats that end where nothing can be read, at an address that only floats are aligned to.
struct Floats {
  Guarded bytes;
  explicit Floats(const std::vector<float>& values) {
    bytes = Guarded(values.size() * sizeof(float));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  const float* data() const { return reinterpret_cast<const float*>(bytes.data()); }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  Result left, right;
  left.z = a;
  right.z = b;
  return left == right;
}

// Tables are laid out for vectors: aligned, and as wide as the widest panel.
using Wide = std::vector<float, Aligned<float>>;

Wide wide(Bytes& bytes, int64_t rows) {
  Wide all(size_t(rows * kMaxPanel));
  for (float& value : all) value = draw_float(bytes);
  return all;
}

void finish(Bytes& bytes) {
  FinishArgs args{};
  args.count = bytes.draw(1, 9);
  args.channels = bytes.draw(1, kMaxPanel);
  args.pixel = args.channels + bytes.draw(0, 5);
  args.pixel_in = args.channels + bytes.draw(0, 5);
  const int64_t counts[] = {1, 3, 7, 15, bytes.draw(1, 255)};
  args.thresholds = counts[bytes.draw(0, 4)];
  const Wide table = wide(bytes, args.thresholds), shift_in = wide(bytes, 1);
  const Wide slope = wide(bytes, 1), shift_out = wide(bytes, 1);
  args.table = table.data();
  args.table_stride = kMaxPanel;
  args.addend_count = int(bytes.draw(0, 2));
  args.relu = bytes.draw(0, 1);
  if (bytes.draw(0, 1)) {
    args.shift_in = shift_in.data();
    args.slope = slope.data();
    args.shift_out = shift_out.data();
  }
  const int64_t last = args.count - 1;
  const Floats in(draw_floats(bytes, last * args.pixel_in + args.channels));
  args.z_in = in.data();
  const size_t size = size_t(last * args.pixel + args.channels);
  const Floats addends[] = {Floats(draw_floats(bytes, int64_t(size))),
                            Floats(draw_floats(bytes, int64_t(size)))};
  for (int i = 0; i < args.addend_count; ++i) {
    args.addends[i] = addends[i].data();
    args.factors[i] = draw_float(bytes);
  }
  const bool codes_wanted = bytes.draw(0, 3) > 0, z_wanted = bytes.draw(0, 1);
  const auto run = [&](const Kernels& kernels) {
    Result result;
    result.codes.assign(size, 77);
    result.z.assign(size, 77.0f);
    FinishArgs mine = args;
    mine.codes = codes_wanted ? result.codes.data() : nullptr;
    mine.z = z_wanted ? result.z.data() : nullptr;
    kernels.finish(mine);
    return result;
  };
  const Result expected = run(kScalarKernels);
  for_all_kernels([&](const Kernels& kernels) {
    if (!(run(kernels) == expected)) fail("finish differs from scalar", kernels.name);
  });
}

void pool(Bytes& bytes) {
  PoolArgs args{};
  args.columns = bytes.draw(1, 12);
  args.channels = bytes.draw(1, kMaxPanel);
  args.row_count = bytes.draw(1, 8);
  args.size = bytes.draw(1, 8);
  args.stride = bytes.draw(1, 8);
  args.pad = bytes.draw(0, args.size - 1);
  const int64_t grown = args.columns + 2 * args.pad - args.size;
  if (grown < 0) return;
  args.count = grown / args.stride + 1;
  std::vector<Floats> held;
  held.reserve(size_t(args.row_count));
  std::vector<const float*> rows;
  for (int64_t i = 0; i < args.row_count; ++i) {
    held.emplace_back(draw_floats(bytes, args.columns * args.channels));
    rows.push_back(held.back().data());
  }
  args.rows = rows.data();
  const auto run = [&](const Kernels& kernels) {
    std::vector<float> out(size_t(args.count * args.channels));
    PoolArgs mine = args;
    mine.out = out.data();
    kernels.pool(mine);
    return out;
  };
  const auto expected = run(kScalarKernels);
  for_all_kernels([&](const Kernels& kernels) {
    if (!same(run(kernels), expected)) fail("pool differs from scalar", kernels.name);
  });
}

void expand(Bytes& bytes) {
  ExpandArgs args{};
  args.bits = bytes.draw(0, 1) ? 2 : 4;
  args.blocks = bytes.draw(1, 5);
  alignas(16) int8_t levels[16];
  for (int8_t& level : levels) level = int8_t(bytes.draw(-128, 127));
  args.levels = levels;
  std::vector<uint8_t, Aligned<uint8_t>> packed(size_t(args.blocks * 64));
  for (uint8_t& byte : packed) byte = uint8_t(bytes.draw(0, 255));
  args.packed = packed.data();
  const auto run = [&](const Kernels& kernels) {
    std::vector<int8_t, Aligned<int8_t>> out(packed.size() * size_t(8 / args.bits));
    ExpandArgs mine = args;
    mine.out = out.data();
    kernels.expand(mine);
    return out;
  };
  const auto expected = run(kScalarKernels);
  for_all_kernels([&](const Kernels& kernels) {
    if (run(kernels) != expected) fail("expand differs from scalar", kernels.name);
  });
}

void averages(Bytes& bytes) {
  MeanPoolSpec spec;
  for (int64_t& side : spec.window) side = bytes.draw(1, 2);
  spec.round_up = bytes.draw(0, 1);
  const int64_t n = bytes.draw(1, 2), height = bytes.draw(1, 6), width = bytes.draw(1, 6);
  const int64_t channels = bytes.draw(1, 40);
  const Floats x(draw_floats(bytes, n * height * width * channels));
  const Extent out = mean_pool_output(spec, height, width);
  std::vector<float> got(size_t(n * out.height * out.width * channels));
  mean_pool(spec, x.data(), n, height, width, channels, got.data(), kInOrder);
  std::vector<float> expected;
  const auto at = [&](int64_t image, int64_t row, int64_t column, int64_t c) {
    return x.data()[((image * height + row) * width + column) * channels + c];
  };
  const auto along = [&](int64_t image, int64_t row, int64_t column, int64_t c) {
    if (spec.window[1] == 1 || column + 1 == width) return at(image, row, column, c);
    return (at(image, row, column, c) + at(image, row, column + 1, c)) * 0.5f;
  };
  for (int64_t image = 0; image < n; ++image) {
    for (int64_t row = 0; row < out.height; ++row) {
      for (int64_t column = 0; column < out.width; ++column) {
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t r = row * spec.window[0], k = column * spec.window[1];
          float value = along(image, r, k, c);
          if (spec.window[0] == 2 && r + 1 < height) value = (value + along(image, r + 1, k, c)) * 0.5f;
          expected.push_back(value);
        }
      }
    }
  }
  if (!same(got, expected)) fail("averages differ from the definition", "mean_pool");
}

}  // namespace

void convolution(Bytes& bytes) {
  try {
    const Case drawn(bytes, true);
    const Result expected = by_definition(drawn);
    for_all_kernels([&](const Kernels& kernels) {
      if (!(run(drawn, kernels) == expected)) fail("differs from the definition", kernels.name);
    });
  } catch (const std::invalid_argument&) {
    // Refused: by the parts themselves, whatever the kernels.
  }
}

void kernel_parts(Bytes& bytes) {
  switch (bytes.draw(0, 3)) {
    case 0: return pool(bytes);
    case 1: return expand(bytes);
    default: return finish(bytes);
  }
}

void arrangements(Bytes& bytes) {
  if (bytes.draw(0, 1)) return averages(bytes);
  if (!cells_are_right(bytes)) fail("cells differ from the definition", "make_cells");
}

}  // namespace fuzz
