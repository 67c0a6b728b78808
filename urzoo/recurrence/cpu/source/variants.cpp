// Which variants the processor can run: a library of its own, compiled for any processor.
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Whether the processor has matrix tiles for bfloat16, and Linux gives the process their state, which is large and to be
// had on request only. Leaf 7 tells of AMX: bit 24 tiles, 22 bfloat16.
bool has_tiles() {
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 22 & 1)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int urzoo_supports(const char* variant) {
  if (std::strcmp(variant, "baseline") == 0) return 1;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (std::strcmp(variant, "avx2") == 0) return avx2;
  if (std::strcmp(variant, "avx512") == 0) return avx512;
  bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (std::strcmp(variant, "avx512bf16") == 0) return bf16;
  if (std::strcmp(variant, "amx") == 0) return bf16 && has_tiles();
#endif
  return 0;
}
