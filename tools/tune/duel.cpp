#include "duel.h"
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include "convsmith/error.h"
#include "tools/support/interrupt.h"

namespace convsmith {
namespace {

constexpr int turns = 4;  // of each rung, in two halves

}  // namespace

Duel::Duel(TuneTools &tools, const TuneTask &task, const Proposal &present, const TuneOptions &o, std::string folder)
    : tools_(tools), task_(task), present_(present), o_(o), folder_(std::move(folder)), random_(o.seed) {}

Duel::Score Duel::measure(const Proposal &p, const std::string &library, int rung) {
  start_present();
  std::vector<std::pair<double, double>> best[2];  // (its, the present's) least times by half of the turns and number of threads
  for (auto &half : best) half.assign(o_.threads.size(), {INFINITY, INFINITY});
  Contestant contestant(tools_.program(p), tools_.job(task_, p, library), o_.limits);
  hold(contestant.check());
  for (int turn = 0; turn < turns; turn++)
    for (size_t t = 0; t < o_.threads.size(); t++) {
      auto &[its, presents] = best[turn % 2][t];
      const double seconds = o_.seconds[size_t(rung)] / turns;
      for (int i = 0, first = int(random_() % 2); i < 2; i++) {
        check_interrupt();
        if ((i + first) % 2) its = std::min(its, contestant.time(o_.threads[t], seconds).min_us);
        else presents = std::min(presents, time_present(o_.threads[t], seconds));
      }
    }
  hold(contestant.check());
  Score s{0, 0, 0};
  for (size_t i = 0; i < o_.threads.size(); i++) {
    s.us += std::log(std::min(best[0][i].first, best[1][i].first)), s.against_us += std::log(std::min(best[0][i].second, best[1][i].second));
    s.noise = std::max(s.noise, std::abs(best[0][i].second / best[0][i].first - best[1][i].second / best[1][i].first));
  }
  const double n = double(o_.threads.size());
  s.us = std::exp(s.us / n), s.against_us = std::exp(s.against_us / n);
  return s;
}

void Duel::start_present() {
  if (contestant_) return;
  try {
    std::filesystem::create_directory(folder_);
    contestant_ = std::make_unique<Contestant>(tools_.program(present_), tools_.job(task_, present_, tools_.build(task_, present_, folder_)), o_.limits);
    digest_ = contestant_->check();
  } catch (const Fault &f) { fail(f); }
}

double Duel::time_present(int threads, double seconds) {
  try {
    return contestant_->time(threads, seconds).min_us;
  } catch (const Fault &f) { fail(f); }
}

void Duel::hold(const std::string &digest) const {
  if (digest != digest_) throw Fault("another result than what would be used now");
}

void Duel::fail(const Fault &f) const {
  throw Error(fmt::format("{}: what would be used now, {}, cannot be measured: {}", task_.title(), present_.text(), f.what()));
}

}  // namespace convsmith
