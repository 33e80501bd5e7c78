// Every pass of a problem at every schedule that supports it, held against the reference.
#pragma once
#include "certificate.h"

namespace convsmith {

struct GateOptions {
  std::string target = "host", cc = "cc";
  std::vector<PassKind> passes;  // empty: all
  bool every_schedule = true;    // else the one that would be chosen
  bool extremes = false;         // and at each end of each knob
  int every = 1;                 // of the ends, one in so many, by the seed
  bool assertions = true;        // with the generated assertions, which catch a schedule that reads out of bounds
  std::uint64_t seed = 1;
  std::int64_t most_products = 50'000'000;
  double compile_seconds = 600;  // for all kernels of a problem; longer is a schedule that grew out of hand
};

struct GateFigures {
  std::string schedule, knobs;
  PassFigures figures;
};

/// Throws CheckFailed at the first that fails, naming the schedule and its knobs.
std::vector<GateFigures> gate(const Problem &, const GateOptions &);

}  // namespace convsmith
