// Functions of real numbers, LANES at a time.
#pragma once
#include "vectors.h"

namespace bestiary::ISA {

// A polynomial, the coefficient of the highest power first.
template <int N> inline Floats polynomial(Floats x, const float (&coefficients)[N]) {
  Floats y = floats(coefficients[0]);
  for (int i = 1; i < N; i++) y = fused(y, x, floats(coefficients[i]));
  return y;
}

inline Floats negative(Floats x) { return subtract(floats(0), x); }
inline Floats magnitude(Floats x) { return bits(both(bits(x), ints(0x7fffffff))); }

// e^x within 2 units of the last place, where that is a normal number: zero from -87.7 down, infinity from 88.4 up.
//
// x = n ln 2 + r, and e^r from the polynomial of Cephes (Moshier, https://www.netlib.org/cephes, expf).
inline Floats exponential(Floats x) {
  constexpr float P[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                         4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  x = smaller(floats(89), larger(floats(-88), x));  // what is no number stays
  // Adding 3 * 2^22 leaves no bits for a fraction: n is in the lowest bits.
  const Floats shifted = fused(x, floats(1.44269504f), floats(12582912));
  const Floats n = subtract(shifted, floats(12582912));
  // ln 2 in two parts, of which the first has few bits, so that its product with n is exact.
  const Floats r = fused(n, floats(2.12194440e-4f), fused(n, floats(-0.693359375f), x));
  const Floats y = add(fused(polynomial(r, P), multiply(r, r), r), floats(1));
  return multiply(y, bits(left<23>(add(bits(shifted), ints(127)))));
}

// 2^x for x of at most 127: zero from -126.5 down, by the polynomial of Cephes (exp2f).
inline Floats power_of_two(Floats x) {
  constexpr float P[] = {1.535336188e-4f, 1.339887440e-3f, 9.618437357e-3f, 5.550332471e-2f,
                         2.402264791e-1f, 6.931472028e-1f, 1.0f};
  x = larger(floats(-127), x);
  // As above; 127 is where the exponent of a float32 has its zero.
  const Floats shifted = add(x, floats(12582912 + 127));
  const Floats r = subtract(x, subtract(shifted, floats(12582912 + 127)));
  return multiply(polynomial(r, P), bits(left<23>(bits(shifted))));
}

// Within 1e-6; near zero by the polynomial of Cephes (tanhf), for there 1 - 2 / (e^2x + 1) loses all places.
inline Floats hyperbolic_tangent(Floats x) {
  constexpr float P[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                         1.33314422036e-1f, -3.33332819422e-1f};
  const Floats size = magnitude(x), square = multiply(x, x);
  const Floats small = fused(multiply(polynomial(square, P), square), x, x);
  const Floats large = subtract(floats(1), divide(floats(2), add(exponential(add(size, size)), floats(1))));
  const Ints signed_large = either(bits(large), both(bits(x), ints(INT32_MIN)));
  return bits(choose(greater(size, floats(0.625f)), signed_large, bits(small)));
}

// The share of a normal distribution below x, within 1e-6: half of erfc(-x / sqrt 2), by the Chebyshev fit of Numerical
// Recipes (Press et al. 1992, 6.2, erfcc), whose error is relative.
inline Floats normal_share(Floats x) {
  constexpr float P[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                         -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const Floats z = multiply(magnitude(x), floats(0.70710678f));
  const Floats t = divide(floats(1), fused(z, floats(0.5f), floats(1)));
  const Floats tail = multiply(multiply(t, floats(0.5f)), exponential(subtract(polynomial(t, P), multiply(z, z))));
  return bits(choose(greater(floats(0), x), bits(tail), bits(subtract(floats(1), tail))));
}

enum Activation : int64_t { SILU, GELU, GELU_TANH, RELU };

template <int64_t A> inline Floats activated(Floats x) {
  if constexpr (A == SILU) return divide(x, add(floats(1), exponential(negative(x))));
  if constexpr (A == GELU) return multiply(x, normal_share(x));
  if constexpr (A == GELU_TANH) {
    // x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016)
    const Floats u = multiply(x, fused(multiply(x, x), floats(0.044715f), floats(1)));
    return divide(x, add(floats(1), exponential(multiply(u, floats(-1.59576912f)))));
  }
  return larger(floats(0), x);
}

}  // namespace bestiary::ISA
