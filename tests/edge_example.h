// The worked example by the plain library, and what its tests share.
#pragma once
#include <random>
#include "convsmith/conv.h"
#include "edge_data.h"
#include "plain_library.h"

namespace convsmith {

inline const Library library(plain_library());

inline Tensor edge_target() {
  Conv edge(library, "edge");
  edge.set_weight(row({1, -1}));
  return edge.forward(edge_input());
}

inline Conv edge_at_start() {
  Conv edge(library, "edge");
  edge.set_weight(row({-0.58187f, 0.03947f}));
  return edge;
}

inline void fill_random(const Tensor &tensor, unsigned seed) {
  std::mt19937 engine(seed);
  for (std::int64_t i = 0; i < tensor.elements(); i++)
    tensor.data<float>()[i] = static_cast<float>(engine() % 2001) / 1000 - 1;
}

inline double inner_product(const Tensor &a, const Tensor &b) {
  const Tensor left(a.shape()), right(b.shape());
  left.copy_from(a);
  right.copy_from(b);
  double sum = 0;
  for (std::int64_t i = 0; i < a.elements(); i++)
    sum += static_cast<double>(left.data<float>()[i]) * right.data<float>()[i];
  return sum;
}

}  // namespace convsmith
