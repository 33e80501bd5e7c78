#include "tuner.h"
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include "convsmith/file.h"
#include "duel.h"
#include "tools/support/interrupt.h"
#include "tools/support/parallel.h"
#include "tools/support/temporary_folder.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

constexpr int waves_without_gain = 2;
constexpr size_t batch = 8;  // built at once; then each is measured, with nothing else running

}  // namespace

// One task's search.
class Tuner::Race {
 public:
  Race(Tuner &t, const TuneTask &task, Clock::time_point deadline, int trials, const std::function<void(const TuneResult &)> &told)
      : tools_(t.tools_), log_(t.log_), o_(t.options_), deadline_(deadline), most_trials_(trials), told_(told), result_(nothing_yet(tools_, task)),
        duel_(tools_, result_.task, result_.present, o_, folder_ / "present") {}

  TuneResult run() {
    try {
      search();
    } catch (const Interrupted &) { result_.interrupted = true; }
    return whole();
  }

  void search() {
    std::vector<Proposal> wave = tools_.baselines(result_.task);
    for (auto &b : wave) baselines_.insert(b.text());
    for (auto &p : tools_.propose(result_.task, o_.width, o_.seed, nullptr)) wave.push_back(p);
    double best = 1;
    note_known();
    for (auto &[key, t] : log_.trials()) {
      const Proposal p = proposal_of(key);
      if (key.rung != last_rung() || !is_of_task(key) || !t.fault.empty() || !p.version) continue;
      if (const auto known = score(t); known && *known > best) leader_ = p, best = scores_[p.text()] = *known;
    }
    for (std::uint64_t without_gain = 0, number = 1; !over(); number++) {
      const std::optional<Proposal> winner = halve(wave);
      if (winner && scores_[winner->text()] > best * 1.01) best = scores_[winner->text()], leader_ = *winner, without_gain = 0;
      else if (number > 1 && ++without_gain >= waves_without_gain) break;
      const Proposal &around = leader_ ? *leader_ : result_.present;
      wave = tools_.propose(result_.task, std::max(4, o_.width / 2), o_.seed + number, &around);
    }
    if (leader_ && finished_ < most_trials_) judge(*leader_);
  }

  TuneResult known() {
    note_known();
    return whole();
  }

 private:
  // What earlier searches found.
  void note_known() {
    for (auto &[key, trial] : log_.trials())
      if (is_of_task(key)) note(trial);
  }
  bool is_of_task(const TrialKey &key) const { return key == key_of(proposal_of(key), key.rung); }

  TuneResult whole() {
    for (auto &[key, trial] : log_.trials())
      if (is_of_task(key)) result_.seen.push_back(trial);
    return result_;
  }

  static TuneResult nothing_yet(TuneTools &tools, const TuneTask &task) {
    TuneResult r;
    r.task = task;
    r.present = r.best = tools.present(task);
    return r;
  }
  int last_rung() const { return int(o_.seconds.size()) - 1; }
  // One trial is kept for the last rung.
  bool over() const { return finished_ >= std::max(1, most_trials_ - 1) || Clock::now() >= deadline_; }

  TrialKey key_of(const Proposal &p, int rung) const {
    return {o_.cpu, o_.halide, o_.level, result_.task.problem.str(), pass_name(result_.task.pass), fmt::format("{}", fmt::join(o_.threads, ",")),
            fmt::format("{}@{}", p.schedule, p.version), p.knobs, rung};
  }
  static Proposal proposal_of(const TrialKey &key) {
    const size_t at = std::min(key.schedule.find('@'), key.schedule.size());
    Proposal p{key.schedule.substr(0, at), key.knobs};
    p.version = at < key.schedule.size() ? std::atoi(key.schedule.c_str() + at + 1) : 0;
    return p;
  }

  // The better third again and more closely, up to the rung before the last. The best, where any is sound.
  std::optional<Proposal> halve(std::vector<Proposal> field) {
    std::erase_if(field, [&](const Proposal &p) { return p.text() == result_.present.text(); });
    for (int rung = 0; rung < std::max(1, last_rung()) && !field.empty(); rung++) {
      std::vector<Proposal> sound;
      for (size_t at = 0; at < field.size(); at += batch) {
        const std::vector<Proposal> some(field.begin() + std::ptrdiff_t(at), field.begin() + std::ptrdiff_t(std::min(at + batch, field.size())));
        build(some, rung);
        for (auto &p : some)
          if (const Trial *t = trial(p, rung); t && t->fault.empty()) scores_[p.text()] = *score(*t), sound.push_back(p);
      }
      std::stable_sort(sound.begin(), sound.end(), [&](auto &a, auto &b) { return scores_[a.text()] > scores_[b.text()]; });
      // One that is clearly slower than what is there need not be looked at again.
      while (!sound.empty() && scores_[sound.back().text()] < 0.9) drop(sound.back()), sound.pop_back();
      while (sound.size() > (field.size() + 2) / 3) drop(sound.back()), sound.pop_back();
      field = sound;
      if (over()) break;
    }
    std::erase_if(field, [&](const Proposal &p) { return baselines_.count(p.text()) > 0; });
    return field.empty() ? std::nullopt : std::optional(field.front());
  }

  // The last rung. Its time was set aside: it is taken even past the deadline.
  void judge(const Proposal &p) {
    const Trial *t = log_.find(key_of(p, last_rung()));
    if (t && t->against == result_.present.text()) return;
    if (!built_.count(p.text())) build_one(p);
    if (built_.count(p.text())) measure(p, last_rung());
  }

  // What is known of it at this rung, measured now if it is not.
  const Trial *trial(const Proposal &p, int rung) {
    if (const Trial *t = known_at(p, rung)) return t;
    if (over() || faulty(p)) return nullptr;
    const auto made = built_.find(p.text());
    return made == built_.end() ? nullptr : measure(p, rung);
  }

  const Trial *known_at(const Proposal &p, int rung) const {
    const Trial *t = log_.find(key_of(p, rung));
    return t && (!t->fault.empty() || score(*t)) ? t : nullptr;
  }

  // How much better than what would be used now: measured, or by way of what would have been used then, where both took
  // turns with that.
  std::optional<double> score(const Trial &t) const {
    if (t.against == result_.present.text()) return t.ratio();
    for (int rung = last_rung(); rung >= 0; rung--)
      if (const Trial *now = log_.find(key_of(result_.present, rung)); now && now->fault.empty() && now->against == t.against)
        return t.ratio() / now->ratio();
    return std::nullopt;
  }

  bool faulty(const Proposal &p) const {
    for (int rung = 0; rung <= last_rung(); rung++)
      if (const Trial *t = log_.find(key_of(p, rung)); t && !t->fault.empty()) return true;
    return false;
  }

  // Builds those that will have to be measured, several at a time and before any is: nothing else runs while one is timed.
  void build(const std::vector<Proposal> &field, int rung) {
    std::vector<const Proposal *> missing;
    for (auto &p : field)
      if (!known_at(p, rung) && !faulty(p) && !built_.count(p.text())) missing.push_back(&p);
    in_parallel(missing.size(), [&](size_t i) {
      if (!over()) build_one(*missing[i]);
    });
  }

  // By several threads at once.
  void build_one(const Proposal &p) {
    check_interrupt();
    const std::string folder = folder_ / std::to_string(folders_++);
    std::string library, fault;
    try {
      fs::create_directory(folder);
      library = tools_.build(result_.task, p, folder);
    } catch (const Fault &f) { fault = f.what(); }
    const std::lock_guard held(lock_);
    if (fault.empty()) built_[p.text()] = library;
    else record(p, 0, fault);
  }

  void drop(const Proposal &p) {
    const auto at = built_.find(p.text());
    if (at == built_.end()) return;
    std::error_code ignored;
    if (!at->second.empty()) fs::remove_all(fs::path(at->second).parent_path(), ignored);
    built_.erase(at);
  }

  const Trial *record(const Proposal &p, int rung, const std::string &fault, const Duel::Score &score = {}) {
    Trial t{key_of(p, rung), fault, score.us, result_.present.text(), score.against_us, score.noise, o_.seed,
            fmt::format("{:%F}", std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now())), o_.convsmith};
    log_.append(t);
    result_.trials = ++finished_;
    result_.faults += !fault.empty();
    note(*log_.find(t.key));
    if (told_) told_(result_);
    return log_.find(t.key);
  }

  void note(const Trial &t) {
    noted_++;
    if (!t.fault.empty() || !score(t)) return;
    if (t.against == result_.present.text() && t.key.rung >= present_rung_) {
      present_rung_ = t.key.rung, result_.present_us = t.against_us;
      if (result_.ratio <= 1) result_.us = t.against_us, result_.noise = t.noise;
    }
    const Proposal p = proposal_of(t.key);
    if (baselines_.count(p.text()) || !p.version) return;
    const double shown = result_.curve.empty() ? 1 : result_.curve.back().best;
    if (*score(t) > shown) result_.curve.push_back({noted_, *score(t)});
    if (t.key.rung != last_rung() || t.against != result_.present.text() || t.ratio() <= result_.ratio) return;
    result_.best = p, result_.ratio = t.ratio(), result_.noise = t.noise, result_.us = t.us, result_.present_us = t.against_us, result_.date = t.date;
  }

  const Trial *measure(const Proposal &p, int rung) {
    check_interrupt();
    const std::string library = built_.at(p.text());
    std::error_code ignored;
    const size_t code = fs::is_regular_file(library, ignored) ? std::hash<std::string>()(read_file(library)) : 0;
    // Settings that come to the same code need no second look.
    if (const auto twin = twins_.find({code, rung}); code && twin != twins_.end()) {
      const Trial &t = *log_.find(twin->second);
      return record(p, rung, t.fault, {t.us, t.against_us, t.noise});
    }
    const Trial *t = nullptr;
    try {
      t = record(p, rung, "", duel_.measure(p, library, rung));
    } catch (const Fault &f) { t = record(p, rung, f.what()); }
    if (code) twins_.emplace(std::pair(code, rung), t->key);
    return t;
  }

  TuneTools &tools_;
  TrialLog &log_;
  const TuneOptions &o_;
  const Clock::time_point deadline_;
  const int most_trials_;
  const std::function<void(const TuneResult &)> &told_;
  TuneResult result_;
  const TemporaryFolder folder_;
  std::atomic<int> folders_ = 0, finished_ = 0;
  std::mutex lock_;  // of what follows, while several are built
  std::map<std::string, std::string> built_;  // by setting
  std::map<std::pair<size_t, int>, TrialKey> twins_;  // by code and rung
  std::map<std::string, double> scores_;
  std::set<std::string> baselines_;
  int noted_ = 0;  // trials, of this run and of earlier ones
  std::optional<Proposal> leader_;
  int present_rung_ = 0;  // of the trial that present_us comes from
  Duel duel_;
};

TuneResult Tuner::tune(const TuneTask &task, Clock::time_point deadline, int trials, const std::function<void(const TuneResult &)> &told) {
  return Race(*this, task, deadline, trials, told).run();
}

TuneResult Tuner::known(const TuneTask &task) { return Race(*this, task, Clock::now(), 0, {}).known(); }

}  // namespace convsmith
