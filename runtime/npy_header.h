// The header of a .npy file. Private to the run-time.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include "convsmith/problem.h"

namespace convsmith {

struct NpyHeader {
  char kind = 'f';  // of an element: f, i, u or b
  std::size_t item_bytes = 0;
  bool big_endian = false;
  bool fortran_order = false;
  Shape shape;
  std::size_t data_offset = 0;  // of the first element; the elements fill the rest of the file exactly
};

/// Throws a one-line Error with the name, the byte, what was expected and what came.
NpyHeader parse_npy_header(std::string_view file, const std::string &name);

}  // namespace convsmith
