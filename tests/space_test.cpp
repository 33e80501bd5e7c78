// What the tuner proposes: settings that can be compiled, all different, the same for the same seed.
#include "tools/tune/space.h"
#include <gtest/gtest.h>
#include <algorithm>
#include <set>
#include "schedules/levels.h"
#include "schedules/records.h"

namespace convsmith {
namespace {

ProposalRequest request(const char *problem, const char *pass, int count) {
  ProposalRequest r;
  r.problem = problem, r.pass = pass, r.target = "x86-64-avx2", r.count = count;
  return r;
}

Workload workload_of(const ProposalRequest &r) {
  return {Problem::parse(r.problem), parse_pass(r.pass), parse_targets(r.target).at(0)};
}

std::set<std::string> texts(const std::vector<Proposal> &list) {
  std::set<std::string> all;
  for (auto &p : list) all.insert(p.text());
  return all;
}

constexpr const char *tuned_layers[] = {"ic=64 oc=64 in=56x56 kernel=3 pad=1", "ic=96 oc=96 groups=96 in=28x28 kernel=3 stride=2 pad=1",
                                  "ic=24 oc=24 in=4096 kernel=9 dilation=4 pad=16", "in=6x8 kernel=1x2", "ic=3 oc=16 in=9x9x9 kernel=3"};

TEST(Space, ProposalsFitTheirProblem) {
  for (const char *layer : tuned_layers)
    for (const char *pass : {"forward", "input_gradient", "weight_gradient"}) {
      const ProposalRequest r = request(layer, pass, 40);
      const auto list = proposals(r, workload_of(r));
      EXPECT_GT(list.size(), 10u) << layer << pass;
      EXPECT_EQ(texts(list).size(), list.size());
      for (auto &p : list) {
        const Schedule &schedule = find_schedule(p.schedule);
        EXPECT_EQ(p.version, schedule.version);
        const Knobs knobs = Knobs::parse(p.knobs);
        const Workload w = with_knobs(workload_of(r), knobs);
        const Stages s = outline(w);
        EXPECT_TRUE(schedule.supports(s, w));
        EXPECT_NO_THROW(check_knobs(schedule, knobs, s, w)) << p.text();
        EXPECT_EQ(knobs.values().size(), all_knobs(schedule, s, w).size()) << "every knob is named";
        EXPECT_GT(p.model, 0);
      }
    }
}

TEST(Space, NeighboursDifferALittle) {
  ProposalRequest r = request(tuned_layers[0], "forward", 30);
  const Workload w = workload_of(r);
  const Choice now = choose(w, RecordBook(), "*");
  r.around = {now.schedule->name, now.knobs.str()};
  const auto list = proposals(r, w);
  EXPECT_EQ(list.size(), 30u);
  for (auto &p : list) {
    EXPECT_EQ(p.schedule, now.schedule->name);
    const Knobs knobs = Knobs::parse(p.knobs);
    int changed = 0;
    for (auto &[name, values] : knobs.values()) changed += values != now.knobs.values().at(name);
    EXPECT_LE(changed, 3) << p.knobs;
    EXPECT_EQ(knobs.get("panel", 0), now.knobs.get("panel", 0)) << "an archive has one packed order";
  }
}

TEST(Space, TheSameSeedProposesTheSame) {
  ProposalRequest r = request(tuned_layers[1], "forward", 20);
  const auto list = proposals(r), again = proposals(r);
  ASSERT_EQ(list.size(), again.size());
  for (size_t i = 0; i < list.size(); i++) EXPECT_EQ(list[i].text(), again[i].text());
  r.seed = 2;
  EXPECT_NE(texts(proposals(r)), texts(list));
}

// A tile that fills the registers is better than one that leaves nothing to hide an addition's latency behind, and than
// one that spills.
TEST(Space, TheModelKnowsRegisters) {
  const ProposalRequest r = request(tuned_layers[0], "forward", 2000);
  double fitting = 1e9, tiny = 1e9, spilling = 1e9;
  for (auto &p : proposals(r, workload_of(r))) {
    const Knobs k = Knobs::parse(p.knobs);
    if (p.schedule != "cpu_direct" || k.get("lanes", 0) != 8) continue;
    const int vectors = k.get("tile", 0, 1) / 8 * k.get("tile", 1, 1) * k.get("tile", 2, 1);
    if (vectors >= 10 && vectors <= 12) fitting = std::min(fitting, p.model);
    if (vectors <= 2) tiny = std::min(tiny, p.model);
    if (vectors >= 32) spilling = std::min(spilling, p.model);
  }
  EXPECT_LT(fitting, tiny);
  EXPECT_LT(fitting, spilling);
}

}  // namespace
}  // namespace convsmith
