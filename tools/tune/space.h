// What the tuner tries: settings of every schedule's knobs, the promising ones first by a model of the machine.
//
//   model  cycles a vector of multiply-adds, from the target's facts: two multiply-adds and two loads a cycle, four cycles of
//          latency, sums that spill past the registers, lanes and positions computed past the ends, threads without a task,
//          operands that each task reads anew, and copies
//
// It says which of many settings to measure, never which is best: that is measured.
#pragma once
#include <cstdint>
#include "generators/pass.h"
#include "tools/emit/kernel_job.h"

namespace convsmith {

struct Workload;

/// A setting of a schedule's knobs, all of them named.
struct Proposal {
  std::string schedule, knobs;
  int version = 0;
  double model = 0;
  std::string text() const { return schedule + " " + knobs; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Proposal, schedule, knobs, version, model)

struct ProposalRequest {
  std::string problem, pass, target;
  int count = 16, threads = 1;
  std::uint64_t seed = 1;
  Candidate around = {};  // its neighbours, one knob's entry or two apart; without one, settings of every schedule
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ProposalRequest, problem, pass, target, count, threads, seed, around)

/// In the worker: at most `count` different settings that a kernel can be compiled with, the most promising first. How
/// weights are packed stays what the presets say: an archive has one packed order for all its levels.
std::vector<Proposal> proposals(const ProposalRequest &, const Workload &);
/// The same, by a child process.
std::vector<Proposal> proposals(const ProposalRequest &);

}  // namespace convsmith
