// 64-bit ARM with the dot product extension: 16 multiply-adds of signed bytes an instruction.
#include <arm_neon.h>

#include "simd_kernels.h"

namespace qmdd {
namespace {

struct Neon {
  using F = float32x4_t;
  using I = int32x4_t;
  // 6 pixels x 16 channels: 24 accumulators, four weights and the codes of 32 registers.
  static constexpr int lanes = 4, vectors = 4, pixels = 6;
  static constexpr bool has_short_sums = false;

  static I zero() { return vdupq_n_s32(0); }
  static I load_i(const void* from) {
    return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(from)));
  }
  static void store_i(void* to, I v) {
    vst1q_u8(static_cast<uint8_t*>(to), vreinterpretq_u8_s32(v));
  }
  static I add_i(I a, I b) { return vaddq_s32(a, b); }
  static I mul_i(I v, int32_t by) { return vmulq_n_s32(v, by); }
  static I codes(const uint8_t* four) {
    int32_t value;
    std::memcpy(&value, four, sizeof value);
    return vdupq_n_s32(value);
  }
  template <bool Wide>
  static I dot(I acc, I codes, I weights) {
    const int8x16_t w = vreinterpretq_s8_s32(weights);
    if constexpr (Wide) {  // a code above 127 is no signed byte: code = 2 * (code / 2) + code % 2
      const uint8x16_t bytes = vreinterpretq_u8_s32(codes);
      const int8x16_t half = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 1));
      const int8x16_t rest = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(1)));
      return vdotq_s32(vdotq_s32(vdotq_s32(acc, half, w), half, w), rest, w);
    } else {
      return vdotq_s32(acc, vreinterpretq_s8_s32(codes), w);
    }
  }

  static I load_levels(const int8_t* levels) { return load_i(levels); }
  static I look_up(I levels, I bytes, int shift, int mask) {
    const uint8x16_t down = vshlq_u8(vreinterpretq_u8_s32(bytes), vdupq_n_s8(int8_t(-shift)));
    const uint8x16_t index = vandq_u8(down, vdupq_n_u8(uint8_t(mask)));
    return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(levels), index));
  }

  static F load(const float* from) { return vld1q_f32(from); }
  static F load_part(const float* from, int64_t n) {
    float lanes4[4] = {0, 0, 0, 0};
    std::memcpy(lanes4, from, size_t(n) * sizeof(float));
    return vld1q_f32(lanes4);
  }
  static void store(float* to, F v) { vst1q_f32(to, v); }
  static void store_part(float* to, F v, int64_t n) {
    float lanes4[4];
    vst1q_f32(lanes4, v);
    std::memcpy(to, lanes4, size_t(n) * sizeof(float));
  }
  static F broadcast(float v) { return vdupq_n_f32(v); }
  static F from_int(I v) { return vcvtq_f32_s32(v); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // b where a is no number
  static F prelu(F v, F slope) {
    return vbslq_f32(vcltq_f32(v, vdupq_n_f32(0.0f)), vmulq_f32(v, slope), v);
  }
  static I count(I codes, F v, F threshold) {
    return vsubq_s32(codes, vreinterpretq_s32_u32(vcgeq_f32(v, threshold)));
  }
  static void store_codes(uint8_t* to, I codes, int64_t n) {
    const uint16x4_t shorts = vmovn_u32(vreinterpretq_u32_s32(codes));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(shorts, shorts));
    const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    std::memcpy(to, &four, size_t(n));
  }
};

}  // namespace

const Kernels kNeonKernels = SimdKernels<Neon>::table("neon-dotprod");

}  // namespace qmdd
