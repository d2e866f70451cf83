// Plain IEEE arithmetic for as long as an object of this lives, whatever its thread was told before:
// torch.set_flush_denormal and libraries built with -ffast-math let a processor take subnormal
// numbers for zero, and a threshold may be one. Rounding is to nearest. It holds for calls that the
// compiler does not look into: arithmetic in the same function may be moved out of its reach.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace qmdd {

class PlainFloats {
 public:
  PlainFloats() : before_(read()) {
    if (before_ & kOther) write(before_ & ~kOther);
  }
  ~PlainFloats() {
    if (before_ & kOther) write(before_);
  }
  PlainFloats(const PlainFloats&) = delete;
  PlainFloats& operator=(const PlainFloats&) = delete;

 private:
#if defined(__x86_64__)
  using Register = uint32_t;  // MXCSR: results flushed (15), direction (14, 13), operands flushed (6)
  static constexpr Register kOther = 0xe040;
  static Register read() { return _mm_getcsr(); }
  static void write(Register value) { _mm_setcsr(value); }
#elif defined(__aarch64__)
  using Register = uint64_t;  // FPCR: flushed (24), direction (23, 22)
  static constexpr Register kOther = 0x1c00000;
  static Register read() {
    Register value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(Register value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
  using Register = uint32_t;
  static constexpr Register kOther = 0;
  static Register read() { return 0; }
  static void write(Register) {}
#endif
  const Register before_;
};

}  // namespace qmdd
