// AVX-512 with VNNI: 64 multiply-adds of bytes an instruction.
#include <immintrin.h>

#include "simd_kernels.h"

namespace qmdd {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  // 14 pixels x 32 channels: 28 accumulators, two weights and the codes fill 31 of 32 registers, so
  // that a weight is read as seldom as can be.
  static constexpr int lanes = 16, vectors = 2, pixels = 14;
  static constexpr bool has_short_sums = false;

  static I zero() { return _mm512_setzero_si512(); }
  static I load_i(const void* from) { return _mm512_loadu_si512(from); }
  static void store_i(void* to, I v) { _mm512_storeu_si512(to, v); }
  static I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static I mul_i(I v, int32_t by) { return _mm512_mullo_epi32(v, _mm512_set1_epi32(by)); }
  static I codes(const uint8_t* four) {
    int32_t value;
    std::memcpy(&value, four, sizeof value);
    return _mm512_set1_epi32(value);
  }
  template <bool Wide>
  static I dot(I acc, I codes, I weights) {
    return _mm512_dpbusd_epi32(acc, codes, weights);
  }

  static I load_levels(const int8_t* levels) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
  }
  static I look_up(I levels, I bytes, int shift, int mask) {
    const I down = _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(shift));
    return _mm512_shuffle_epi8(levels, _mm512_and_si512(down, _mm512_set1_epi8(char(mask))));
  }

  static __mmask16 first(int64_t n) { return __mmask16((1u << n) - 1); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static F load_part(const float* from, int64_t n) { return _mm512_maskz_loadu_ps(first(n), from); }
  static void store(float* to, F v) { _mm512_storeu_ps(to, v); }
  static void store_part(float* to, F v, int64_t n) { _mm512_mask_storeu_ps(to, first(n), v); }
  static F broadcast(float v) { return _mm512_set1_ps(v); }
  static F from_int(I v) { return _mm512_cvtepi32_ps(v); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F prelu(F v, F slope) {
    const __mmask16 below = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mul_ps(v, below, v, slope);
  }
  static I count(I codes, F v, F threshold) {
    const __mmask16 reached = _mm512_cmp_ps_mask(v, threshold, _CMP_GE_OQ);
    return _mm512_mask_add_epi32(codes, reached, codes, _mm512_set1_epi32(1));
  }
  static void store_codes(uint8_t* to, I codes, int64_t n) {
    _mm512_mask_cvtepi32_storeu_epi8(to, n == lanes ? __mmask16(0xffff) : first(n), codes);
  }
};

}  // namespace

const Kernels kAvx512Kernels = SimdKernels<Avx512>::table("avx512-vnni");

}  // namespace qmdd
