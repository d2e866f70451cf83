// What Python asks of the library beside ONNX Runtime: the kernels' names, and their peak rate.
#include <string>

#include "kernels.h"

#define QMDD_PUBLIC extern "C" __attribute__((visibility("default")))

// Names of the kernels that this processor can run, the fastest first, with commas between them.
QMDD_PUBLIC const char* qmdd_kernels() {
  static const std::string names = [] {
    std::string all;
    size_t count = 0;
    const qmdd::Kernels* const* tables = qmdd::available_kernels(&count);
    for (size_t i = 0; i < count; ++i) all += (i ? "," : "") + std::string(tables[i]->name);
    return all;
  }();
  return names.c_str();
}

// Runs `rounds` rounds of a kernel's own multiply-add, operands in registers, on this thread, and
// gives the number of multiply-adds that this were; -1: no such kernel here.
QMDD_PUBLIC int64_t qmdd_peak(const char* name, int64_t rounds) {
  const qmdd::Kernels* kernels = qmdd::find_kernels(name);
  return kernels == nullptr ? -1 : kernels->peak(rounds);
}
