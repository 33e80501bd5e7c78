// Halide's own bounds, for what a schedule plans by before anything is compiled.
#pragma once
#include "Halide.h"
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace convsmith {

/// The extents of the region of `read` that an expression reads where each variable named runs from 0 over so many values;
/// nothing where they are no numbers.
std::optional<std::vector<int>> region_read(const Halide::Expr &, const Halide::Func &read, const std::map<std::string, int> &extents);

}  // namespace convsmith
