#include "stand_in_tools.h"
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <cmath>
#include <random>
#include "convsmith/file.h"
#include "tools/support/process.h"

namespace convsmith {

const std::vector<std::string> &StandInTools::faults() {
  static const std::vector<std::string> all = {"exits", "dies", "garbage", "other_number", "no_times", "negative", "half_a_frame", "hangs", "grandchild", "closes",
                                               "floods", "wrong", "other_result", "crashes_compiler", "hangs_compiler"};
  return all;
}

std::string StandInTools::word(const Proposal &p, const std::string &name) {
  const size_t at = p.knobs.find(name + "=") + name.size() + 1;
  return p.knobs.substr(at, p.knobs.find(' ', at) - at);
}

// Each wave holds something better than the one before it, so that the search goes on.
std::vector<Proposal> StandInTools::propose(const TuneTask &, int count, std::uint64_t seed, const Proposal *) {
  std::mt19937_64 random(seed);
  std::vector<Proposal> list;
  for (int i = 0; i < count; i++) {
    const bool bad = int(random() % 100) < faulty_;
    const std::string kind = bad ? faults()[random() % faults().size()] : "sound";
    const double us = bad ? 1 : 99 * std::pow(0.97, double(seed)) * (1 + double(i) / 1000);
    list.push_back({"stand_in", fmt::format("kind={} us={:.4f} draw={}", kind, us, seed * 1000 + std::uint64_t(i)), 1});
  }
  return list;
}

std::string StandInTools::build(const TuneTask &, const Proposal &p, const std::string &folder) {
  const std::string kind = word(p, "kind");
  if (kind.ends_with("_compiler")) {
    ProcessOptions options;
    options.timeout_s = 0.1;
    const ProcessResult r = run_process({"/bin/sh", "-c", kind == "crashes_compiler" ? "kill -SEGV $$" : "sleep 2"}, options);
    throw Fault(r.timed_out ? "the compiler took more than 0.1 seconds" : fmt::format("the compiler died of signal {}", r.signal));
  }
  write_file(folder + "/library", p.knobs);
  return folder + "/library";
}

std::vector<std::string> StandInTools::program(const Proposal &p) { return {CONVSMITH_STAND_IN, word(p, "kind"), word(p, "us")}; }

ContestantJob StandInTools::job(const TuneTask &t, const Proposal &p, const std::string &library) {
  if (!count_file_.empty() && word(p, "draw") != "0") {
    const int fd = open(count_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (write(fd, "x", 1) != 1) std::abort();
    close(fd);
  }
  return {library, "none", "kernel", pass_name(t.pass), t.problem.str(), "", {1}, 1};
}

TuneOptions stand_in_options() {
  TuneOptions o;
  o.cpu = "cpu", o.halide = "halide", o.level = "level", o.convsmith = "version", o.threads = {1}, o.seconds = {0, 0, 0, 0};
  o.limits.seconds = 0.3;
  return o;
}

TuneTask stand_in_task() { return {"kernel", Problem::parse("in=6x8 kernel=1x2"), PassKind::forward}; }

int measure_endless() {
  const ContestantJob job{CONVSMITH_MISBEHAVING_LIBRARY, "misbehaving", "endless", "forward", "in=6x8 kernel=1x2", "", {1}, 1};
  Contestant({own_executable(), "contestant"}, job, {100, 0}).check();
  return 0;
}

int tune_stand_ins(const std::string &log_file, const std::string &count_file) {
  StandInTools tools(20, count_file);
  TrialLog log(log_file);
  TuneOptions options = stand_in_options();
  options.limits.seconds = 0.05;
  Tuner(tools, log, options).tune(stand_in_task(), Tuner::Clock::now() + std::chrono::hours(1), 1'000'000);
  return 0;
}

}  // namespace convsmith
