// What differs from one instruction set to the next; each kernels_*.cpp fills one table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace qmdd {

// Vectors are loaded at their own width: memory on cache lines.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t count) {
    const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes == 0 ? 64 : bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) { std::free(memory); }
  template <class U>
  bool operator==(const Aligned<U>&) const { return true; }
  template <class U>
  bool operator!=(const Aligned<U>&) const { return false; }
};

// Sums of `count` neighbouring output pixels, for one panel of output channels. A window is `rows`
// runs of `run` bytes (channels last: the pixels of a kernel's row lie side by side).
struct DotArgs {
  const uint8_t* x;    // window of the first pixel
  ptrdiff_t pixel;     // bytes from one pixel's window to the next
  ptrdiff_t row;       // bytes from one run to the next
  int64_t rows, run;   // run: a multiple of 4
  const uint8_t* x_end;  // of the memory that may be read
  const int8_t* w;     // [parts][rows][w_run / 4][panel][4], zero beyond run
  int64_t w_run;       // run, up to a multiple of the kernels' depth
  int parts;
  int32_t part_base;
  bool wide;           // a code may pass 127, or the sum of two products INT16
  int64_t short_steps;  // times that two products can be added in INT16
  int64_t count;
  int32_t* acc;        // [count][panel]
};

// The same where every channel has its own kernel.
struct DepthwiseArgs {
  const uint8_t* x;
  ptrdiff_t pixel, row, tap;  // bytes to the next window, kernel row, pixel of a kernel row
  int64_t rows, taps;
  int32_t pad_code;           // taken from every code
  const int16_t* w;           // [rows * taps][stride]
  ptrdiff_t stride;
  int64_t channels;           // of this call
  int64_t count;
  int32_t* acc;               // [count][panel]
};

// From sums (or floats) to floats and codes; pointers are those of the first pixel and channel.
struct FinishArgs {
  const int32_t* acc;     // [count][panel], or null: z_in is read
  const float* z_in;      // [count][pixel_in]
  ptrdiff_t pixel_in;
  int64_t count, channels;
  const int32_t* offset;  // added to sums, or null
  const float *multiplier, *bias;
  const float* addends[2];  // [count][pixel]
  float factors[2];
  int addend_count;
  bool relu;
  const float *shift_in, *slope, *shift_out;  // all or none
  const float* table;      // [thresholds][table_stride], null: no codes
  ptrdiff_t table_stride;
  int64_t thresholds;
  ptrdiff_t pixel;         // floats from pixel to pixel of addends and z; bytes of codes
  float* z;                // or null
  uint8_t* codes;          // or null
};

// Weights of 2 or 4 bits to bytes: out[64 i + j] = levels[bits i .. of packed byte j], for each
// block of 64 packed bytes. Narrow weights stay narrow in memory: what an image needs of them comes
// from afar once, and then fits the second cache.
struct ExpandArgs {
  const uint8_t* packed;
  int bits;
  const int8_t* levels;  // [16]
  int8_t* out;
  int64_t blocks;
};

// The maximum over a window of each channel, for one row of output pixels.
struct PoolArgs {
  const float* const* rows;  // those of the window that exist, each [columns][channels]
  int64_t row_count, columns, channels;
  int64_t size, stride, pad;  // along a row
  int64_t count;
  float* out;                // [count][channels]
};

struct Kernels {
  const char* name;
  int panel;  // output channels that are computed together; at most kMaxPanel
  int depth;  // bytes of a run that are multiplied at once: 4, or more
  int span;   // pixels that are worth one call of dot; at most kMaxSpan
  // Narrower rows are computed several at once, over the pixels between them too; 0: never.
  int gather_below;
  void (*dot)(const DotArgs&);
  void (*depthwise)(const DepthwiseArgs&);
  void (*finish)(const FinishArgs&);
  void (*expand)(const ExpandArgs&);
  void (*pool)(const PoolArgs&);
  // Multiply-adds done by `rounds` rounds of the instruction that dot uses, operands in registers.
  int64_t (*peak)(int64_t rounds);
  // Around every item of work, on its thread; or null.
  void (*begin)();
  void (*end)();
};

constexpr int kMaxPanel = 64, kMaxSpan = 64;
constexpr int64_t kMaxThresholds = 255;

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels, kAvxVnniKernels, kAvx512Kernels, kNeonKernels;
Kernels amx_kernels();
bool request_amx();

// The tables that were built and that this processor can run, the fastest first; scalar is last.
const Kernels* const* available_kernels(size_t* count);
// By name; null: not built, or this processor has no such instructions.
const Kernels* find_kernels(const char* name);

}  // namespace qmdd
