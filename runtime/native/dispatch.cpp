// Which kernels this processor can run.
#include <cstring>

#include "kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace qmdd {
namespace {

struct Found {
  const Kernels* tables[8];
  size_t count = 0;
  void add(const Kernels& table) { tables[count++] = &table; }
  Found() {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#if defined(QMDD_HAS_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni")) {
      add(kAvx512Kernels);
    }
#endif
#if defined(QMDD_HAS_AVX_VNNI)
    if (__builtin_cpu_supports("avx2") && has_avx_vnni()) add(kAvxVnniKernels);
#endif
#if defined(QMDD_HAS_AVX2)
    if (__builtin_cpu_supports("avx2")) add(kAvx2Kernels);
#endif
#if defined(QMDD_HAS_NEON) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) add(kNeonKernels);
#endif
    add(kScalarKernels);
  }
#if defined(__x86_64__)
  // Leaf 7, sub-leaf 1, EAX bit 4; GCC 12's __builtin_cpu_supports does not know it.
  static bool has_avx_vnni() {
    unsigned a = 7, b = 0, c = 1, d = 0;
    unsigned top = 0;
    asm volatile("cpuid" : "=a"(top), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
    if (top < 7) return false;
    asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
    return (a >> 4 & 1) != 0;
  }
#endif
};

const Found& found() {
  static const Found once;
  return once;
}

}  // namespace

const Kernels* const* available_kernels(size_t* count) {
  *count = found().count;
  return found().tables;
}

const Kernels* find_kernels(const char* name) {
  for (size_t i = 0; i < found().count; ++i) {
    if (std::strcmp(found().tables[i]->name, name) == 0) return found().tables[i];
  }
  return nullptr;
}

}  // namespace qmdd
