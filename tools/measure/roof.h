// What the machine allows: multiply-adds from registers, and bytes copied by a working set's size. Measured, as no data
// sheet knows the clock and the neighbours of the moment.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace convsmith {

struct Roof {
  int threads = 1;
  double gflops = 0;                              // operations; a multiply-add is two
  std::vector<std::pair<double, double>> copies;  // (bytes read and written, GB/s), by rising size

  /// GB/s of a working set of so many bytes.
  double bandwidth(double bytes) const;
  /// The least time that so much work can take: that of the slower of the two limits.
  double us(double operations, double bytes) const;
};

/// {"threads", "gflops", "copies": [{"bytes", "gb_per_s"}, …]}
nlohmann::json roof_json(const Roof &);

/// At an instruction level's vector width. Takes about half a second.
Roof measure_roof(const std::string &level, int threads);

}  // namespace convsmith
