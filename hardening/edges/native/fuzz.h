// What is tried of the native operators; each aborts where something differs.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>

#include "native_case.h"

namespace fuzz {

// Numbers from the fuzzer's bytes, and from a generator that the first of them start once they have
// run out: shapes and attributes are drawn first and so are the fuzzer's own choice.
class Bytes : public qmdd::checking::Source {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {
    uint64_t seed = size;
    for (size_t i = 0; i < size && i < 8; ++i) seed = seed * 257 + data[i];
    random_.seed(seed);
  }

  int64_t draw(int64_t low, int64_t high) override {
    const uint64_t range = uint64_t(high) - uint64_t(low);
    if (left_ == 0) return std::uniform_int_distribution<int64_t>(low, high)(random_);
    uint64_t value = 0;
    for (uint64_t room = range; room > 0 && left_ > 0; room >>= 8, --left_) {
      value = value << 8 | *data_++;
    }
    return range == UINT64_MAX ? int64_t(value) : int64_t(uint64_t(low) + value % (range + 1));
  }

 private:
  const uint8_t* data_;
  size_t left_;
  std::mt19937_64 random_;
};

[[noreturn]] inline void fail(const char* what, const char* where) {
  std::fprintf(stderr, "native_fuzz: %s: %s\n", where, what);
  std::abort();
}

void convolution(Bytes& bytes);  // every kernel against the definition
void kernel_parts(Bytes& bytes);  // finish, pool, expand: every kernel against the scalar one
void arrangements(Bytes& bytes);  // cells and averages against the definition
void operators(Bytes& bytes);     // models whose attributes, constants and inputs lie

}  // namespace fuzz
