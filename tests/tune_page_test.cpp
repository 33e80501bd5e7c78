#include "tools/commands/tune_page.h"
#include <gtest/gtest.h>
#include <cmath>
#include <string>
#include <vector>
#include "page_checks.h"

namespace convsmith {
namespace {

using Json = nlohmann::json;

const std::string present = "cpu_direct@1 tile=32,14 pad=1 order=0,1";

Json tried(const std::string &setting, int rung, double ratio) {
  return {{"setting", setting}, {"rung", rung}, {"us", 1000 / ratio}, {"ratio", ratio}, {"noise", 0.01}};
}

Json refused(const std::string &setting, const std::string &why) {
  return {{"setting", setting}, {"rung", 0}, {"fault", why}};
}

Json task(const std::string &kernel, const std::string &pass, double ratio) {
  const std::string best = "cpu_direct@1 tile=16,28 pad=0 order=0,1";
  return {{"kernel", kernel},
          {"problem", "ic=64 oc=64 in=56x56 kernel=3 pad=1"},
          {"pass", pass},
          {"operations", 231211008.0},
          {"bytes", 1753088.0},
          {"present", {{"setting", present}, {"us", 1000.0}, {"why", "no record; the first that takes it"}}},
          {"best", {{"setting", best}, {"us", 1000 / ratio}}},
          {"ratio", ratio},
          {"noise", 0.004},
          {"won", ratio > 1.02},
          {"trials", 5},
          {"faults", 1},
          {"gflops", 231.2},
          {"roof", 0.86},
          {"curve", {{{"trial", 2}, {"best", 1.01}}, {{"trial", 3}, {"best", 1.01}}, {{"trial", 4}, {"best", ratio}}}},
          {"seen",
           {tried(best, 0, 1.2), tried(best, 3, ratio), tried("cpu_direct@1 tile=8,14 pad=1 order=0,1", 0, 0.7),
            tried("cpu_lane_sums@2 strip=2", 0, 0.3),
            refused("cpu_direct@1 tile=64,14 pad=1 order=0,1", "died of signal 11")}},
          {"baselines", Json::array()}};
}

Json report(const Json &tasks) {
  Json copies = Json::array();
  for (int shift = 15; shift <= 27; shift++)
    copies.push_back({{"bytes", double(1 << shift)}, {"gb_per_s", 600.0 - 20 * shift}});
  return {{"set", "sets/odd.spec"},
          {"cpu", "amd-26-2"},
          {"threads", "1,2"},
          {"seconds", 612.3},
          {"roofs",
           {{{"threads", 1}, {"gflops", 270.0}, {"copies", copies}},
            {{"threads", 2}, {"gflops", 540.0}, {"copies", copies}}}},
          {"tasks", tasks},
          {"means", {{{"of", "all of them"}, {"tasks", 2}, {"ratio", 1.0412}}}}};
}

// Between two words that occur once.
std::string part(const std::string &page, const std::string &from, const std::string &to) {
  EXPECT_EQ(count(page, from), 1u) << from;
  const std::size_t at = page.find(from);
  return at == std::string::npos ? "" : page.substr(at, page.find(to, at) - at);
}

TEST(TunePage, HoldsTheMeansOneRoofAndARowATask) {
  const std::string page = tune_page(report({task("edge", "forward", 1.087), task("line", "weight_gradient", 1.001)}));
  expect_whole(page);
  for (const char *text :
       {"<h1>convsmith tune: sets/odd.spec</h1>", ">amd-26-2<", ">612.3<", "was found for 1 of 2 tasks.",
        ">all of them</td><td>2</td><td>1.041</td>", ">270 GFLOP/s<",
        "below the roof of 1 thread; a time is the mean over 1,2 threads", "<h2>How to read this</h2>",
        ">no record; the first that takes it<", ">tile 32,14 → 16,28, pad 1 → 0<"})
    EXPECT_TRUE(has(page, text)) << text;
  EXPECT_EQ(count(page, "</figcaption>\n<svg width=\"620\""), 1u);
  EXPECT_EQ(count(page, "fill=\"var(--p0)\"><title>edge, forward: 231 GFLOP/s, 86 % of the roof"), 1u);
  EXPECT_EQ(count(page, "fill=\"var(--p2)\"><title>line, weight_gradient"), 1u);
  EXPECT_EQ(count(page, "<tr class=\"won\">"), 1u);
  EXPECT_EQ(count(page, "<td class=\"up\">▴ 1.087</td>"), 1u);
  EXPECT_EQ(count(page, "<td>1.001</td><td><svg"), 1u);
  EXPECT_EQ(count(page, "<details>"), 2u);
  EXPECT_EQ(count(page, " title=\"" + present + "\">1000</td>"), 2u);
}

TEST(TunePage, DrawsTheBestSoFarAsStepsWithinItsFrame) {
  const std::string page = tune_page(report(Json::array({task("edge", "forward", 1.087)})));
  expect_whole(page);
  EXPECT_TRUE(has(page, "<details open=\"\">"));
  const std::string curve = part(page, "<figcaption>Best so far", "</figure>");
  EXPECT_TRUE(has(curve, "<title>trial 2: 1.010</title>") && has(curve, "<title>trial 4: 1.087</title>"));
  EXPECT_TRUE(has(curve, "<title>the noise: 0.4 %</title>"));
  const auto x = numbers_after(curve, " cx=\""), y = numbers_after(curve, " cy=\"");
  ASSERT_EQ(x.size(), 2u);  // the third trial was no better
  EXPECT_NEAR(x[0] - 64, (x[1] - 64) / 2, 0.11);
  EXPECT_GT(y[0], y[1]);
  for (const double value : y) EXPECT_TRUE(value >= 12 && value <= 214) << value;
}

TEST(TunePage, ShowsWhatEachKnobDid) {
  const std::string page = tune_page(report(Json::array({task("edge", "forward", 1.087)})));
  const std::string knobs = part(page, "<div class=\"knobs\">", "</div>");
  const auto schedule = knobs.find("<figcaption>schedule <span class=\"quiet\">effect 0.787<"),
             tile = knobs.find("<figcaption>tile <span class=\"quiet\">effect 0.387<"),
             pad = knobs.find("<figcaption>pad <span class=\"quiet\">effect 0.087<");
  EXPECT_TRUE(schedule < tile && tile < pad && pad != std::string::npos) << knobs;
  EXPECT_FALSE(has(knobs, ">order <") || has(knobs, ">strip <"));
  EXPECT_TRUE(has(knobs, " title=\"pad=1: best 1.000, median 0.850, 2 settings\"><td>○</td>"));
  EXPECT_TRUE(has(knobs, " title=\"tile=16,28: best 1.087, median 1.087, 1 setting\"><td>★</td>"));
  EXPECT_TRUE(has(knobs, " title=\"schedule=cpu_direct@1: best 1.087, median 1.000, 3 settings\"><td>★○</td>"));
  EXPECT_FALSE(has(knobs, "64,14"));
}

TEST(TunePage, ListsTheBestSettingsByWhatTheyChangeAndTheFaultsByCount) {
  Json t = task("edge", "forward", 1.087);
  t["seen"].push_back(refused("cpu_direct@1 tile=64,7 pad=1 order=0,1", "died of signal 11"));
  t["seen"].push_back(refused("cpu_direct@1 tile=64,6 pad=1 order=0,1", std::string(199, 'x') + "→ and so on"));
  const std::string page = tune_page(report(Json::array({t})));
  expect_whole(page);
  const std::string best = part(page, "<figcaption>3 sound settings", "</figure>");
  EXPECT_TRUE(has(best, "<td>1.087</td><td>920</td><td>1.0 %</td><td>3</td>"));
  EXPECT_TRUE(has(best, "<code>tile=16,28 pad=0</code>"));
  EXPECT_TRUE(has(best, "<code>cpu_lane_sums@2 strip=2</code>"));
  EXPECT_TRUE(has(page, "<li>died of signal 11 <span class=\"quiet\">(2 settings)</span></li>"));
  EXPECT_TRUE(has(page, "<li>" + std::string(199, 'x') + "… <span class=\"quiet\">(1 setting)</span></li>"));
}

TEST(TunePage, GivesBaselinesAColumnEach) {
  Json tasks = {task("a", "forward", 1.1), task("b", "forward", 1), task("c", "forward", 1)};
  tasks[0]["baselines"] = {{{"name", "Mullapudi2016"}, {"us", 2000.0}, {"ratio", 0.5}},
                           {{"name", "Adams2019"}, {"us", 500.0}, {"ratio", 2.0}}};
  tasks[1]["baselines"] = {{{"name", "Adams2019"}, {"fault", "took more than 30 s"}}};
  const std::string page = tune_page(report(tasks));
  expect_whole(page);
  EXPECT_TRUE(has(page, "<th>Mullapudi2016\nratio</th><th>Adams2019\nratio</th>"));
  EXPECT_TRUE(has(page, "<td title=\"2000 us\">0.500</td><td title=\"500 us\" class=\"slow\">2.000</td>"));
  EXPECT_TRUE(has(page, "<td title=\"took more than 30 s\">–</td>"));
  EXPECT_TRUE(has(page, "<li>Adams2019: took more than 30 s <span class=\"quiet\">(1 task)</span></li>"));
}

TEST(TunePage, EscapesWhateverItIsGiven) {
  const std::string odd = "<b>\"&'\n\x01</b>", setting = odd + "@1 " + odd + "=<i>";
  Json t = task(odd, odd, 1.1);
  t["problem"] = t["present"]["why"] = odd;
  t["present"]["setting"] = setting, t["best"]["setting"] = setting + "<u>";
  t["seen"] = {tried(setting, 0, 1.1), tried(setting + "<u>", 1, 1.2), refused("x" + setting, odd)};
  t["baselines"] = {{{"name", odd}, {"fault", odd}}};
  Json r = report(Json::array({t}));
  r["set"] = r["cpu"] = r["threads"] = r["log"] = r[odd] = r["means"][0]["of"] = r["roofs"][0]["threads"] = odd;
  const std::string page = tune_page(r);
  expect_whole(page);
  EXPECT_FALSE(has(page, "<b>\"") || has(page, "<u>") || has(page, "<i>") || has(page, "\x01"));
  EXPECT_TRUE(has(page, "<td class=\"l quiet\">changes"));
}

// Every member at every depth in turn missing or something else.
void replace_each(Json &at, const Json &whole, const std::vector<Json> &values) {
  if (!at.is_structured()) return;
  for (auto &entry : at) {
    const Json kept = entry;
    for (auto &value : values) {
      entry = value;
      expect_whole(tune_page(whole));
      if (testing::Test::HasFailure()) FAIL() << whole.dump();
    }
    entry = kept;
    replace_each(entry, whole, values);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(TunePage, StaysWholeWhateverIsMissing) {
  for (const Json &r : {Json(), Json::object(), Json(1), Json::array({1}), report(Json::array()), report(Json()),
                        report({Json(), 1, "text"})}) {
    const std::string page = tune_page(r);
    expect_whole(page);
    EXPECT_FALSE(has(page, "<circle"));
    EXPECT_TRUE(has(page, "<h2>How to read this</h2>"));
  }
  Json t = task("a", "forward", 1.1);
  t["baselines"] = {{{"name", "Adams2019"}, {"us", 500.0}, {"ratio", 2.0}}};
  Json r = report(Json::array({t}));
  for (auto &roof : r["roofs"]) roof["copies"].erase(roof["copies"].begin() + 2, roof["copies"].end());
  replace_each(r, r,
               {Json(), 0, -1, 1e-300, 1e300, 1e29, INFINITY, NAN, "text", true, Json::array({1}), Json{{"a", 1}}});
}

TEST(TunePage, StaysSmallWithHundredsOfTrials) {
  Json t = task("edge", "forward", 1.087);
  for (int i = 0; i < 600; i++) {
    const std::string setting = "cpu_direct@1 tile=" + std::to_string(i % 40) + ",14 pad=" + std::to_string(i % 3) +
                                " order=0,1 block=" + std::to_string(i % 7) + " unroll=" + std::to_string(i);
    t["seen"].push_back(tried(setting, i % 4, 0.2 + 0.0011 * i));
    t["curve"].push_back({{"trial", 5 + i}, {"best", 1.087}});
  }
  t["trials"] = 605;
  const std::string page = tune_page(report(std::vector<Json>(20, t)));
  expect_whole(page);
  EXPECT_LT(page.size(), 20 * 30000u);
  EXPECT_EQ(count(page, "<figcaption>The ten best of 603 sound settings"), 20u);
  const std::string first = page.substr(page.find("<details>"), page.find("</details>") - page.find("<details>"));
  EXPECT_EQ(count(first, "<td>1.0 %</td>"), 10u);
  EXPECT_EQ(count(first, " title=\"unroll="), 8u);
  EXPECT_EQ(count(first, "<small>and 592 lesser values</small>"), 1u);
}

}  // namespace
}  // namespace convsmith
