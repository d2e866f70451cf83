// The kernels, written once over a small set of vector operations.
//
// An instruction set's file defines a struct with them and instantiates SimdKernels<it>:
//
//   lanes                    floats, or int32, in a vector
//   vectors, pixels          the register tile: `pixels` x `vectors` accumulators
//   F, I                     a vector of float, of int32
//   I zero(), load_i(void*), store_i(void*), add_i(I, I), mul_i(I, int32)
//   I codes(const uint8_t*)                   four of them, the same in every lane
//   I dot<wide>(I acc, I codes, I weights)    acc + sum of the lane's four products
//   has_short_sums: I short_dot(I sums, I codes, I weights), I widen(I sums)   in INT16, then INT32
//   F load(float*), load_part(float*, n), store, store_part; broadcast
//   F from_int(I), mul, add, max; prelu(F v, F slope)
//   I count(I codes, F v, F threshold)        codes + (v >= threshold)
//   I load_levels(int8_t[16]), look_up(I levels, I bytes, shift, mask)   byte by byte
//   void store_codes(uint8_t*, I, n)          the lowest byte of the first n lanes
//
// mul and add must never be contracted to a fused multiply-add (-ffp-contract=off).
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace qmdd {

template <class V>
struct SimdKernels {
  static constexpr int kPanel = V::lanes * V::vectors;
  static_assert(kPanel <= kMaxPanel);

  template <int M, bool Wide>
  static void tile(const DotArgs& args, const uint8_t* x, int32_t* acc) {
    typename V::I sums[M][V::vectors];
    for (int m = 0; m < M; ++m)
      for (int j = 0; j < V::vectors; ++j) sums[m][j] = V::zero();
    const int8_t* w = args.w;
    const ptrdiff_t pixel = args.pixel;
    for (int part = 0; part < args.parts; ++part) {
      if (part > 0) {
        for (int m = 0; m < M; ++m)
          for (int j = 0; j < V::vectors; ++j) sums[m][j] = V::mul_i(sums[m][j], args.part_base);
      }
      for (int64_t row = 0; row < args.rows; ++row) {
        const uint8_t* from = x + row * args.row;
        const uint8_t* const end = from + args.run;
        for (; from < end; from += 4, w += 4 * kPanel) {
          typename V::I weights[V::vectors];
          for (int j = 0; j < V::vectors; ++j) {
            weights[j] = V::load_i(w + 4 * V::lanes * j);
          }
          for (int m = 0; m < M; ++m) {
            const typename V::I codes = V::codes(from + m * pixel);
            for (int j = 0; j < V::vectors; ++j) {
              sums[m][j] = V::template dot<Wide>(sums[m][j], codes, weights[j]);
            }
          }
        }
        w += (args.w_run - args.run) * kPanel;
      }
    }
    for (int m = 0; m < M; ++m)
      for (int j = 0; j < V::vectors; ++j) V::store_i(acc + m * kPanel + V::lanes * j, sums[m][j]);
  }

  // The fewest steps after which short sums are worth being widened.
  static constexpr int64_t kFewestSteps = 8;

  template <int M>
  static void short_tile(const DotArgs& args, const uint8_t* x, int32_t* acc) {
    if constexpr (V::has_short_sums) {
      typename V::I total[M][V::vectors], sums[M][V::vectors];
      for (int m = 0; m < M; ++m)
        for (int j = 0; j < V::vectors; ++j) total[m][j] = sums[m][j] = V::zero();
      const int8_t* w = args.w;
      const ptrdiff_t pixel = args.pixel;
      int64_t room = args.short_steps;
      const auto widen = [&] {
        for (int m = 0; m < M; ++m)
          for (int j = 0; j < V::vectors; ++j) {
            total[m][j] = V::add_i(total[m][j], V::widen(sums[m][j]));
            sums[m][j] = V::zero();
          }
        room = args.short_steps;
      };
      for (int64_t row = 0; row < args.rows; ++row) {
        const uint8_t* from = x + row * args.row;
        for (int64_t left = args.run / 4; left > 0;) {
          const int64_t steps = left < room ? left : room;
          for (int64_t step = 0; step < steps; ++step, from += 4, w += 4 * kPanel) {
            typename V::I weights[V::vectors];
            for (int j = 0; j < V::vectors; ++j) weights[j] = V::load_i(w + 4 * V::lanes * j);
            for (int m = 0; m < M; ++m) {
              const typename V::I codes = V::codes(from + m * pixel);
              for (int j = 0; j < V::vectors; ++j) {
                sums[m][j] = V::short_dot(sums[m][j], codes, weights[j]);
              }
            }
          }
          left -= steps;
          room -= steps;
          if (room == 0) widen();
        }
        w += (args.w_run - args.run) * kPanel;
      }
      widen();
      for (int m = 0; m < M; ++m)
        for (int j = 0; j < V::vectors; ++j)
          V::store_i(acc + m * kPanel + V::lanes * j, total[m][j]);
    }
  }

  template <bool Wide>
  static void dot_any(const DotArgs& args) {
    const uint8_t* x = args.x;
    int32_t* acc = args.acc;
    // As few tiles as will do, of nearly equal size.
    int64_t left = args.count;
    for (int64_t tiles = (left + V::pixels - 1) / V::pixels; tiles > 0; --tiles) {
      const int64_t size = (left + tiles - 1) / tiles;
      rest<V::pixels, Wide>(args, x, acc, size);
      x += size * args.pixel;
      acc += size * kPanel;
      left -= size;
    }
  }

  template <int M, bool Wide>
  static void rest(const DotArgs& args, const uint8_t* x, int32_t* acc, int64_t left) {
    if (left == M) {
      const bool in_short = V::has_short_sums && !Wide && args.parts == 1;
      if (in_short && args.short_steps >= kFewestSteps) return short_tile<M>(args, x, acc);
      return tile<M, Wide>(args, x, acc);
    }
    if constexpr (M > 1) rest<M - 1, Wide>(args, x, acc, left);
  }

  static void dot(const DotArgs& args) {
    args.wide ? dot_any<true>(args) : dot_any<false>(args);
  }

  static void depthwise(const DepthwiseArgs& args) {
    for (int64_t pixel = 0; pixel < args.count; ++pixel) {
      int32_t* acc = args.acc + pixel * kPanel;
      std::memset(acc, 0, kPanel * sizeof(int32_t));
      const int16_t* w = args.w;
      for (int64_t row = 0; row < args.rows; ++row) {
        for (int64_t tap = 0; tap < args.taps; ++tap, w += args.stride) {
          const uint8_t* x = args.x + pixel * args.pixel + row * args.row + tap * args.tap;
          for (int64_t c = 0; c < args.channels; ++c) {
            const int32_t product = (int32_t(x[c]) - args.pad_code) * w[c];
            acc[c] = int32_t(uint32_t(acc[c]) + uint32_t(product));
          }
        }
      }
    }
  }

  template <int T>
  static typename V::I codes_of(typename V::F v, const typename V::F* t) {
    auto codes = V::zero();
    for (int i = 0; i < T; ++i) codes = V::count(codes, v, t[i]);
    return codes;
  }

  static typename V::I codes_of_many(typename V::F v, const float* table, ptrdiff_t stride,
                                     int64_t count) {
    auto codes = V::zero();
    for (int64_t i = 0; i < count; ++i) codes = V::count(codes, v, V::load(table + i * stride));
    return codes;
  }

  // One vector of channels, all pixels. Full: all its lanes are channels of the tensor.
  template <int T, bool Full>
  static void finish_vector(const FinishArgs& args, int64_t c, int64_t n) {
    using F = typename V::F;
    F t[T > 0 ? T : 1];
    for (int i = 0; i < T; ++i) t[i] = V::load(args.table + i * args.table_stride + c);
    const bool from_acc = args.acc != nullptr;
    const F multiplier = from_acc ? V::load(args.multiplier + c) : F{};
    const F bias = from_acc ? V::load(args.bias + c) : F{};
    const F factor0 = V::broadcast(args.factors[0]), factor1 = V::broadcast(args.factors[1]);
    for (int64_t pixel = 0; pixel < args.count; ++pixel) {
      const ptrdiff_t at = pixel * args.pixel + c;
      F z;
      if (from_acc) {
        auto sums = V::load_i(args.acc + pixel * kPanel + c);
        if (args.offset != nullptr) sums = V::add_i(sums, V::load_i(args.offset + c));
        z = V::from_int(sums);
        z = V::add(V::mul(z, multiplier), bias);
      } else {
        z = read<Full>(args.z_in + pixel * args.pixel_in + c, n);
      }
      if (args.addend_count > 0) z = V::add(z, V::mul(read<Full>(args.addends[0] + at, n), factor0));
      if (args.addend_count > 1) z = V::add(z, V::mul(read<Full>(args.addends[1] + at, n), factor1));
      if (args.relu) z = V::max(z, V::broadcast(0.0f));
      if (args.z != nullptr) {
        if constexpr (Full) V::store(args.z + at, z);
        else V::store_part(args.z + at, z, n);
      }
      if (T == 0) continue;
      if (args.slope != nullptr) {
        z = V::add(z, V::load(args.shift_in + c));
        z = V::add(V::prelu(z, V::load(args.slope + c)), V::load(args.shift_out + c));
      }
      typename V::I codes;
      if constexpr (T > 0) codes = codes_of<T>(z, t);
      else codes = codes_of_many(z, args.table + c, args.table_stride, args.thresholds);
      V::store_codes(args.codes + at, codes, Full ? V::lanes : n);
    }
  }

  template <bool Full>
  static typename V::F read(const float* from, int64_t n) {
    if constexpr (Full) return V::load(from);
    else return V::load_part(from, n);
  }

  template <int T>
  static void finish_with(const FinishArgs& args) {
    int64_t c = 0;
    for (; c + V::lanes <= args.channels; c += V::lanes) finish_vector<T, true>(args, c, V::lanes);
    if (c < args.channels) finish_vector<T, false>(args, c, args.channels - c);
  }

  static void finish(const FinishArgs& args) {
    if (args.codes == nullptr) return finish_with<0>(args);
    switch (args.thresholds) {
      case 1: return finish_with<1>(args);
      case 3: return finish_with<3>(args);
      case 7: return finish_with<7>(args);
      case 15: return finish_with<15>(args);
      default: return finish_with<-1>(args);
    }
  }

  static void expand(const ExpandArgs& args) {
    const int each = 8 / args.bits, mask = (1 << args.bits) - 1;
    const typename V::I levels = V::load_levels(args.levels);
    const uint8_t* packed = args.packed;
    int8_t* out = args.out;
    constexpr int bytes = 4 * V::lanes;
    for (int64_t block = 0; block < args.blocks; ++block, packed += 64, out += 64 * each) {
      for (int at = 0; at < 64; at += bytes) {
        const typename V::I codes = V::load_i(packed + at);
        for (int i = 0; i < each; ++i) {
          V::store_i(out + 64 * i + at, V::look_up(levels, codes, args.bits * i, mask));
        }
      }
    }
  }

  static void pool(const PoolArgs& args) {
    const int64_t whole = args.channels / V::lanes * V::lanes;
    for (int64_t pixel = 0; pixel < args.count; ++pixel) {
      const int64_t from = pixel * args.stride - args.pad;
      const int64_t left = from > 0 ? from : 0;
      const int64_t right = from + args.size < args.columns ? from + args.size : args.columns;
      for (int64_t c = 0; c < args.channels; c += V::lanes) {
        const int64_t n = c < whole ? V::lanes : args.channels - c;
        auto best = V::broadcast(-__builtin_inff());
        for (int64_t row = 0; row < args.row_count; ++row) {
          for (int64_t column = left; column < right; ++column) {
            const float* here = args.rows[row] + column * args.channels + c;
            best = V::max(c < whole ? V::load(here) : V::load_part(here, n), best);
          }
        }
        float* to = args.out + pixel * args.channels + c;
        if (c < whole) V::store(to, best);
        else V::store_part(to, best, n);
      }
    }
  }

  // Chains as in a tile, with nothing to load. At most 8 pixels: enough to cover the latency, and the
  // compiler moves and spills more of them, which would make less than the peak of it.
  static int64_t peak(int64_t rounds) {
    constexpr int pixels = V::pixels < 8 ? V::pixels : 8;
    alignas(64) uint8_t bytes[64];
    std::memset(bytes, 1, sizeof bytes);
    typename V::I sums[pixels][V::vectors], codes = V::codes(bytes);
    const typename V::I weights = V::load_i(bytes);
    for (auto& row : sums)
      for (auto& sum : row) sum = V::zero();
    for (int64_t i = 0; i < rounds; ++i) {
      keep(codes);
      for (auto& row : sums)
        for (auto& sum : row) sum = fewest_instructions(sum, codes, weights);
    }
    alignas(64) int32_t out[V::lanes];
    for (auto& row : sums)
      for (auto& sum : row) V::store_i(out, sum), keep_memory(out);
    return rounds * pixels * V::vectors * V::lanes * 4;
  }

  // The multiply-add that few bits allow.
  static typename V::I fewest_instructions(typename V::I sum, typename V::I codes,
                                           typename V::I weights) {
    if constexpr (V::has_short_sums) return V::short_dot(sum, codes, weights);
    else return V::template dot<false>(sum, codes, weights);
  }

  // To the compiler a new value in every round, so that none can be left out.
  static void keep(typename V::I& value) {
#if defined(__x86_64__)
    asm volatile("" : "+v"(value));  // any of the 32 registers
#else
    asm volatile("" : "+w"(value));
#endif
  }

  static void keep_memory(const int32_t* memory) { asm volatile("" : : "r"(memory) : "memory"); }

  static constexpr Kernels table(const char* name) {
    return {name, kPanel, 4, 2 * V::pixels, 0, dot, depthwise, finish, expand, pool, peak, nullptr, nullptr};
  }
};

}  // namespace qmdd
