// The worked example: learning the kernel [1, -1] from a 6x8 image of a dark band; and what its tests share.
#pragma once
#include <algorithm>
#include <functional>
#include <initializer_list>
#include <random>
#include <string>
#include "convsmith/conv.h"
#include "convsmith/error.h"
#include "plain_library.h"

namespace convsmith {

inline const Library library(plain_library());

// The input of the worked example: ones, with columns 2 to 5 zero.
inline Tensor edge_input() {
  const Tensor x({1, 1, 6, 8});
  for (std::int64_t i = 0; i < 48; i++) x.data<float>()[i] = i % 8 < 2 || i % 8 > 5 ? 1 : 0;
  return x;
}

inline Tensor row(std::initializer_list<float> values) {
  const Tensor weight({1, 1, 1, static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), weight.data<float>());
  return weight;
}

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

inline std::string message_of(const std::function<void()> &call) {
  try {
    call();
  } catch (const Error &error) {
    return error.what();
  }
  return "no error";
}

}  // namespace convsmith
