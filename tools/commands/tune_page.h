// The results of `tune` as a page.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace convsmith {

/// One HTML text that needs no other file: the means, every task's best below the roof and as a table, and for each
/// task its search as a curve, its ten best settings, and what each knob did.
std::string tune_page(const nlohmann::json &report);

}  // namespace convsmith
