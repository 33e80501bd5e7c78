// Every kernel of a set against the machine's limits and against peers, all in the same run: a turn is one contestant
// called for a short while, and the contestants of a row take their turns in random order, so that noise hits all alike.
//
//   time     the least and the median over the turns, of one call with its data at hand
//   GFLOP/s  nominal: the products that the formula names, those with a border's zeros among them
//   roof     the share of the limit reached: multiply-adds from registers, or every tensor copied once at the rate of a
//            working set of that size, whichever takes longer
//   ratio    the peer's time over ours
//
// Weights are packed outside of the timing, on every side. A weight gradient's time holds its conversion to the order
// of files ([OC, IC/groups, *kernel]), on every side.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <random>
#include "bench_page.h"
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include "tools/measure/call.h"
#include "tools/measure/cost.h"
#include "tools/measure/cuda_device.h"
#include "tools/measure/peer.h"
#include "tools/measure/race.h"
#include "tools/measure/roof.h"
#include "tools/support/interrupt.h"
#include "tools/support/temporary_folder.h"
#include "tools/verify/certificate.h"

namespace convsmith {

extern const char *const version_text;

namespace {

struct BenchArguments {
  std::string set, passes = "all", threads, batch, only, schedule, against, records;
  ReportFiles files;
  std::vector<std::string> peers;
  double seconds = 0.2;
};

// The kernels of a set that were asked for, each at each batch (0: as the problem says).
std::vector<std::pair<KernelRequest, std::int64_t>> chosen(const BenchArguments &a) {
  std::vector<std::pair<KernelRequest, std::int64_t>> kernels;
  const Candidate asked = candidate_of(a.schedule);
  for (auto &text : {a.schedule, a.against == "open" ? "" : a.against}) {
    const Candidate c = candidate_of(text);
    if (!text.empty() && text != "presets") find_schedule(c.schedule), Knobs::parse(c.knobs);
  }
  if (!a.records.empty()) RecordBook::load(a.records);
  for (const auto batch : a.batch.empty() ? std::vector<std::int64_t>{0} : numbers_of("--batch", a.batch, 999'999)) {
    std::vector<KernelRequest> requests = read_spec(a.set);
    for (KernelRequest &r : requests)
      if (batch) r.problem.n = batch;
    for (KernelRequest &r : selected(std::move(requests), a.set, a.only, a.passes)) {
      for (const PassKind p : r.passes)
        if (!a.schedule.empty() && !is_packing(p)) r.schedule[p] = asked;
      kernels.push_back({r, batch});
    }
  }
  return kernels;
}

struct Sized {
  Library library;
  Shape sizes;  // of what it leaves open
};

// The kernel for any batch and, where its weights are shared, any extent in space.
KernelRequest opened(KernelRequest r) {
  Problem &p = r.problem;
  p.n = run_time, r.schedule.clear();
  if (p.op != Op::local && p.op != Op::dense) std::fill_n(p.in.begin(), p.rank, run_time);
  return r;
}

class Bench {
 public:
  Bench(const BenchArguments &a, const Settings &s) : a_(a), s_(s), level_(level_name(parse_targets(s.target).at(0))) {
    require_runs_here(parse_targets(s.target).at(0));
    peers_ = open_peers(a.peers, report_, s.quiet);
    if (!a.against.empty()) columns_.push_back(a.against), report_["peers"][a.against] = version_text;
    for (auto &peer : peers_) {
      if (peer.name() == a.against) throw Error(fmt::format("--peer: expected another name than that of --against, got {}", a.against));
      columns_.push_back(peer.name());
    }
    report_["cpu"] = this_cpu(), report_["level"] = level_, report_["halide"] = halide_version();
    report_["convsmith"] = version_text, report_["seconds"] = a.seconds;
    for (auto [option, value] : {std::pair("only", &a.only), std::pair("schedule", &a.schedule), std::pair("against", &a.against), std::pair("records", &a.records)})
      if (!value->empty()) report_[option] = *value;
    report_["set"] = a.set, report_["rows"] = nlohmann::json::array();
    if (is_device(level_)) {
      const auto device = level_.starts_with("cuda") ? cuda_device() : std::nullopt;
      roofs_.push_back(device ? device->roof : Roof());  // nominal, or unknown
      if (device) report_["device"] = device->name, report_["roofs"].push_back(roof_json(device->roof));
    }
    for (const auto threads : roofs_.empty() ? numbers_of("--threads", a.threads, 1024) : std::vector<std::int64_t>()) {
      const Roof roof = measure_roof(level_, int(threads));
      report_["roofs"].push_back(roof_json(roof));
      say(fmt::format("{} thread{}: {:.1f} GFLOP/s; copies {:.0f} GB/s within 256 KiB, {:.0f} of 128 MiB\n", threads,
                      threads == 1 ? "" : "s", roof.gflops, roof.bandwidth(256 << 10), roof.bandwidth(128 << 20)));
      roofs_.push_back(roof);
    }
  }

  void run(const std::vector<std::pair<KernelRequest, std::int64_t>> &kernels) {
    std::string head = fmt::format("{:<26} {:<15} {:>7} {:>9} {:>9} {:>8} {:>5}", "kernel", "pass", "threads", "us", "median", "GFLOP/s", "roof");
    for (auto &name : columns_) head += fmt::format(" {:>12} ratio", name.substr(0, 12));
    say(head + "\n");
    for (auto &[request, batch] : kernels) run(request, batch);
    if (!lost_.empty()) report_["lost"] = lost_;
    report_["means"] = means();
    for (auto &m : report_["means"]) {
      std::string line = fmt::format("geometric mean {:<26} {:>3} rows", m["of"].get<std::string>(), m["rows"].get<int>());
      if (m["roof"] > 0) line += fmt::format(", {:>5.1f} % of the roof", 100 * m["roof"].get<double>());
      for (auto &[name, ratio] : m["ratios"].items()) line += fmt::format(", {} {:.3f}", name, ratio.get<double>());
      say(line + "\n");
    }
  }

  const nlohmann::json &report() const { return report_; }

 private:
  void say(const std::string &text) const {
    if (!s_.json && !s_.quiet) std::cout << text << std::flush;
  }

  void run(const KernelRequest &r, std::int64_t batch) {
    std::vector<Sized> libraries;  // ours, and the one that it is held against
    libraries.push_back({library_of(r), {}});
    if (a_.against == "open") {
      const KernelRequest open = opened(r);
      libraries.push_back({library_of(open), sizes_at(open.problem, r.problem)});
    } else if (!a_.against.empty()) {
      KernelRequest other = r;
      for (const PassKind pass : r.passes)
        if (!is_packing(pass)) other.schedule[pass] = candidate_of(a_.against);
      libraries.push_back({library_of(other), {}});
    }
    const TemporaryFolder folder;
    const auto filed = operands(r.problem, folder.path());
    for (const PassKind pass : r.passes) {
      if (is_packing(pass)) continue;
      for (const Roof &roof : roofs_) row(libraries, r, batch, pass, roof, folder.path(), filed);
    }
  }

  // Whether the peer did what it was asked. One whose program fails is not asked again, and the other columns go on.
  bool answers(Peer &peer, const std::function<void()> &ask) {
    try {
      ask();
    } catch (const Error &e) {
      lost_[peer.name()] = e.what();
      peer.end();
      if (!s_.quiet) std::cerr << fmt::format("peer {} is left out from here on: {}\n", peer.name(), e.what());
    }
    return !lost_.count(peer.name());
  }

  Library library_of(const KernelRequest &r) const {
    EmitOptions o;
    o.name = "kernels", o.targets = s_.target, o.cc = s_.cc, o.records = a_.records;
    const Library library = Library::open(cached_library({r}, o), o.name);
    library.set_level(level_);
    check_kernel(library, r, 1, 4'000'000);
    return library;
  }

  void row(const std::vector<Sized> &libraries, const KernelRequest &r, std::int64_t batch, PassKind pass, const Roof &roof, const std::string &folder,
           const std::map<std::string, Tensor> &filed) {
    check_interrupt();
    std::vector<Racer> racers;
    std::vector<std::unique_ptr<TimedCall>> calls;
    for (auto &[library, sizes] : libraries) {
      library.set_threads(roof.threads);
      calls.push_back(std::make_unique<TimedCall>(library, r.name, pass, filed, roof.threads, sizes));
      racers.push_back({a_.against, [call = calls.back().get()](double seconds) { return call->time(seconds); }});
    }
    const TimedCall &call = *calls[0];
    call();
    if (!peers_.empty()) call.write_rest(folder);
    std::map<std::string, std::string> refused;
    for (auto &peer : peers_) {
      if (lost_.count(peer.name())) continue;
      std::optional<std::string> reason;
      if (!answers(peer, [&] { reason = peer.prepare_like(call.result(), pass, roof.threads, folder, r.problem); })) continue;
      if (reason) {
        refused[peer.name()] = *reason;
        continue;
      }
      racers.push_back({peer.name(), [this, &peer](double seconds) {
                          Times t;
                          if (!lost_.count(peer.name())) answers(peer, [&] { t = peer.time(seconds); });
                          return t;
                        }});
    }
    const std::vector<Times> best = race(racers, a_.seconds, random_);
    for (auto &[name, why] : lost_) refused[name] = why;

    const Cost c = cost(r.problem, pass);
    const Times ours = best[0];
    const double gflops = double(c.operations) / ours.min_us / 1e3, share = roof.gflops > 0 ? roof.us(double(c.operations), c.bytes()) / ours.min_us : 0;
    nlohmann::json j = {{"problem", r.problem.str()}, {"kernel", r.name}, {"pass", pass_name(pass)}, {"threads", roof.threads},
                        {"us_min", ours.min_us}, {"us_median", ours.median_us}, {"gflops", gflops}, {"roof", share},
                        {"operations", double(c.operations)}, {"bytes", c.bytes()}, {"peers", nlohmann::json::object()}};
    if (batch) j["batch"] = batch;
    std::string line = fmt::format("{:<26} {:<15} {:>7} {:>9.5g} {:>9.5g} {:>8.1f} {:>5}", batch ? fmt::format("{} n={}", r.name, batch) : r.name, pass_name(pass),
                                   roof.threads, ours.min_us, ours.median_us, gflops, share > 0 ? fmt::format("{:.0f}%", 100 * share) : "-");
    for (auto &name : columns_) {
      const auto at = std::find_if(racers.begin() + 1, racers.end(), [&](auto &c) { return c.name == name; });
      if (at == racers.end() || refused.count(name)) {
        line += fmt::format(" {:>12}      ", "-");
        j["refused"][name] = refused[name];
        continue;
      }
      const Times t = best[size_t(at - racers.begin())];
      j["peers"][name] = {{"us_min", t.min_us}, {"us_median", t.median_us}};
      line += fmt::format(" {:>12.5g} {:>5.2f}", t.min_us, t.min_us / ours.min_us);
    }
    for (auto &peer : peers_)
      if (!refused.count(peer.name())) answers(peer, [&] { peer.drop(); });
    report_["rows"].push_back(j);
    say(line + "\n");
  }

  // Geometric means by pass, threads and batch, then by pass, then over all.
  nlohmann::json means() const {
    std::map<std::pair<int, std::string>, std::vector<const nlohmann::json *>> groups;
    for (auto &row : report_["rows"]) {
      const std::string pass = row["pass"];
      std::string of = fmt::format("{}, threads={}", pass, row["threads"].get<int>());
      if (row.contains("batch")) of += fmt::format(", n={}", row["batch"].get<int>());
      groups[{0, of}].push_back(&row), groups[{1, pass}].push_back(&row), groups[{2, "all"}].push_back(&row);
    }
    nlohmann::json list = nlohmann::json::array();
    for (auto &[key, rows] : groups) {
      double roof = 0;
      std::map<std::string, std::pair<double, int>> ratios;
      for (auto *row : rows) {
        roof += std::log((*row)["roof"].get<double>());
        for (auto &[name, times] : (*row)["peers"].items()) {
          ratios[name].first += std::log(times["us_min"].get<double>() / (*row)["us_min"].get<double>());
          ratios[name].second++;
        }
      }
      nlohmann::json m = {{"of", key.second}, {"rows", rows.size()}, {"roof", std::exp(roof / double(rows.size()))}, {"ratios", nlohmann::json::object()}};
      for (auto &[name, sum] : ratios) m["ratios"][name] = std::exp(sum.first / sum.second);
      list.push_back(m);
    }
    return list;
  }

  const BenchArguments &a_;
  const Settings &s_;
  std::string level_;
  std::vector<Peer> peers_;
  std::map<std::string, std::string> lost_;  // peers whose programs failed, and how
  std::vector<std::string> columns_;  // whom ours is held against
  std::vector<Roof> roofs_;
  std::mt19937 random_{1};
  nlohmann::json report_;
};

void bench(const BenchArguments &a, Settings &s) {
  a.files.check(s, {{"SPEC", a.set}});
  if (a.seconds > 3600) throw Error(fmt::format("--seconds: expected at most 3600, got {}", a.seconds));
  const auto kernels = chosen(a);
  Bench bench(a, s);
  bench.run(kernels);
  a.files.write(bench.report(), bench_page);
}

}  // namespace

void add_bench(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("bench", "times every kernel of a spec file against the machine's limits, and against peers");
  auto a = std::make_shared<BenchArguments>();
  a->threads = default_thread_counts();
  sub->add_option("SPEC", a->set, "spec file: NAME : PASSES : PROBLEM a line")->required();
  sub->add_option("--passes", a->passes, "of those, the passes to time: names separated by commas, or all")->capture_default_str();
  sub->add_option("--threads", a->threads, "numbers separated by commas")->capture_default_str();
  sub->add_option("--batch", a->batch, "numbers separated by commas, in place of each problem's n");
  sub->add_option("--only", a->only, "only kernels whose names hold this text");
  sub->add_option("--peer", a->peers, "NAME=PROGRAM ARGUMENT...: a peer to time beside; tools/bench sets them up")->allow_extra_args(false);
  sub->add_option("--seconds", a->seconds, "for each contestant of a row")->capture_default_str()->check(number_from(0));
  sub->add_option("--schedule", a->schedule, "NAME knob=...: for every pass instead of the records and rules; knobs left out keep their presets; presets: the rules alone");
  sub->add_option("--against", a->against, "presets, or NAME knob=...: our own kernels with those, timed beside as a peer is; open: with n and in known only when run");
  sub->add_option("--records", a->records, "folder of *.rec files to use instead of the built-in records");
  a->files.add_to(*sub);
  add_build_settings(*sub, s);
  sub->callback([a, &s] { bench(*a, s); });
}

}  // namespace convsmith
