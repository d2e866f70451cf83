#include "pixel_cells.h"

#include <cstring>
#include <stdexcept>

namespace qmdd {

void check_cells(const CellSpec& spec) {
  bool fits = spec.repeats >= 0 && spec.repeats <= 16 && spec.channels <= 64 &&
              spec.channels >= 12 + 3 * spec.repeats;
  for (const int64_t side : spec.halo) fits = fits && side >= 0 && side <= 64;
  if (!fits) throw std::invalid_argument("cells hold 12 bytes and 3 for each repeat, 64 at most");
}

void make_cells(const CellSpec& spec, const uint8_t* image, int64_t n, int64_t height,
                int64_t width, uint8_t* cells, const Parallel& parallel) {
  struct Work {
    const CellSpec& spec;
    const uint8_t* image;
    uint8_t* cells;
    int64_t height, width, rows, columns;  // of the image; of cells with their halo
  };
  Work work{spec,   image, cells, height, width, height / 2 + spec.halo[0] + spec.halo[2],
            width / 2 + spec.halo[1] + spec.halo[3]};
  parallel.run(
      parallel.context,
      [](void* user, size_t index) {
        const Work& w = *static_cast<Work*>(user);
        const CellSpec& s = w.spec;
        const int64_t batch = int64_t(index) / w.rows, row = int64_t(index) % w.rows - s.halo[0];
        uint8_t* line = w.cells + int64_t(index) * w.columns * s.channels;
        std::memset(line, 0, size_t(w.columns * s.channels));
        if (row < 0 || row >= w.height / 2) return;
        uint8_t* cell = line + s.halo[1] * s.channels;
        const int64_t plane = w.height * w.width;
        const uint8_t* top = w.image + batch * 3 * plane + 2 * row * w.width;
        for (int64_t column = 0; column < w.width / 2; ++column, cell += s.channels) {
          for (int64_t colour = 0; colour < 3; ++colour) {
            const uint8_t* pixels = top + colour * plane + 2 * column;
            for (int64_t i = 0; i < 4; ++i) {
              cell[3 * i + colour] = pixels[i / 2 * w.width + i % 2];
            }
            for (int64_t i = 0; i < s.repeats; ++i) cell[12 + 3 * i + colour] = pixels[0];
          }
        }
      },
      size_t(n * work.rows), &work);
}

}  // namespace qmdd
