// libFuzzer's entry: the first byte chooses what is tried.
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  fuzz::Bytes bytes(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0: fuzz::convolution(bytes); break;
    case 1: fuzz::kernel_parts(bytes); break;
    case 2: fuzz::arrangements(bytes); break;
    default: fuzz::operators(bytes); break;
  }
  return 0;
}
