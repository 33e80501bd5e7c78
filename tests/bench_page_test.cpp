#include "tools/commands/bench_page.h"
#include <gtest/gtest.h>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>
#include "page_checks.h"

namespace convsmith {
namespace {

using Json = nlohmann::json;

Json measured(const std::string &kernel, const std::string &pass, int threads, const Json &peers) {
  return {{"problem", "ic=64 oc=64 in=56x56 kernel=3 pad=1"},
          {"kernel", kernel},
          {"pass", pass},
          {"threads", threads},
          {"us_min", 1000.0},
          {"us_median", 1012.5},
          {"gflops", 231.2},
          {"roof", 0.86},
          {"operations", 231211008.0},
          {"bytes", 1753088.0},
          {"peers", peers}};
}

Json times(double us) { return {{"us_min", us}, {"us_median", us}}; }

Json report(const Json &rows, const Json &peers) {
  Json copies = Json::array(), roofs = Json::array();
  for (int shift = 15; shift <= 27; shift++)
    copies.push_back({{"bytes", double(1 << shift)}, {"gb_per_s", 600.0 - 20 * shift}});
  for (const int threads : {1, 2})
    roofs.push_back({{"threads", threads}, {"gflops", 270.0 * threads}, {"copies", copies}});
  Json r = {{"set", "sets/odd.spec"}, {"cpu", "amd-26-2"}, {"level", "x86-64-avx512"},
            {"halide", "21.0.0"},     {"rows", rows},      {"roofs", roofs}};
  if (!peers.is_null()) r["peers"] = peers;
  return r;
}

TEST(BenchPage, HoldsTheHeadingARoofAThreadCountAndADotARow) {
  Json r =
      report({measured("edge", "forward", 1, {{"theirs", times(2000)}}), measured("edge", "forward", 2, {{"theirs", times(500)}}),
              measured("edge", "weight_gradient", 1, {{"theirs", times(1100)}})},
             {{"theirs", "Their library 1.2"}});
  r["means"] = Json::array({{{"of", "all of them"}, {"rows", 3}, {"roof", 0.86}, {"ratios", {{"theirs", 1.032}}}}});
  const std::string page = bench_page(r);
  expect_whole(page);
  for (const char *text :
       {"<h1>convsmith bench: sets/odd.spec</h1>", ">amd-26-2<", ">x86-64-avx512<", ">21.0.0<", ">Their library 1.2<",
        ">1 thread<", ">2 threads<", ">270 GFLOP/s<", ">540 GFLOP/s<", ">256 KiB: 240 GB/s<", ">128 MiB: 60.0 GB/s<",
        ">all of them</td><td>3</td><td>86 %</td><td>1.03</td>", "<h2>How to read this</h2>"})
    EXPECT_TRUE(has(page, text)) << text;
  EXPECT_EQ(count(page, "<circle"), 3u);
  EXPECT_EQ(count(page, "<rect"), 3u);
  EXPECT_EQ(count(page, "<tr id=\"r"), 3u);
  for (const double x : numbers_after(page, " cx=\"")) EXPECT_TRUE(x >= 64 && x <= 606) << x;
  for (const double y : numbers_after(page, " cy=\"")) EXPECT_TRUE(y >= 14 && y <= 366) << y;
  EXPECT_EQ(count(page, "fill=\"var(--p0)\"><title>edge, forward"), 2u);
  EXPECT_EQ(count(page, "fill=\"var(--p2)\"><title>edge, weight_gradient"), 1u);
}

TEST(BenchPage, AFactorOfTwoIsAsLongOnEitherSideOfOne) {
  const std::string page = bench_page(
      report({measured("a", "forward", 1, {{"theirs", times(2000)}}), measured("b", "forward", 1, {{"theirs", times(500)}}),
              measured("c", "forward", 1, {{"theirs", times(1000)}}), measured("d", "forward", 1, {{"theirs", times(1e6)}})},
             {{"theirs", "1"}}));
  expect_whole(page);
  const std::size_t bars = page.find("<rect");
  const std::vector<double> x = numbers_after(page.substr(bars), "<rect x=\""),
                            width = numbers_after(page.substr(bars), "\" width=\"");
  ASSERT_EQ(x.size(), 4u);
  ASSERT_EQ(width.size(), 4u);
  EXPECT_GT(width[0], 20);
  EXPECT_NEAR(width[0], width[1], 0.11);
  EXPECT_NEAR(x[1] + width[1], x[0], 0.11);
  EXPECT_EQ(width[2], 0);
  EXPECT_NEAR(width[3], 3 * width[0], 0.31);  // the scale ends at 8
  EXPECT_EQ(count(page, "class=\"break\""), 1u);
  EXPECT_TRUE(has(page, ">1000</text>"));
  EXPECT_TRUE(has(page, "</tspan>: 4 of 4 rows, mean 5.62</text>"));
}

TEST(BenchPage, MarksRowsBelowTheLimit) {
  const std::string page = bench_page(report({measured("a", "forward", 1, {{"p", times(840)}, {"q", times(3000)}}),
                                              measured("b", "forward", 1, {{"p", times(860)}, {"q", times(3000)}})},
                                             {{"p", "1"}, {"q", "2"}}));
  expect_whole(page);
  EXPECT_TRUE(has(page, "<tr id=\"r0\" class=\"marked\">"));
  EXPECT_TRUE(has(page, "<tr id=\"r1\">"));
  EXPECT_EQ(count(page, "<td class=\"slow\">▾ 0.84</td>"), 1u);
  EXPECT_TRUE(has(page, "<td>0.86</td>"));
}

TEST(BenchPage, SaysWhyAPeerRefused) {
  Json rows = {measured("a", "forward", 1, {{"p", times(900)}}), measured("b", "forward", 1, Json::object()),
               measured("c", "forward", 1, Json::object())};
  rows[1]["refused"] = rows[2]["refused"] = {{"p", "no <wrap> borders"}};
  rows[2]["batch"] = 16;
  const std::string page = bench_page(report(rows, {{"p", "1"}}));
  expect_whole(page);
  EXPECT_EQ(count(page, "<rect"), 1u);
  EXPECT_EQ(count(page, "<td title=\"no &lt;wrap&gt; borders\">–</td>"), 4u);
  EXPECT_EQ(count(page, ">–<title>no &lt;wrap&gt; borders</title></text>"), 2u);
  EXPECT_TRUE(has(page, "<li>p: no &lt;wrap&gt; borders <span class=\"quiet\">(2 rows)</span></li>"));
  EXPECT_TRUE(has(page, "</tspan>: 1 of 2 rows, mean 0.90</text>"));
  EXPECT_TRUE(has(page, "<h3>forward, 1 thread, n=16</h3>"));
  EXPECT_TRUE(has(page, "</tspan>: 0 of 1 rows</text>"));
}

TEST(BenchPage, EscapesWhateverItIsGiven) {
  const std::string odd = "<b>\"&'\n\x01</b>";
  Json rows = {measured(odd, odd, 1, {{odd, times(900)}}), measured(odd, odd, 1, Json::object())};
  rows[0]["problem"] = odd, rows[1]["refused"][odd] = odd;
  Json r = report(rows, {{odd, odd}});
  r["set"] = r["cpu"] = r["level"] = r["halide"] = r[odd] = odd;
  r["means"] = Json::array({{{"of", odd}, {"rows", odd}, {"roof", odd}, {"ratios", {{odd, 0.5}}}}});
  const std::string page = bench_page(r);
  expect_whole(page);
  EXPECT_FALSE(has(page, "<b>\""));
  EXPECT_FALSE(has(page, "\x01"));
  EXPECT_EQ(count(page, "<circle"), 2u);
}

TEST(BenchPage, NeedsNeitherPeersNorRows) {
  for (const Json &r : {Json(), Json::object(), report(Json::array(), Json()), report(Json(), {{"p", "1"}}),
                        Json{{"rows", Json::array({Json()})}}}) {
    const std::string page = bench_page(r);
    expect_whole(page);
    EXPECT_FALSE(has(page, "<circle") || has(page, "<rect"));
    EXPECT_FALSE(has(page, "Against the peers"));
  }
  const std::string page = bench_page(report(Json::array({measured("a", "forward", 1, Json::object())}), Json()));
  expect_whole(page);
  EXPECT_EQ(count(page, "<circle"), 1u);
  EXPECT_FALSE(has(page, "Against the peers"));
}

TEST(BenchPage, DrawsExtremeAndMissingNumbers) {
  Json rows = Json::array();
  for (const Json &value :
       {Json(), Json(0), Json(-1), Json(1e-300), Json(1e300), Json(INFINITY), Json(NAN), Json("text")})
    for (const char *key : {"us_min", "us_median", "gflops", "roof", "operations", "bytes", "threads", "peers"}) {
      rows.push_back(measured("a", "forward", 1, {{"p", times(900)}}));
      rows.back()[key] = value;
      rows.push_back(measured("b", "forward", 2, {{"p", {{"us_min", value}}}}));
    }
  Json r = report(rows, {{"p", "1"}});
  expect_whole(bench_page(r));
  for (const Json &value : {Json(), Json(0), Json(1e-300), Json(1e300), Json("text")}) {
    r["roofs"][0]["gflops"] = value;
    r["roofs"][1]["copies"][12]["gb_per_s"] = value;
    expect_whole(bench_page(r));
  }
  r["roofs"][0]["copies"] = Json::array();
  expect_whole(bench_page(r));
}

TEST(BenchPage, GroupsLongSetsByPassAndThreads) {
  Json rows = Json::array();
  for (int i = 0; i < 60; i++)
    for (const char *pass : {"forward", "input_gradient", "weight_gradient"})
      for (const int threads : {1, 2})
        rows.push_back(measured("kernel_" + std::to_string(i), pass, threads,
                                {{"p", times(500 + 50 * i)}, {"q", times(2000)}, {"r", times(1000)}}));
  const std::string page = bench_page(report(rows, {{"p", "1"}, {"q", "2"}, {"r", "3"}}));
  expect_whole(page);
  EXPECT_EQ(count(page, "<h3>"), 6u);
  EXPECT_EQ(count(page, "<rect"), 3u * 360);
  EXPECT_EQ(count(page, "<circle"), 360u);
}

}  // namespace
}  // namespace convsmith
