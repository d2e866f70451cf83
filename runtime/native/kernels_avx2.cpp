// AVX2, and with QMDD_AVX_VNNI its VNNI form: 32 multiply-adds of bytes by one instruction, else by
// three (or, where two products may pass INT16, by more).
#include <immintrin.h>

#include "simd_kernels.h"

namespace qmdd {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  // 6 pixels x 16 channels: 12 accumulators, two weights and the codes fill 15 of 16 registers.
  static constexpr int lanes = 8, vectors = 2, pixels = 6;
#if defined(QMDD_AVX_VNNI)
  static constexpr bool has_short_sums = false;
#else
  static constexpr bool has_short_sums = true;
#endif

  static I zero() { return _mm256_setzero_si256(); }
  static I load_i(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void store_i(void* to, I v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }
  static I add_i(I a, I b) { return _mm256_add_epi32(a, b); }
  static I mul_i(I v, int32_t by) { return _mm256_mullo_epi32(v, _mm256_set1_epi32(by)); }
  static I codes(const uint8_t* four) {
    int32_t value;
    std::memcpy(&value, four, sizeof value);
    return _mm256_set1_epi32(value);
  }
  template <bool Wide>
  static I dot(I acc, I codes, I weights) {
#if defined(QMDD_AVX_VNNI)
    return _mm256_dpbusd_avx_epi32(acc, codes, weights);
#else
    if constexpr (Wide) {  // bytes 0 and 2, then 1 and 3, as INT16
      const I even = _mm256_and_si256(codes, _mm256_set1_epi32(0x00ff00ff));
      const I odd = _mm256_srli_epi16(codes, 8);
      const I even_w = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8);
      const I odd_w = _mm256_srai_epi16(weights, 8);
      const I pairs =
          _mm256_add_epi32(_mm256_madd_epi16(even, even_w), _mm256_madd_epi16(odd, odd_w));
      return _mm256_add_epi32(acc, pairs);
    } else {
      const I pairs = _mm256_maddubs_epi16(codes, weights);
      return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
  }

  static I load_levels(const int8_t* levels) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
  }
  static I look_up(I levels, I bytes, int shift, int mask) {
    const I down = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift));
    return _mm256_shuffle_epi8(levels, _mm256_and_si256(down, _mm256_set1_epi8(char(mask))));
  }

#if !defined(QMDD_AVX_VNNI)
  // Few bits leave room: pairs of products are summed in INT16 as long as they fit, which saves an
  // instruction of three.
  static I short_dot(I sums, I codes, I weights) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, weights));
  }
  static I widen(I sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
#endif

  static I first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static F load_part(const float* from, int64_t n) { return _mm256_maskload_ps(from, first(n)); }
  static void store(float* to, F v) { _mm256_storeu_ps(to, v); }
  static void store_part(float* to, F v, int64_t n) { _mm256_maskstore_ps(to, first(n), v); }
  static F broadcast(float v) { return _mm256_set1_ps(v); }
  static F from_int(I v) { return _mm256_cvtepi32_ps(v); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F prelu(F v, F slope) {
    const F below = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), below);
  }
  static I count(I codes, F v, F threshold) {
    return _mm256_sub_epi32(codes, _mm256_castps_si256(_mm256_cmp_ps(v, threshold, _CMP_GE_OQ)));
  }
  static void store_codes(uint8_t* to, I codes, int64_t n) {
    const I lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                      0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const I bytes = _mm256_shuffle_epi8(codes, lowest);
    const int32_t halves[2] = {_mm256_extract_epi32(bytes, 0), _mm256_extract_epi32(bytes, 4)};
    std::memcpy(to, halves, size_t(n));
  }
};

}  // namespace

#if defined(QMDD_AVX_VNNI)
const Kernels kAvxVnniKernels = SimdKernels<Avx2>::table("avx-vnni");
#else
const Kernels kAvx2Kernels = SimdKernels<Avx2>::table("avx2");
#endif

}  // namespace qmdd
