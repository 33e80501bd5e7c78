// What the pages of results are made of.
#pragma once
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace convsmith {

/// A member of whatever it is: null, NaN, "" or an empty list where there is none of that kind.
const nlohmann::json &member(const nlohmann::json &, const std::string &key);
double number(const nlohmann::json &, const std::string &key);
std::string text(const nlohmann::json &, const std::string &key);
const nlohmann::json &elements(const nlohmann::json &, const std::string &key);

/// For between tags and in attributes.
std::string escaped(const std::string &);

/// Within what any machine does, so that a picture of it has finite positions.
bool shown(double);
/// Three digits, or all those before the point; – for what is not shown.
std::string digits(double);
std::string ratio_text(double), percent(double share), size_text(double bytes);
std::string threads_text(const nlohmann::json &);

/// A logarithmic axis, and the positions of its ends in the picture.
struct LogAxis {
  double low, high, from, to;
  double operator()(double value) const;
  void include(double value);
  /// 1, 2 and 5 times the powers of ten; over many decades those powers alone.
  std::vector<double> ticks() const;
};

/// One with even steps.
struct EvenAxis {
  double low, high, from, to;
  double operator()(double value) const { return from + (to - from) * (value - low) / (high - low); }
  /// Multiples of 1, 2 or 5 times a power of ten, at most `most` steps and the ends.
  std::vector<double> ticks(double most) const;
};

/// A pass's of those in the style sheet.
size_t colour_of(const std::string &pass);

struct Cell {
  std::string markup, attributes = {};
};

/// A kernel in the picture of a roof. Its id is that of the part of the page that it leads to; all is escaped.
struct RoofDot {
  std::string id;
  size_t colour;
  double operations, bytes, gflops, share;
  std::string name, problem;
};

/// One HTML text that needs no other file and no script, for light and dark screens.
class Page {
 public:
  const std::string &html() const { return html_; }

 protected:
  /// Of markup; the style adds to the sheet that all pages have.
  explicit Page(const std::string &title, std::string_view style = "");

  template<class... Values>
  void add(fmt::format_string<Values...> format, Values &&...values) {
    fmt::format_to(std::back_inserter(html_), format, std::forward<Values>(values)...);
  }
  void cells(const char *tag, const std::vector<Cell> &, const std::string &attributes = "");
  void line(const char *kind, double x0, double y0, double x1, double y1);
  void words(const char *kind, double x, double y, const std::string &markup);
  void key(std::string_view colour, std::string_view name);

  void fact(const std::string &name, const std::string &value);
  /// The report's own members that are no lists, but for the title's.
  void facts_of(const nlohmann::json &report);

  /// What the machine allows, as a table.
  void table_of_roofs(const nlohmann::json &roofs);
  /// The passes' colours among the dots.
  void key_to(const std::vector<RoofDot> &);
  /// GFLOP/s over operations a byte, below the limits of 256 KiB and of the largest size.
  void roofline(const nlohmann::json &roof, const std::string &caption, const std::vector<RoofDot> &);

  void end(std::string_view how_to_read);

  static constexpr const char *left = " class=\"l\"";

 private:
  std::string html_;
};

}  // namespace convsmith
