// What callers of any language see.
#include <cstring>

#include "team.h"

namespace bestiary {

#define DECLARE(name) extern const Operation operations_##name[OPERATIONS];
DECLARE(generic)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)
#elif defined(__aarch64__)
DECLARE(neon)
#endif

namespace {

struct InstructionSet {
  const char* name;
  Operations operations;
  bool (*here)();
};

// The best first.
constexpr InstructionSet SETS[] = {
#if defined(__x86_64__)
    {"avx512", operations_avx512,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
     }},
    {"avx2", operations_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__)
    {"neon", operations_neon, [] { return true; }},
#endif
    {"generic", operations_generic, [] { return true; }},
};

}  // namespace
}  // namespace bestiary

#define VISIBLE __attribute__((visibility("default")))

extern "C" {

// Counts changes of this interface.
VISIBLE int64_t bestiary_version() { return 3; }

// The name of the n-th instruction set that this processor has, the best first; null after the last.
VISIBLE const char* bestiary_instruction_set(int64_t n) {
  for (const auto& set : bestiary::SETS)
    if (set.here() && n-- == 0) return set.name;
  return nullptr;
}

// The operations of an instruction set by its name; null where the processor lacks it.
VISIBLE const void* bestiary_operations(const char* name) {
  for (const auto& set : bestiary::SETS)
    if (set.here() && std::strcmp(set.name, name) == 0) return set.operations;
  return nullptr;
}

VISIBLE void bestiary_run(const void* operations, const int64_t* calls, int64_t count, int64_t threads) {
  bestiary::run(static_cast<bestiary::Operations>(operations), reinterpret_cast<const bestiary::Call*>(calls), count,
                static_cast<int>(threads));
}

VISIBLE void bestiary_call(const void* operations, int64_t operation, const void* arguments, int64_t threads) {
  const bestiary::Call call{operation, arguments};
  bestiary::run(static_cast<bestiary::Operations>(operations), &call, 1, static_cast<int>(threads));
}
}
