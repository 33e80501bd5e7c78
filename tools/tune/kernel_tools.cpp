#include <fmt/format.h>
#include <algorithm>
#include "schedules/schedule.h"
#include "tools/emit/library.h"
#include "tools/support/process.h"
#include "tuner.h"

namespace convsmith {
namespace {

// A kernel of the largest tile that a machine has registers for takes a second or two.
constexpr CompileLimits compile_limits = {15, std::size_t{8} << 30};
constexpr const char *library_name = "candidate", *kernel_name = "kernel";

class KernelTools final : public TuneTools {
 public:
  KernelTools(const TuneOptions &o, std::string records, std::string cc, bool baselines)
      : o_(o), records_(std::move(records)), cc_(std::move(cc)), baselines_(baselines) {}

  Proposal present(const TuneTask &t) override {
    KernelJob job;
    job.problem = t.problem.str(), job.pass = pass_name(t.pass), job.target = o_.level, job.cpu = o_.cpu, job.records = records_;
    const KernelChoice c = kernel_choice(job);
    return {c.schedule, c.knobs, c.version};
  }

  std::vector<Proposal> propose(const TuneTask &t, int count, std::uint64_t seed, const Proposal *around) override {
    ProposalRequest r;
    r.problem = t.problem.str(), r.pass = pass_name(t.pass), r.target = o_.level, r.count = count, r.seed = seed;
    r.threads = *std::max_element(o_.threads.begin(), o_.threads.end());
    if (around) r.around = {around->schedule, around->knobs};
    return proposals(r);
  }

  std::vector<Proposal> baselines(const TuneTask &) override {
    if (!baselines_) return {};
    return {{"Mullapudi2016", ""}, {"Adams2019", ""}};
  }

  std::string build(const TuneTask &t, const Proposal &p, const std::string &folder) override {
    KernelRequest r{kernel_name, {t.pass}, t.problem, "", {{t.pass, {p.schedule, p.knobs}}}};
    // Where they lie as plain, a call brings weights into their order without it.
    const Knobs knobs = Knobs::parse(p.knobs);
    if (knobs.get("panel", 0) || knobs.get("quad", 0))
      r.passes.push_back(t.pass == PassKind::forward ? PassKind::pack_weight : PassKind::pack_weight_for_input_gradient);
    EmitOptions e;
    e.name = library_name, e.folder = folder, e.targets = o_.level, e.tune_for = o_.cpu, e.records = records_, e.cc = cc_;
    e.verify = false, e.limits = compile_limits;
    try {
      emit_library({r}, e);
    } catch (const InternalError &error) {
      const std::string what = error.what(), about = fmt::format("{} of \"{}\": ", pass_name(t.pass), t.problem.str());
      throw Fault(what.starts_with(about) ? what.substr(about.size()) : what);
    }
    const std::string library = folder + "/" + library_name + ".so";
    link_shared(cc_, folder + "/lib" + library_name + ".a", library);
    return library;
  }

  std::vector<std::string> program(const Proposal &) override { return {own_executable(), "contestant"}; }

  ContestantJob job(const TuneTask &t, const Proposal &, const std::string &library) override {
    return {library, library_name, kernel_name, pass_name(t.pass), t.problem.str(), o_.level, o_.threads, o_.seed};
  }

 private:
  const TuneOptions o_;
  const std::string records_, cc_;
  const bool baselines_;
};

}  // namespace

std::unique_ptr<TuneTools> kernel_tools(const TuneOptions &o, const std::string &records, const std::string &cc, bool baselines) {
  return std::make_unique<KernelTools>(o, records, cc, baselines);
}

}  // namespace convsmith
