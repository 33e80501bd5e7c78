// Charts as SVG text.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

/// A line chart of 700 x 400 that needs no other file; losses[i] is the loss of step i + 1. The loss axis is
/// logarithmic where the losses are not negative and the largest passes 100 times the least positive one; a loss of 0
/// then lies on the lower edge. A loss that is not finite (or past 1e300) interrupts the line, is marked at the upper
/// edge and counted in the chart. `title` is UTF-8 text, not markup.
std::string loss_curve_svg(const std::vector<double> &losses, std::string_view title);

}  // namespace convsmith
