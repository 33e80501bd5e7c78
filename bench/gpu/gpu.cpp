// Times the kernels that are linked into it on a GPU: nothing else is needed where it runs but the device's driver.
//
//   check   integers so small that every sum is exact: the bits of the GPU's result are those of the processor's
//   time    the least and the median of a call whose tensors are on the device, of as many at once as take a millisecond
//   peak    the share of the device's nominal limit (CUDA): its multiply-adds, or its memory's data rate for every tensor
//           once, whichever takes longer
//   ratio   a peer's time over ours; weights are packed, and tensors put on the device, before
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "tools/measure/call.h"
#include "tools/measure/cost.h"
#include "tools/measure/cuda_device.h"
#include "tools/measure/peer.h"
#include "tools/measure/race.h"
#include "tools/support/temporary_folder.h"

namespace convsmith {

/// The libraries linked in: made by the build.
std::vector<const convsmith_library *> bench_libraries();

namespace {

struct Arguments {
  std::string only, passes, json, level;
  std::vector<std::string> peers;
  double seconds = 0.2;
};

// The first of the processor's levels that runs here.
std::string processor_level(const Library &library) {
  const std::vector<std::string> levels = library.levels();
  for (size_t i = size_t(library.table().device->levels); i < levels.size(); i++) {
    try {
      library.set_level(levels[i]);
      return levels[i];
    } catch (const Error &) {
    }
  }
  throw Error(fmt::format("library {}: no level of the processor to check the GPU's results by runs here", library.name()));
}

// A level of a GPU: the one asked for, else the first whose device is there.
std::string device_level(const Library &library, const std::string &asked) {
  if (!asked.empty()) return library.set_level(asked), asked;
  std::string why;
  for (int i = 0; i < library.table().device->levels; i++) {
    try {
      library.set_level(library.levels()[size_t(i)]);
      return library.levels()[size_t(i)];
    } catch (const Error &e) {
      why += fmt::format("{}{}", why.empty() ? "" : "; ", e.what());
    }
  }
  throw Error(why);
}

bool same_bits(const Tensor &a, const Tensor &b) {
  for (std::int64_t i = 0; i < a.elements(); i++)
    if (a.data<float>()[i] + 0.f != b.data<float>()[i] + 0.f) return false;  // -0 is 0, and NaN is not itself
  return true;
}

class Bench {
 public:
  explicit Bench(const Arguments &a) : a_(a), device_(cuda_device()) {
    peers_ = open_peers(a.peers, report_, false);
    report_["rows"] = nlohmann::json::array();
  }

  void run(const Library &library) {
    if (!library.table().device) throw Error(fmt::format("library {}: no level for a GPU", library.name()));
    const std::string processor = processor_level(library), level = device_level(library, a_.level);
    const bool cuda = level.starts_with("cuda") && device_;
    if (report_["level"].is_null()) {
      report_["level"] = level;
      if (cuda) report_["device"] = device_->name, report_["peak"] = {{"gflops", device_->roof.gflops}, {"gb_per_s", device_->roof.bandwidth(1)}};
      std::cout << fmt::format("{}{}\n", level, cuda ? fmt::format(" on {} ({}.{}): {:.0f} GFLOP/s, {:.0f} GB/s, nominal", device_->name, device_->major,
                                                                 device_->minor, device_->roof.gflops, device_->roof.bandwidth(1)) : "");
      std::string head = fmt::format("{:<26} {:<15} {:>9} {:>9} {:>9} {:>5}", "kernel", "pass", "us", "median", "GFLOP/s", "peak");
      for (auto &peer : peers_) head += fmt::format(" {:>10} ratio", peer.name().substr(0, 10));
      std::cout << head << "\n";
    }
    for (const Pass &pass : library.passes())
      if (!is_packing(parse_pass(pass.name())) && (a_.only.empty() || pass.kernel().find(a_.only) != std::string::npos) &&
          (a_.passes.empty() || ("," + a_.passes + ",").find("," + pass.name() + ",") != std::string::npos))
        row(library, pass, processor, level, cuda);
  }

  void end() {
    if (report_["rows"].empty()) throw Error("no kernel's pass has those names");
    for (auto &[of, sum] : ratios_) {
      const auto &[peer, pass] = of;
      const double mean = std::exp(sum.first / sum.second);
      report_["means"][pass][peer] = mean;
      std::cout << fmt::format("geometric mean {:<26} {:>3} rows, {} {:.3f}\n", pass, sum.second, peer, mean);
    }
    if (!a_.json.empty()) write_file(a_.json, report_.dump(2) + "\n");
    if (wrong_) throw Error(fmt::format("{} of {} rows: another result than the processor's", wrong_, report_["rows"].size()));
  }

 private:
  void row(const Library &library, const Pass &pass, const std::string &processor, const std::string &level, bool cuda) {
    const Problem p = Problem::parse(pass.problem());
    const PassKind kind = parse_pass(pass.name());
    const TemporaryFolder folder;
    const auto filed = operands(p, peers_.empty() ? "" : folder.path());
    library.set_level(processor);
    const TimedCall expected(library, pass.kernel(), kind, filed, 1);
    expected();
    library.set_level(level);
    const TimedCall call(library, pass.kernel(), kind, filed, 1);
    call();
    const Tensor result = call.result();
    nlohmann::json j = {{"kernel", pass.kernel()}, {"pass", pass.name()}, {"problem", p.str()}, {"peers", nlohmann::json::object()}};
    std::string line = fmt::format("{:<26} {:<15}", pass.kernel(), pass.name());
    const bool exact = has_exact_operands(p) && p.activation.kind == Activation::Kind::none && kind != PassKind::train_step;
    j["check"] = exact ? "bits" : "none";
    if (exact && !same_bits(expected.result(), result)) {
      wrong_++, j["check"] = "failed";
      report_["rows"].push_back(j);
      std::cout << line << " another result than the processor's\n";
      return;
    }
    std::vector<Racer> racers = {{"", [&](double seconds) { return call.time(seconds); }}};
    if (!peers_.empty()) call.write_rest(folder.path());
    for (auto &peer : peers_) {
      if (const auto reason = peer.prepare_like(result, kind, 1, folder.path(), p)) j["refused"][peer.name()] = *reason;
      else racers.push_back({peer.name(), [&](double seconds) { return peer.time(seconds); }});
    }
    const std::vector<Times> best = race(racers, a_.seconds, random_);
    const Cost c = cost(p, kind);
    const double us = best[0].min_us, gflops = double(c.operations) / us / 1e3;
    j["us_min"] = us, j["us_median"] = best[0].median_us, j["gflops"] = gflops;
    line += fmt::format(" {:>9.5g} {:>9.5g} {:>9.1f}", us, best[0].median_us, gflops);
    if (cuda) j["peak"] = device_->roof.us(double(c.operations), c.bytes()) / us;
    line += cuda ? fmt::format(" {:>4.0f}%", 100 * j["peak"].get<double>()) : fmt::format(" {:>5}", "-");
    for (auto &peer : peers_) {
      const auto at = std::find_if(racers.begin() + 1, racers.end(), [&](auto &other) { return other.name == peer.name(); });
      if (at == racers.end()) {
        line += fmt::format(" {:>10}     -", "-");
        continue;
      }
      const Times t = best[size_t(at - racers.begin())];
      j["peers"][peer.name()] = {{"us_min", t.min_us}, {"us_median", t.median_us}};
      line += fmt::format(" {:>10.5g} {:>5.2f}", t.min_us, t.min_us / us);
      auto &sum = ratios_[{peer.name(), pass.name()}];
      sum.first += std::log(t.min_us / us), sum.second++;
      peer.drop();
    }
    report_["rows"].push_back(j);
    std::cout << line << std::endl;
  }

  const Arguments &a_;
  std::optional<CudaDevice> device_;
  std::vector<Peer> peers_;
  std::mt19937 random_{1};
  nlohmann::json report_;
  std::map<std::pair<std::string, std::string>, std::pair<double, int>> ratios_;  // by peer and pass
  int wrong_ = 0;
};

int main_of(int argc, char **argv) {
  CLI::App app("times the kernels linked into it on a GPU, each checked against the processor's first");
  Arguments a;
  app.add_option("--only", a.only, "only kernels whose names hold this text");
  app.add_option("--passes", a.passes, "names separated by commas (default: all that there are)");
  app.add_option("--level", a.level, "of a GPU (default: the first whose device is there)");
  app.add_option("--peer", a.peers, "NAME=PROGRAM ARGUMENT...: a peer to time beside, as \"pytorch=python3 bench/pytorch.py cuda\"");
  app.add_option("--seconds", a.seconds, "for each contestant of a row")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--json", a.json, "file for the results");
  CLI11_PARSE(app, argc, argv);
  try {
    Bench bench(a);
    for (const convsmith_library *library : bench_libraries()) bench.run(Library(library));
    bench.end();
  } catch (const std::exception &e) {
    std::cout.flush();
    std::cerr << "bench/gpu: " << e.what() << "\n";
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace convsmith

int main(int argc, char **argv) { return convsmith::main_of(argc, argv); }
