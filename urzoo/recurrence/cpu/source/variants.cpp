// Which variants the processor can run. Compiled into the baseline library, which every processor can load.
#include <cstring>

extern "C" __attribute__((visibility("default"))) int urzoo_supports(const char* variant) {
  if (std::strcmp(variant, "baseline") == 0) return 1;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (std::strcmp(variant, "avx2") == 0) return avx2;
  if (std::strcmp(variant, "avx512") == 0) return avx512;
  if (std::strcmp(variant, "avx512bf16") == 0) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return 0;
}
