// Every kernel that this processor can run against plain loops over the definition (conv.h), on
// convolutions drawn at random: native_check [count] [seed]. Exit code 1 and a line for the first
// that differs.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "native_case.h"

using namespace qmdd;
using namespace qmdd::checking;

namespace {

struct Drawn : Source {
  explicit Drawn(uint64_t seed) : random(seed) {}
  int64_t draw(int64_t low, int64_t high) override {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  }
  std::mt19937_64 random;
};

}  // namespace

int main(int argc, char** argv) {
  const int64_t count = argc > 1 ? std::atoll(argv[1]) : 1000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  size_t tables = 0;
  const Kernels* const* kernels = available_kernels(&tables);
  for (int64_t number = 0; number < count; ++number) {
    Drawn random(seed * 1000003 + uint64_t(number));
    if (!cells_are_right(random)) {
      std::printf("cells differ: seed %llu, number %lld\n", static_cast<unsigned long long>(seed),
                  static_cast<long long>(number));
      return 1;
    }
    try {
      const Case drawn(random);
      const Result expected = by_definition(drawn);
      for (size_t i = 0; i < tables; ++i) {
        if (run(drawn, *kernels[i]) == expected) continue;
        std::printf("%s differs from the definition: seed %llu, convolution %lld\n", kernels[i]->name,
                    static_cast<unsigned long long>(seed), static_cast<long long>(number));
        return 1;
      }
    } catch (const std::exception& error) {
      // Drawn parts need not fit together; what is refused is refused by every kernel.
      if (std::string(error.what()) == "the image is too small") continue;
      std::printf("convolution %lld: %s\n", static_cast<long long>(number), error.what());
      return 1;
    }
  }
  std::printf("%lld convolutions, %zu kernels: equal\n", static_cast<long long>(count), tables);
  return 0;
}
