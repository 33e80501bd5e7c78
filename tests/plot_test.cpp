#include "tools/support/plot.h"
#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace convsmith {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

std::size_t count(const std::string &text, const std::string &word) {
  std::size_t found = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) found++;
  return found;
}

bool has(const std::string &text, const std::string &word) { return count(text, word) > 0; }

// The numbers that follow a word, wherever it occurs.
std::vector<std::string> number_texts_after(const std::string &text, const std::string &word) {
  std::vector<std::string> numbers;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const std::size_t start = at + word.size();
    numbers.push_back(text.substr(start, text.find_first_of(" \"VHl>", start) - start));
  }
  return numbers;
}

// Elements are closed in the order in which they were opened, and every position lies in the picture.
void expect_well_formed(const std::string &svg) {
  std::vector<std::string> open;
  for (std::size_t at = svg.find('<'); at != std::string::npos; at = svg.find('<', at + 1)) {
    const std::size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string name = svg.substr(at + 1, svg.find_first_of(" >", at) - at - 1);
    if (svg[end - 1] == '/') continue;
    if (name[0] != '/') {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty());
    ASSERT_EQ("/" + open.back(), name);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
  for (const char *word : {" x=\"", " y=\"", " cx=\"", " cy=\"", "d=\"M"})
    for (const std::string &number : number_texts_after(svg, word)) {
      char *end = nullptr;
      const double value = std::strtod(number.c_str(), &end);
      EXPECT_TRUE(!number.empty() && *end == 0 && value >= 0 && value <= 700) << word << number;
    }
  EXPECT_FALSE(has(svg, "nan ") || has(svg, "inf ") || has(svg, "nan\"") || has(svg, "inf\""));
}

TEST(LossCurve, HasTitleAxesAndTheLastLoss) {
  const std::string svg = loss_curve_svg({11.268, 2.573, 0.712, 0.234}, "edge <kernel> & more");
  expect_well_formed(svg);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"700\" height=\"400\""));
  EXPECT_TRUE(has(svg, ">edge &lt;kernel&gt; &amp; more</text>"));
  EXPECT_TRUE(has(svg, ">step</text>"));
  EXPECT_TRUE(has(svg, ">loss</text>"));
  EXPECT_TRUE(has(svg, ">step 4: 0.234</text>"));
  EXPECT_EQ(count(svg, "<circle"), 4u);
}

TEST(LossCurve, IsLogarithmicPastAFactorOfAHundred) {
  const std::string linear = loss_curve_svg({50, 1}, "");
  EXPECT_TRUE(has(linear, ">10</text>") && has(linear, ">20</text>") && has(linear, ">0</text>"));
  const std::string logarithmic = loss_curve_svg({500, 1}, "");
  EXPECT_TRUE(has(logarithmic, ">10</text>") && has(logarithmic, ">100</text>"));
  EXPECT_FALSE(has(logarithmic, ">200</text>") || has(logarithmic, ">0</text>"));
  EXPECT_TRUE(has(loss_curve_svg({1, 1e-12}, ""), "10<tspan dy=\"-5\" font-size=\"9\">−6</tspan>"));
}

TEST(LossCurve, DrawsEmptySingleAndConstantLosses) {
  EXPECT_TRUE(has(loss_curve_svg({}, "t"), ">no steps</text>"));
  for (const std::vector<double> &losses :
       {std::vector<double>{}, {3}, {0}, {-2}, {5, 5, 5}, {0, 0}, {1, 1 + 1e-15}, {-3, -1}})
    expect_well_formed(loss_curve_svg(losses, "t"));
  EXPECT_EQ(count(loss_curve_svg({3}, ""), "<circle"), 1u);
}

TEST(LossCurve, MarksWhatIsNotFinite) {
  const std::string svg = loss_curve_svg({4, infinity, 3, 2, nan, -infinity}, "");
  expect_well_formed(svg);
  EXPECT_EQ(count(svg, "#cf222e\" stroke-width"), 3u);
  EXPECT_TRUE(has(svg, ">3 of 6 losses not finite</text>"));
  EXPECT_TRUE(has(svg, ">step 6: −infinity</text>"));
  EXPECT_EQ(count(svg, "<circle"), 3u);
  expect_well_formed(loss_curve_svg({nan, infinity}, ""));
}

TEST(LossCurve, DrawsExtremeValues) {
  for (const std::vector<double> &losses : {std::vector<double>{1e-300, 1e300},
                                            {5e-324, 1},
                                            {5e-324},
                                            {5e-324, 1e-323},
                                            {-5e-324},
                                            {-1e300, 1e300},
                                            {1e308, 1},
                                            {0, 1e-5, 1},
                                            {123456789, 123456790},
                                            {1e12, 3e12}})
    expect_well_formed(loss_curve_svg(losses, "t"));
}

TEST(LossCurve, ThinsLongRunsAndKeepsSpikes) {
  std::vector<double> losses(200000, 1.0);
  for (std::size_t i = 0; i < losses.size(); i++) losses[i] += 0.1 * std::sin(static_cast<double>(i));
  losses[123456] = 7;  // both in one column of pixels
  losses[123460] = -5;
  const std::string svg = loss_curve_svg(losses, "");
  expect_well_formed(svg);
  EXPECT_LT(svg.size(), 40000u);
  const std::size_t line = svg.find("stroke-linejoin");
  ASSERT_NE(line, std::string::npos);
  std::istringstream points(svg.substr(svg.find("d=\"M", line) + 4));
  double highest = 400, lowest = 0;
  for (double x, y; points >> x >> y;) {
    highest = std::min(highest, y);
    lowest = std::max(lowest, y);
  }
  EXPECT_LT(highest, 90);
  EXPECT_GT(lowest, 300);
}

TEST(LossCurve, KeepsTheTitleValidXml) {
  EXPECT_TRUE(has(loss_curve_svg({}, "a\x01 b\xff\xc3 \xed\xa0\x80 ü€"), "<title>a? b?? ??? ü€</title>"));
  EXPECT_TRUE(has(loss_curve_svg({}, std::string(500, 'a')), "<title>" + std::string(56, 'a') + "…</title>"));
}

}  // namespace
}  // namespace convsmith
