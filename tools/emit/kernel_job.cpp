#include "kernel_job.h"
#include <algorithm>
#include "convsmith/error.h"
#include "tools/support/process.h"
#include <filesystem>
#include <fmt/format.h>

namespace convsmith {

nlohmann::json ask_worker(const nlohmann::json &request, const std::string &about, const CompileLimits &limits) {
  ProcessOptions options;
  try {
    options.input = request.dump();
  } catch (const nlohmann::json::exception &) { throw Error(about + ": expected file names in UTF-8"); }
  options.timeout_s = limits.seconds, options.max_memory = limits.memory;
  const ProcessResult r = run_process({own_executable(), "kernel-worker"}, options);
  std::string line = r.err.substr(0, r.err.find('\n'));
  if (r.timed_out) throw InternalError(fmt::format("{}: the compiler took more than {} seconds", about, limits.seconds));
  if (r.signal) throw InternalError(fmt::format("{}: the compiler died of signal {}", about, r.signal));
  if (r.exit_code == 2) throw Error(line);
  if (r.exit_code) throw InternalError(fmt::format("{}: {}", about, line));
  return nlohmann::json::parse(r.out);
}

std::vector<KernelResult> compile_kernels_in_one_child(const std::vector<KernelJob> &jobs, const CompileLimits &limits) {
  if (jobs.empty()) return {};
  try {
    return ask_worker({{"what", "kernels"}, {"jobs", jobs}}, fmt::format("{} of \"{}\"", jobs[0].pass, jobs[0].problem), limits)
        .get<std::vector<KernelResult>>();
  } catch (const InternalError &) {
    // The compiler ends hard where it cannot write its object.
    const std::string folder = std::filesystem::path(jobs[0].object).parent_path().string();
    std::error_code error;
    const auto space = std::filesystem::space(folder, error);
    if (!error && space.available < 1 << 20) throw Error(fmt::format("{}: no space left on the device", folder));
    throw;
  }
}

Candidate candidate_of(const std::string &text) {
  const size_t space = std::min(text.find(' '), text.size());
  return {text.substr(0, space), text.substr(space)};
}

KernelResult compile_kernel(const KernelJob &job, const CompileLimits &limits) {
  return compile_kernels_in_one_child({job}, limits)[0];
}

KernelChoice kernel_choice(const KernelJob &job) {
  return ask_worker({{"what", "choice"}, {"job", job}}, fmt::format("{} of \"{}\"", job.pass, job.problem)).get<KernelChoice>();
}

void compile_runtime(const std::string &target, const std::string &object) {
  ask_worker({{"what", "runtime"}, {"target", target}, {"object", object}}, "the run-time of " + target);
}

std::vector<std::vector<Candidate>> candidates(const std::string &problem, const std::vector<std::string> &passes,
                                               const std::string &target, bool extremes) {
  return ask_worker({{"what", "candidates"}, {"problem", problem}, {"passes", passes}, {"target", target}, {"extremes", extremes}},
                    fmt::format("\"{}\"", problem))
      .get<std::vector<std::vector<Candidate>>>();
}

}  // namespace convsmith
