// Searches schedules and knobs for the passes of a problem, or of all problems of a spec file, on this machine.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <thread>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include "tools/measure/cost.h"
#include "tools/measure/roof.h"
#include "tools/support/interrupt.h"
#include "tools/support/progress.h"
#include "tools/tune/tuner.h"
#include "tune_page.h"

namespace convsmith {

extern const char *const version_text;

namespace {

using Clock = Tuner::Clock;

struct TuneArguments {
  std::string what, passes = "all", only, time = "10m", threads, log, records, to;
  ReportFiles files;
  std::int64_t trials = 1'000'000;
  std::uint64_t seed = 1;
  bool baselines = false;
};

// "90s", "10m", "2h"
double seconds_of(const std::string &option, const std::string &text) {
  const auto bad = [&] { return Error(fmt::format("{}: expected a time as in 90s, 10m or 2h, got \"{}\"", option, text)); };
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception &) { throw bad(); }
  const std::string unit = text.substr(used);
  const double factor = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : 0;
  if (!(value >= 0 && value * factor < 1e7) || factor == 0) throw bad();
  return value * factor;
}

std::vector<TuneTask> tasks_of(const TuneArguments &a) {
  std::vector<TuneTask> tasks;
  for (auto &r : selected(requests_of(a.what, a.passes), a.what, a.only, a.passes))
    for (const PassKind pass : r.passes)
      if (!is_packing(pass)) tasks.push_back({r.name, r.problem, pass});
  if (tasks.empty()) throw none_selected(a.what, a.only, a.passes);
  return tasks;
}

std::string setting_text(const Proposal &p) { return fmt::format("{}@{} {}", p.schedule, p.version, p.knobs); }

class Session {
 public:
  Session(const TuneArguments &a, const Settings &s) : a_(a), s_(s), target_(parse_targets(s.target).at(0)) {
    require_runs_here(target_);
    if (target_.has_gpu_feature())
      throw Error(fmt::format("--target {}: expected a level of the processor: tune does not time GPUs yet", level_name(target_)));
    o_.cpu = this_cpu(), o_.halide = halide_version(), o_.level = level_name(target_), o_.convsmith = version_text;
    for (const auto t : numbers_of("--threads", a.threads, 1024)) o_.threads.push_back(int(t));
    o_.seed = a.seed;
    o_.limits = {60, memory_limit};
    if (!a.records.empty()) RecordBook::load(a.records);
    if (!a.to.empty()) {
      std::error_code error;
      std::filesystem::create_directories(a.to, error);
      require_writable("--export", record_file());
      (void)fold_records(records_there(), o_.level, {});  // throws where it is no file of records
    }
    tools_ = kernel_tools(o_, a.records, s.cc, a.baselines);
  }

  void run(const std::vector<TuneTask> &tasks, double seconds) {
    const auto start = Clock::now();
    TrialLog log(a_.log.empty() ? TrialLog::file_of_user() : a_.log);
    if (log.quarantined())
      std::cerr << fmt::format("{0}: {1} could not be read and {2} moved to {0}.bad\n", log.file(), log.quarantined() == 1 ? "1 line" : fmt::format("{} lines", log.quarantined()),
                               log.quarantined() == 1 ? "was" : "were");
    Tuner tuner(*tools_, log, o_);
    for (const int t : o_.threads) roofs_.push_back(measure_roof(o_.level, t));
    say(fmt::format("{} passes on {} at {}, {} threads; trials go to {}\n", tasks.size(), o_.cpu, o_.level, fmt::join(o_.threads, ","), log.file()));
    say(fmt::format("{:<26} {:<15} {:>10} {:>10} {:>6} {:>6} {:>6} {:>6}  {}\n", "kernel", "pass", "now us", "best us", "ratio", "noise", "trials", "roof", "setting"));

    // Time goes to what takes long to run, half of it; the other half to all alike. What one leaves is the next one's.
    double all = 0;
    for (auto &t : tasks) all += double(cost(t.problem, t.pass).operations);
    const auto share = [&](const TuneTask &t) { return 0.5 / double(tasks.size()) + 0.5 * double(cost(t.problem, t.pass).operations) / all; };
    double left = 1;
    std::int64_t trials = a_.trials;
    for (auto &task : tasks) {
      if (interrupted_) break;
      try {
        const std::chrono::duration<double> used = Clock::now() - start;
        const double slice = std::max(0., seconds - used.count()) * share(task) / left;
        left -= share(task);
        ProgressBar bar(task.title(), 1000, s_.json || s_.quiet);
        const auto told = [&](const TuneResult &r) {
          const std::chrono::duration<double> now = Clock::now() - start;
          const double best = r.curve.empty() ? 1 : r.curve.back().best;
          bar.update(seconds > 0 ? std::int64_t(1000 * now.count() / seconds) : 1000,
                     fmt::format("{} trials, best {:.3f}, {:.0f} s left", r.trials, best, std::max(0., seconds - now.count())));
        };
        const bool measure = slice > 0 && trials > 0;
        const TuneResult r = measure ? tuner.tune(task, Clock::now() + std::chrono::microseconds(std::int64_t(slice * 1e6)), int(trials), told) : tuner.known(task);
        trials -= r.trials;
        bar.clear();
        add(r);
        interrupted_ = r.interrupted;
      } catch (const Interrupted &) {
        interrupted_ = true;  // what is finished is kept, and shown
      } catch (const Error &e) {  // the others go on
        if (!failed_) failed_ = std::current_exception();
        report_["failed"].push_back({{"kernel", task.name}, {"pass", pass_name(task.pass)}, {"problem", task.problem.str()}, {"why", e.what()}});
        if (tasks.size() > 1) std::cerr << fmt::format("{} is left out: {}\n", task.title(), e.what());
      }
    }
    if (results_.empty() && failed_) std::rethrow_exception(failed_);
    report_["set"] = a_.what, report_["cpu"] = o_.cpu, report_["level"] = o_.level, report_["halide"] = o_.halide, report_["convsmith"] = version_text;
    report_["threads"] = fmt::format("{}", fmt::join(o_.threads, ",")), report_["seed"] = o_.seed, report_["log"] = log.file(), report_["quarantined"] = log.quarantined();
    report_["seconds"] = std::chrono::duration<double>(Clock::now() - start).count();
    report_["roofs"] = nlohmann::json::array();
    for (auto &roof : roofs_) report_["roofs"].push_back(roof_json(roof));
    summary();
    if (!a_.to.empty()) write_records();
  }

  const nlohmann::json &report() const { return report_; }
  bool interrupted() const { return interrupted_; }
  /// The first error that left a pass without a result; null where all have one.
  std::exception_ptr failed() const { return failed_; }

 private:
  // Of a kernel with its tensors, the reference's and workspace.
  static constexpr std::size_t memory_limit = std::size_t{16} << 30;

  void say(const std::string &text) const {
    if (!s_.json && !s_.quiet) std::cout << text << std::flush;
  }

  // The roof as the times are: the geometric mean over the numbers of threads.
  double roof_us(const Cost &c) const {
    double sum = 0;
    for (auto &roof : roofs_) sum += std::log(roof.us(double(c.operations), c.bytes()));
    return std::exp(sum / double(roofs_.size()));
  }

  void add(const TuneResult &r) {
    results_.push_back(r);
    const Cost c = cost(r.task.problem, r.task.pass);
    const double roof = r.us > 0 ? roof_us(c) / r.us : NAN;
    const std::string setting = r.won() ? setting_text(r.best) : r.ratio > 1 ? "as now: better by less than the noise" : "as now";
    if (r.us > 0)
      say(fmt::format("{:<26} {:<15} {:>10.5g} {:>10.5g} {:>6.3f} {:>6.3f} {:>6} {:>5.0f}%  {}\n", r.task.name, pass_name(r.task.pass), r.present_us, r.us, r.ratio, r.noise, r.trials, 100 * roof, setting));
    else
      say(fmt::format("{:<26} {:<15} {:>10} {:>10} {:>6} {:>6} {:>6} {:>6}  {}\n", r.task.name, pass_name(r.task.pass), "", "", "", "", r.trials, "", setting));
    nlohmann::json j = {{"kernel", r.task.name}, {"problem", r.task.problem.str()}, {"pass", pass_name(r.task.pass)}, {"operations", double(c.operations)}, {"bytes", c.bytes()},
                        {"present", {{"setting", setting_text(r.present)}}}, {"best", {{"setting", setting_text(r.best)}}}, {"ratio", r.ratio}, {"noise", r.noise}, {"won", r.won()},
                        {"trials", r.trials}, {"faults", r.faults}, {"curve", nlohmann::json::array()}, {"seen", nlohmann::json::array()}, {"baselines", nlohmann::json::array()}};
    if (r.us > 0) j["present"]["us"] = r.present_us, j["best"]["us"] = r.us, j["gflops"] = double(c.operations) / r.us / 1e3, j["roof"] = roof;
    for (auto &step : r.curve) j["curve"].push_back({{"trial", step.trial}, {"best", step.best}});
    for (auto &t : r.seen) {
      nlohmann::json seen = {{"setting", t.key.schedule + " " + t.key.knobs}, {"rung", t.key.rung}};
      if (!t.fault.empty()) seen["fault"] = t.fault;
      else seen["us"] = t.us, seen["ratio"] = t.ratio(), seen["noise"] = t.noise;
      const bool baseline = t.key.schedule.ends_with("@0");
      if (baseline) seen["name"] = t.key.schedule.substr(0, t.key.schedule.size() - 2);
      j[baseline ? "baselines" : "seen"].push_back(seen);
    }
    report_["tasks"].push_back(j);
  }

  void summary() {
    int trials = 0, faults = 0, won = 0;
    std::map<std::pair<int, std::string>, std::vector<double>> groups;
    for (auto &r : results_) {
      trials += r.trials, faults += r.faults, won += r.won();
      const double ratio = r.won() ? r.ratio : 1;
      groups[{0, pass_name(r.task.pass)}].push_back(ratio), groups[{1, "all"}].push_back(ratio);
    }
    report_["trials"] = trials, report_["faults"] = faults;
    for (auto &[of, ratios] : groups) {
      const double sum = std::accumulate(ratios.begin(), ratios.end(), 0., [](double s, double r) { return s + std::log(r); });
      const double mean = std::exp(sum / double(ratios.size()));
      report_["means"].push_back({{"of", of.second}, {"tasks", ratios.size()}, {"ratio", mean}});
      say(fmt::format("geometric mean {:<26} {:>3} passes, {:.3f} of what is used now\n", of.second, ratios.size(), mean));
    }
    say(fmt::format("{} trials, {} of them faulty; better by more than the noise: {} of {} passes\n", trials, faults, won, results_.size()));
  }

  std::string record_file() const { return a_.to + "/" + o_.level + ".rec"; }

  std::string records_there() const {
    std::error_code ignored;
    return std::filesystem::exists(record_file(), ignored) ? read_file(record_file()) : "";
  }

  // Winners join the file of their level; a record there that was faster stays.
  void write_records() {
    std::vector<Record> winners;
    const std::string file = record_file(), text = records_there();
    RecordBook there;
    there.add(o_.level + ".rec", text);
    // What it was raced against it has beaten, whatever was measured on another day.
    const auto faster = [&](const Record &w, const TuneResult &of) {
      return std::any_of(there.records().begin(), there.records().end(), [&](const Record &r) {
        const bool raced = r.schedule == of.present.schedule && r.knobs.str() == of.present.knobs;
        return r.problem.str() == w.problem.str() && r.pass == w.pass && r.cpu == w.cpu && r.halide == w.halide && !raced &&
               measured_word(r.measured, "threads") == measured_word(w.measured, "threads") &&
               std::atof(measured_word(r.measured, "gflops").c_str()) > std::atof(measured_word(w.measured, "gflops").c_str());
      });
    };
    for (auto &r : results_) {
      if (!r.won()) continue;
      const Cost c = cost(r.task.problem, r.task.pass);
      Record w{o_.level, r.task.problem, r.task.pass, o_.cpu, r.best.schedule, r.best.version, Knobs::parse(r.best.knobs), "", o_.halide, ""};
      w.measured = fmt::format("gflops={:.1f} roof={:.2f} ratio={:.3f} threads={} seed={} halide={} date={}", double(c.operations) / r.us / 1e3, roof_us(c) / r.us, r.ratio,
                               fmt::join(o_.threads, ","), o_.seed, o_.halide, r.date);
      if (faster(w, r)) say(fmt::format("{} {}: the record that is there was faster, and stays\n", r.task.name, pass_name(r.task.pass)));
      else winners.push_back(w);
    }
    if (!winners.empty()) write_file(file, fold_records(text, o_.level, winners));
    report_["exported"] = {{"file", file}, {"records", winners.size()}};
    say(fmt::format("{}: {} records written\n", file, winners.size()));
  }

  const TuneArguments &a_;
  const Settings &s_;
  const Halide::Target target_;
  TuneOptions o_;
  std::unique_ptr<TuneTools> tools_;
  std::vector<Roof> roofs_;
  std::vector<TuneResult> results_;
  nlohmann::json report_ = {{"tasks", nlohmann::json::array()}, {"means", nlohmann::json::array()}};
  bool interrupted_ = false;
  std::exception_ptr failed_;
};

void tune(const TuneArguments &a, Settings &s) {
  a.files.check(s, {{"PROBLEM-or-SPEC", a.what}, {"--log", a.log}});
  require_writable("--log", a.log);
  const double seconds = seconds_of("--time", a.time);
  const auto tasks = tasks_of(a);
  Session session(a, s);
  session.run(tasks, seconds);
  a.files.write(session.report(), tune_page);
  if (session.failed()) std::rethrow_exception(session.failed());
  if (session.interrupted()) throw Interrupted();
}

}  // namespace

void add_tune(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("tune", "searches schedules and knobs for a problem, or for those of a spec file, on this machine");
  auto a = std::make_shared<TuneArguments>();
  a->threads = default_thread_counts();
  sub->add_option("PROBLEM-or-SPEC", a->what, "problem text, or a file of lines NAME : PASSES : PROBLEM")->required();
  sub->add_option("--passes", a->passes, "names separated by commas, or all")->capture_default_str();
  sub->add_option("--only", a->only, "only kernels of a spec file whose names hold this text");
  sub->add_option("--time", a->time, "for all passes together, as in 90s, 10m or 2h; 0s: only show, or export, what is known")->capture_default_str();
  sub->add_option("--trials", a->trials, "for all passes together, at most")->check(whole_number(0, 1'000'000))->default_str("");
  sub->add_option("--threads", a->threads, "numbers separated by commas; a setting's time is the geometric mean over them")->capture_default_str();
  sub->add_option("--seed", a->seed, "of the settings that are drawn")->capture_default_str()->check(whole_number(0, UINT64_MAX));
  sub->add_flag("--baselines", a->baselines, "measure Halide's own schedulers too, Mullapudi2016 and Adams2019");
  sub->add_option("--log", a->log, "file of trials, read first and then appended to (default: one in the user's cache folder)");
  sub->add_option("--records", a->records, "folder of *.rec files to use instead of the built-in records");
  sub->add_option("--export", a->to, "folder whose LEVEL.rec takes the settings that are better by more than the noise")->check(a_name());
  a->files.add_to(*sub);
  add_build_settings(*sub, s);
  sub->callback([a, &s] { tune(*a, s); });
}

}  // namespace convsmith
