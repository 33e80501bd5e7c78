// The results of `bench` as a page.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace convsmith {

/// One HTML text that needs no other file: the roofs with every row on them, the ratios to each peer as bars, and the table.
std::string bench_page(const nlohmann::json &report);

}  // namespace convsmith
