// NumPy's .npy files: one tensor each.
#pragma once
#include <string>
#include <string_view>
#include "convsmith/tensor.h"

namespace convsmith {

/// Reads formats 1.0 to 3.0, either byte order, C and Fortran order, into a dense row-major tensor of `type`.
/// Floats (f2, f4, f8), integers (i1 to i8, u1 to u8) and b1 become floats, rounded to nearest; a finite number beyond
/// the type's range is refused. Only integers become integers, and only in range. Throws a one-line Error with the
/// file, the byte, what was expected and what came; nothing is allocated before the sizes agree with the file's.
/// Source: numpy.lib.format, "NPY format".
Tensor read_npy(const std::string &path, convsmith_type type = CONVSMITH_F32);
/// The same from memory; `name` stands for the file in messages.
Tensor decode_npy(std::string_view bytes, const std::string &name, convsmith_type type = CONVSMITH_F32);

/// Writes format 1.0 in logical row-major order, whatever the tensor's order in memory is: f32, f16, u8, s8 and i32.
/// The file is whole or untouched, as with write_file. Throws Error where it cannot be written.
void write_npy(const std::string &path, const Tensor &tensor);
std::string encode_npy(const Tensor &tensor);

}  // namespace convsmith
