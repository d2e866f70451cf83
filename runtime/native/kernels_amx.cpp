// AMX: 16 x 16 x 64 multiply-adds of bytes an instruction, on tiles of 16 pixels and 16 channels.
// What comes after the sums, and what does not fill tiles, is AVX-512's.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels.h"

namespace qmdd {
namespace {

constexpr int kPanel = 32, kTile = 16, kDepth = 64;

// All eight tiles: 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void begin() {
  static const TileConfig config;
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

// Tiles 0 to 3 are sums (pixels x channels), 4 and 5 codes, 6 and 7 weights.
void tiles_32(const DotArgs& args, const uint8_t* x, int32_t* acc) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int8_t* w = args.w;
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint8_t* from = x + row * args.row;
    for (int64_t k = 0; k < args.w_run; k += kDepth, w += kDepth * kPanel) {
      _tile_loadd(4, from + k, args.pixel);
      _tile_loadd(6, w, 4 * kPanel);
      _tile_loadd(7, w + 4 * kTile, 4 * kPanel);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      _tile_loadd(5, from + kTile * args.pixel + k, args.pixel);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, acc, 4 * kPanel);
  _tile_stored(1, acc + kTile, 4 * kPanel);
  _tile_stored(2, acc + kTile * kPanel, 4 * kPanel);
  _tile_stored(3, acc + kTile * kPanel + kTile, 4 * kPanel);
}

void tiles_16(const DotArgs& args, const uint8_t* x, int32_t* acc) {
  _tile_zero(0);
  _tile_zero(1);
  const int8_t* w = args.w;
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint8_t* from = x + row * args.row;
    for (int64_t k = 0; k < args.w_run; k += kDepth, w += kDepth * kPanel) {
      _tile_loadd(4, from + k, args.pixel);
      _tile_loadd(6, w, 4 * kPanel);
      _tile_loadd(7, w + 4 * kTile, 4 * kPanel);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
    }
  }
  _tile_stored(0, acc, 4 * kPanel);
  _tile_stored(1, acc + kTile, 4 * kPanel);
}

void dot(const DotArgs& args) {
  // Whole tiles may read beyond the last pixel's window (what they find there meets zeros).
  const uint8_t* last = args.x + (args.count - 1) * args.pixel + (args.rows - 1) * args.row;
  if (args.parts > 1 || args.count < kTile || args.w_run > args.x_end - last) {
    return kAvx512Kernels.dot(args);
  }
  int64_t at = 0;
  for (; at + 2 * kTile <= args.count; at += 2 * kTile) {
    tiles_32(args, args.x + at * args.pixel, args.acc + at * kPanel);
  }
  for (; at < args.count; at += kTile) {
    // The last tile overlaps the one before it where pixels do not fill it.
    const int64_t first = at + kTile <= args.count ? at : args.count - kTile;
    tiles_16(args, args.x + first * args.pixel, args.acc + first * kPanel);
  }
}

int64_t peak(int64_t rounds) {
  begin();
  for (int tile = 0; tile < 1; ++tile) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
  }
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  end();
  return rounds * 4 * kTile * kTile * kDepth;
}

}  // namespace

// Linux gives a process the tiles' registers when it asks for them.
bool request_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Kernels amx_kernels() {
  Kernels kernels = kAvx512Kernels;
  kernels.name = "amx";
  kernels.depth = kDepth;
  kernels.span = kMaxSpan;
  kernels.gather_below = kTile;
  kernels.dot = dot;
  kernels.peak = peak;
  kernels.begin = begin;
  kernels.end = end;
  return kernels;
}

}  // namespace qmdd
