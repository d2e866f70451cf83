// Which kernels this processor can run.
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
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
#if defined(QMDD_HAS_AMX)
      if (has_amx() && request_amx()) {
        static const Kernels amx = amx_kernels();
        add(amx);
      }
#endif
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
  // GCC 12's __builtin_cpu_supports knows neither: leaf 7 of CPUID, sub-leaf 1, EAX bit 4; and
  // sub-leaf 0, EDX bits 24 (tiles) and 25 (products of bytes).
  static bool has_avx_vnni() { return leaf7(1).eax >> 4 & 1; }
  static bool has_amx() { return (leaf7(0).edx >> 24 & 3) == 3; }
  struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  };
  static Registers leaf7(unsigned sub_leaf) {
    Registers r;
    if (__get_cpuid_max(0, nullptr) < 7) return r;
    __cpuid_count(7, sub_leaf, r.eax, r.ebx, r.ecx, r.edx);
    return r;
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
