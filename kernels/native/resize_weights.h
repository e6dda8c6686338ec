// How much each pixel of a row or column counts for a pixel of the resized one, as Pillow has it (libImaging/Resample.c).
#pragma once
#include <cmath>
#include <cstring>

#include "plain.h"
#include "resize_arguments.h"

namespace bestiary::ISA {

constexpr int FRACTION = 22;  // bits of a weight after the point

// By the numbers that Pillow gives them.
enum Filter : int64_t { LANCZOS = 1, BILINEAR, BICUBIC, BOX, HAMMING };

constexpr double SUPPORTS[] = {0, 3, 1, 2, 0.5, 1};

inline double sinc(double x) {
  if (x == 0) return 1;
  x *= 3.14159265358979323846;
  return std::sin(x) / x;
}

// Every step in Pillow's order, for another one may round otherwise.
inline double filtered(int64_t filter, double x) {
  if (filter == BOX) return x > -0.5 && x <= 0.5 ? 1 : 0;
  if (filter == LANCZOS) return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
  x = std::fabs(x);
  if (filter == BILINEAR) return x < 1 ? 1 - x : 0;
  if (filter == BICUBIC) {
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  }
  if (x == 0) return 1;
  if (x >= 1) return 0;
  x *= 3.14159265358979323846;
  return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
}

// The pixels that count for a pixel, and by how much.
struct Span {
  int64_t first, count;
  const int32_t* weights;
};

inline Span span_of(const ResizeArguments& a, int64_t i) {
  return {a.spans[2 * i], a.spans[2 * i + 1], reinterpret_cast<const int32_t*>(a.weights + i * a.taps)};
}

inline void put_span(const ResizeArguments& a, int64_t i) {
  const int64_t length = a.along_rows ? a.columns : a.rows;
  const double scale = static_cast<double>(length) / static_cast<double>(a.size);
  const double stretch = scale < 1 ? 1 : scale, support = SUPPORTS[a.filter] * stretch, each = 1 / stretch;
  const double centre = (static_cast<double>(i) + 0.5) * scale;
  const int64_t first = most(0, static_cast<int64_t>(centre - support + 0.5));
  const int64_t end = least(length, static_cast<int64_t>(centre + support + 0.5));
  const int64_t count = most(0, least(end - first, a.taps));
  double *weights = a.weights + i * a.taps, total = 0;
  for (int64_t j = 0; j < count; j++) {
    weights[j] = filtered(a.filter, (static_cast<double>(first + j) - centre + 0.5) * each);
    total += weights[j];
  }
  // Rounded in place: the j-th whole number lies before what is still to be read.
  auto* rounded = reinterpret_cast<char*>(weights);
  for (int64_t j = 0; j < count; j++) {
    double weight;
    std::memcpy(&weight, weights + j, sizeof weight);
    if (total != 0) weight /= total;
    const auto whole = static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << FRACTION));
    std::memcpy(rounded + j * 4, &whole, sizeof whole);
  }
  a.spans[2 * i] = first;
  a.spans[2 * i + 1] = count;
}

constexpr int64_t SPANS = 64;  // that make a piece

inline int64_t resize_span_pieces(const void* arguments) {
  return parts(static_cast<const ResizeArguments*>(arguments)->size, SPANS);
}

inline void put_spans(const void* arguments, int64_t piece) {
  const auto& a = *static_cast<const ResizeArguments*>(arguments);
  for (int64_t i = piece * SPANS; i < least(a.size, (piece + 1) * SPANS); i++) put_span(a, i);
}

}  // namespace bestiary::ISA
