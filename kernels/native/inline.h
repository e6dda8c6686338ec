// Of what is done for every few numbers: a compiler that calls it, as it would many of these, keeps no vector in a register.
#pragma once

#define ALWAYS __attribute__((always_inline))  // for a lambda, behind its parameters
#define ALWAYS_INLINE inline ALWAYS
