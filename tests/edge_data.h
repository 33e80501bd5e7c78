// The worked example's data: learning the kernel [1, -1] from a 6x8 image of a dark band; and the words of an Error.
#pragma once
#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include "convsmith/error.h"
#include "convsmith/tensor.h"

namespace convsmith {

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

inline std::string message_of(const std::function<void()> &call) {
  try {
    call();
  } catch (const Error &error) {
    return error.what();
  }
  return "no error";
}

}  // namespace convsmith
