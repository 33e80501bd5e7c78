#include "bounds.h"

using namespace Halide;

namespace convsmith {

std::optional<std::vector<int>> region_read(const Expr &e, const Func &read, const std::map<std::string, int> &extents) {
  Internal::Scope<Internal::Interval> scope;
  for (auto &[name, extent] : extents) scope.push(name, {0, extent - 1});
  const Internal::Box box = Internal::box_required(e, read.name(), scope);
  std::vector<int> region;
  for (size_t d = 0; d < box.size(); d++) {
    const auto extent = Internal::as_const_int(Internal::simplify(box[d].max - box[d].min + 1));
    if (!extent) return std::nullopt;
    region.push_back(int(*extent));
  }
  return region;
}

}  // namespace convsmith
