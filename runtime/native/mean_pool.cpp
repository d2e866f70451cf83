#include "mean_pool.h"

#include <stdexcept>

namespace qmdd {
namespace {

int64_t sides(int64_t length, int64_t window, bool round_up) {
  return (length + (round_up ? window - 1 : 0)) / window;
}

}  // namespace

void check_mean_pool(const MeanPoolSpec& spec) {
  for (const int64_t side : spec.window) {
    if (side != 1 && side != 2) throw std::invalid_argument("windows have sides of 1 or 2");
  }
}

Extent mean_pool_output(const MeanPoolSpec& spec, int64_t height, int64_t width) {
  return {sides(height, spec.window[0], spec.round_up), sides(width, spec.window[1], spec.round_up)};
}

void mean_pool(const MeanPoolSpec& spec, const float* x, int64_t n, int64_t height, int64_t width,
               int64_t channels, float* out, const Parallel& parallel) {
  struct Work {
    const MeanPoolSpec& spec;
    const float* x;
    float* out;
    int64_t height, width, channels;
    Extent extent;
  };
  Work work{spec, x, out, height, width, channels, mean_pool_output(spec, height, width)};
  parallel.run(
      parallel.context,
      [](void* user, size_t index) {
        const Work& w = *static_cast<Work*>(user);
        const int64_t image = int64_t(index) / w.extent.height;
        const int64_t row = int64_t(index) % w.extent.height * w.spec.window[0];
        const bool two_rows = w.spec.window[0] == 2 && row + 1 < w.height;
        const int64_t line = w.width * w.channels;
        const float* top = w.x + (image * w.height + row) * line;
        float* out = w.out + int64_t(index) * w.extent.width * w.channels;
        for (int64_t i = 0; i < w.extent.width; ++i, out += w.channels) {
          const int64_t column = i * w.spec.window[1];
          const bool two_columns = w.spec.window[1] == 2 && column + 1 < w.width;
          const float* a = top + column * w.channels;
          const float* right = two_columns ? a + w.channels : a;
          const float* b = two_rows ? a + line : a;
          const float* below_right = two_rows ? right + line : right;
          if (two_columns) {
            const auto upper = [=](int64_t c) { return (a[c] + right[c]) * 0.5f; };
            const auto lower = [=](int64_t c) { return (b[c] + below_right[c]) * 0.5f; };
            if (two_rows) {
              for (int64_t c = 0; c < w.channels; ++c) out[c] = (upper(c) + lower(c)) * 0.5f;
            } else {
              for (int64_t c = 0; c < w.channels; ++c) out[c] = upper(c);
            }
          } else if (two_rows) {
            for (int64_t c = 0; c < w.channels; ++c) out[c] = (a[c] + b[c]) * 0.5f;
          } else {
            for (int64_t c = 0; c < w.channels; ++c) out[c] = a[c];
          }
        }
      },
      size_t(n * work.extent.height), &work);
}

}  // namespace qmdd
