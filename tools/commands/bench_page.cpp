#include "bench_page.h"
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

namespace convsmith {
namespace {

using Json = nlohmann::json;

constexpr double marked_below = 0.85;
constexpr std::string_view passes[] = {"forward",       "input_gradient",      "weight_gradient",
                                       "bias_gradient", "activation_gradient", "train_step"};
constexpr const char *style = R"(<style>
:root { color-scheme: light dark; --page: #fff; --text: #1f2328; --quiet: #59636e; --faint: #e4e9ee; --tint: #fdeceb;
  --fast: #2f6fdb; --near: #8b949e; --slow: #cf222e;
  --p0: #2f6fdb; --p1: #d9640d; --p2: #16825d; --p3: #8250df; --p4: #bf3989; --p5: #7d5d00; --p6: #59636e }
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1419; --text: #e6edf3; --quiet: #9aa5b1; --faint: #262e38; --tint: #3a1a1d;
    --fast: #5a9cf8; --near: #7d8590; --slow: #ff6b64;
    --p0: #5a9cf8; --p1: #f0883e; --p2: #3fc58f; --p3: #b48cf7; --p4: #f06bb2; --p5: #d9b03c; --p6: #9aa5b1 } }
body { margin: 0 auto; max-width: 1240px; padding: 20px 24px 60px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif }
h1 { font-size: 25px; margin: 8px 0; overflow-wrap: anywhere } h2 { font-size: 19px; margin: 38px 0 6px }
h3 { font-size: 15px; margin: 18px 0 4px } p, li { max-width: 860px } .quiet { color: var(--quiet) }
a { color: inherit; text-decoration: none } a:hover, a:hover text { text-decoration: underline }
.wide { overflow: auto } .tall { max-height: 88vh } .tall thead { position: sticky; top: 0 }
@media print { .tall { max-height: none } }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
td, th { padding: 3px 7px; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap }
th { background: var(--page); vertical-align: bottom; white-space: pre-line } .l { text-align: left }
small { display: block; color: var(--quiet); font: 12px/1.4 ui-monospace, 'DejaVu Sans Mono', monospace;
  white-space: normal; min-width: 285px }
.marked td { background: var(--tint) } tr:target td { background: var(--faint) } [title] { cursor: help }
.slow { color: var(--slow); fill: var(--slow); font-weight: 600 } .key { margin-right: 18px; white-space: nowrap }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 6px; margin-right: 6px }
.roofs { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)) }
figure { margin: 0 } figcaption { font-weight: 600 } .roofs svg { max-width: 100%; height: auto }
svg { font-size: 13px; fill: var(--text) } svg .quiet { fill: var(--quiet) }
.end { text-anchor: end } .mid { text-anchor: middle } .grid { stroke: var(--faint) } .axis { stroke: var(--quiet) }
.roof { stroke: var(--text); stroke-width: 2 } .break { stroke: var(--page); stroke-width: 3 }
circle { stroke: var(--page); fill-opacity: 0.85 } a:hover circle { stroke: var(--text) }
</style>
)";
constexpr const char *how_to_read = R"(<h2>How to read this</h2>
<ul>
<li>Everything was measured in one run. A turn is one contestant called for a short while; the contestants of a row take
their turns in random order, so that noise hits all alike.</li>
<li><b>us</b> is the least time of one call over the turns, with its data at hand, <b>median</b> the median over the
turns. A peer's median shows over its time.</li>
<li><b>GFLOP/s</b> is nominal: the products that the formula names, those with a border's zeros among them.</li>
<li><b>roof</b> is the share of the limit reached: multiply-adds from registers, or every tensor copied once at the rate
of a working set of that size, whichever takes longer.</li>
<li><b>ratio</b> is the peer's time over ours: above 1 we are faster. Rows with one below 0.85 are marked ▾. A mean is
over the rows that the peer took.</li>
<li>Weights are packed outside of the timing, on every side. A weight gradient's time holds its conversion to the order
of files ([OC, IC/groups, *kernel]), on every side.</li>
<li>– stands where a peer refused, or computed something else; the reason shows over it and is listed under the rows.</li>
</ul>
)";

const Json &member(const Json &j, const std::string &key) {
  static const Json none;
  return j.is_object() && j.contains(key) ? j[key] : none;
}

// NaN where there is none.
double number(const Json &j, const std::string &key) {
  const Json &value = member(j, key);
  return value.is_number() ? value.get<double>() : NAN;
}

std::string text(const Json &j, const std::string &key) {
  const Json &value = member(j, key);
  return value.is_string() ? value.get<std::string>() : value.is_number() ? value.dump() : "";
}

// Between tags and in attributes.
std::string escaped(const std::string &plain) {
  std::string result;
  for (const char c : plain)
    if (c == '&') result += "&amp;";
    else if (c == '<') result += "&lt;";
    else if (c == '>') result += "&gt;";
    else if (c == '"') result += "&quot;";
    else if (static_cast<unsigned char>(c) < 0x20) result += c == '\n' ? "&#10;" : " ";
    else result += c;
  return result;
}

// Within what any machine does, so that a picture of it has finite positions.
bool shown(double value) { return value > 1e-30 && value < 1e30; }

// Three digits, or all those before the point.
std::string digits(double value) {
  if (!shown(value)) return "–";
  if (value < 1e-3 || value >= 1e9) return fmt::format("{:.2e}", value);
  return fmt::format("{:.{}f}", value, std::clamp(2 - int(std::floor(std::log10(value))), 0, 4));
}

std::string ratio_text(double ratio) { return ratio < 10 ? fmt::format("{:.2f}", ratio) : digits(ratio); }
std::string percent(double share) { return shown(share) ? fmt::format("{:.0f} %", 100 * share) : "–"; }
std::string threads_text(const Json &j) {
  const std::string threads = text(j, "threads");
  return threads + (threads == "1" ? " thread" : " threads");
}
std::string size_text(double bytes) {
  return bytes < 1 << 20 ? fmt::format("{:g} KiB", bytes / 1024) : fmt::format("{:g} MiB", bytes / (1 << 20));
}

struct Row {
  const Json *json;
  size_t id;
  std::string group;

  std::string say(const char *key) const { return escaped(text(*json, key)); }
  double get(const char *key) const { return number(*json, key); }
  double ratio(const std::string &peer) const {
    const double r = number(member(member(*json, "peers"), peer), "us_min") / get("us_min");
    return shown(r) ? r : NAN;
  }
  std::string refusal(const std::string &peer) const { return escaped(text(member(*json, "refused"), peer)); }
  size_t colour() const {
    return size_t(std::find(std::begin(passes), std::end(passes), text(*json, "pass")) - std::begin(passes));
  }
};

struct Cell {
  std::string markup, attributes = {};
};

// A logarithmic axis, and the positions of its ends in the picture.
struct Axis {
  double low, high, from, to;
  double operator()(double value) const { return from + (to - from) * std::log(value / low) / std::log(high / low); }
  void include(double value) { low = std::min(low, value), high = std::max(high, value); }

  // 1, 2 and 5 times the powers of ten; over many decades those powers alone.
  std::vector<double> ticks() const {
    std::vector<double> values;
    for (int e = int(std::floor(std::log10(low))); e <= int(std::log10(high)); e++)
      for (const double factor : {1, 2, 5})
        if (const double v = factor * std::pow(10, e); v >= low && v <= high && (factor == 1 || high / low < 5e3))
          values.push_back(v);
    return values;
  }
};

class Page {
 public:
  explicit Page(const Json &report) : report_(report) {
    for (auto &[name, version] : member(report, "peers").items()) peers_.push_back(name);
    for (auto &j : member(report, "rows")) {
      std::string group = text(j, "pass") + ", " + threads_text(j);
      if (j.contains("batch")) group += ", n=" + text(j, "batch");
      rows_.push_back({&j, rows_.size(), escaped(group)});
    }
    const std::string title = "convsmith bench: " + escaped(text(report, "set"));
    add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{0}</title>\n{1}</head>\n"
        "<body>\n<h1>{0}</h1>\n",
        title, style);
    facts(), roofs(), ratios(), means(), table_of_rows();
    add("{}</body>\n</html>\n", how_to_read);
  }

  const std::string &html() const { return html_; }

 private:
  template<class... Values>
  void add(fmt::format_string<Values...> format, Values &&...values) {
    fmt::format_to(std::back_inserter(html_), format, std::forward<Values>(values)...);
  }

  void cells(const char *tag, const std::vector<Cell> &list, const std::string &attributes = "") {
    add("<tr{}>", attributes);
    for (auto &cell : list) add("<{0}{1}>{2}</{0}>", tag, cell.attributes, cell.markup);
    add("</tr>\n");
  }
  void line(const char *kind, double x0, double y0, double x1, double y1) {
    add("<path class=\"{}\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"/>\n", kind, x0, y0, x1, y1);
  }
  void words(const char *kind, double x, double y, const std::string &markup) {
    add("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kind, x, y, markup);
  }
  void key(const std::string &colour, std::string_view name) {
    add("<span class=\"key\"><i style=\"background: var(--{})\"></i>{}</span>\n", colour, name);
  }

  void facts() {
    add("<table>\n");
    for (auto &[name, value] : report_.items())
      if (value.is_primitive() && name != "set")
        cells("td", {{escaped(name), " class=\"l quiet\""}, {escaped(text(report_, name)), left}});
    for (auto &peer : peers_)
      cells("td",
            {{"peer " + escaped(peer), " class=\"l quiet\""}, {escaped(text(member(report_, "peers"), peer)), left}});
    add("</table>\n");
  }

  void roofs() {
    const Json &roofs = member(report_, "roofs");
    if (roofs.empty()) return;
    add("<h2>Roofs</h2>\n<p class=\"quiet\">What the machine allows, measured: multiply-adds from registers, and GB/s "
        "read and written by copies within so large a working set.</p>\n<div class=\"wide\"><table>\n");
    std::vector<Cell> head = {{"threads"}, {"GFLOP/s"}};
    for (auto &copy : member(roofs[0], "copies")) head.push_back({size_text(number(copy, "bytes"))});
    cells("th", head);
    for (auto &roof : roofs) {
      std::vector<Cell> list = {{escaped(text(roof, "threads"))}, {digits(number(roof, "gflops"))}};
      for (auto &copy : member(roof, "copies")) list.push_back({digits(number(copy, "gb_per_s"))});
      cells("td", list);
    }
    add("</table></div>\n<p>");
    for (size_t i = 0; i <= std::size(passes); i++)
      if (std::any_of(rows_.begin(), rows_.end(), [&](auto &row) { return row.colour() == i; }))
        key(fmt::format("p{}", i), i < std::size(passes) ? passes[i] : "other");
    add("</p>\n<div class=\"roofs\">\n");
    for (auto &roof : roofs) roofline(roof);
    add("</div>\n");
  }

  void roofline(const Json &roof) {
    const double peak = number(roof, "gflops");
    std::vector<std::pair<double, double>> copies;  // those of 256 KiB and of the largest size
    for (auto &copy : member(roof, "copies")) {
      const double bytes = number(copy, "bytes"), rate = number(copy, "gb_per_s");
      if (!shown(bytes) || !shown(rate)) continue;
      if (copies.size() == 2) copies.pop_back();
      if (copies.size() == 1 && bytes <= 256 << 10) copies.pop_back();
      copies.emplace_back(bytes, rate);
    }
    if (!shown(peak) || copies.empty()) return;
    Axis x{peak / copies[0].second, peak / copies[0].second, 64, 606}, y{peak / 15, peak, 366, 14};
    for (auto &[bytes, rate] : copies) x.include(peak / rate / 6), x.include(peak / rate * 4);
    std::vector<const Row *> dots;
    const auto intensity = [](const Row &row) { return row.get("operations") / row.get("bytes"); };
    for (auto &row : rows_)
      if (row.get("threads") == number(roof, "threads") && shown(intensity(row)) && shown(row.get("gflops")))
        dots.push_back(&row), x.include(intensity(row)), y.include(row.get("gflops"));
    x.low /= 1.3, x.high *= 1.3, y.low /= 1.2, y.high *= 1.5;

    add("<figure><figcaption>{}</figcaption>\n<svg width=\"620\" height=\"420\" viewBox=\"0 0 620 420\">\n",
        escaped(threads_text(roof)));
    for (const double v : x.ticks())
      line("grid", x(v), y.from, x(v), y.to), words("quiet mid", x(v), y.from + 18, fmt::format("{:g}", v));
    for (const double v : y.ticks())
      line("grid", x.from, y(v), x.to, y(v)), words("quiet end", x.from - 7, y(v) + 4, fmt::format("{:g}", v));
    line("axis", x.from, y.from, x.to, y.from), line("axis", x.from, y.from, x.from, y.to);
    words("mid", (x.from + x.to) / 2, y.from + 44, "operations a byte");
    add("<text class=\"mid\" transform=\"translate(16 {}) rotate(-90)\">GFLOP/s</text>\n", (y.from + y.to) / 2);
    for (auto &[bytes, rate] : copies) {
      const double start = std::max(x.low, y.low / rate), ridge = peak / rate;
      line("roof", x(start), y(start * rate), x(ridge), y(peak)), line("roof", x(ridge), y(peak), x.to, y(peak));
      const double above = bytes == copies[0].first ? 26 : 9;
      words("", x(ridge), y(peak) - above, size_text(bytes) + ": " + digits(rate) + " GB/s");
    }
    words("end", x.to, y(peak) - 26, digits(peak) + " GFLOP/s");
    for (auto *row : dots)
      add("<a href=\"#r{}\"><circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"var(--p{})\">"
          "<title>{}, {}: {} GFLOP/s, {} of the roof, {} operations a byte&#10;{}</title></circle></a>\n",
          row->id, x(intensity(*row)), y(row->get("gflops")), row->colour(), row->say("kernel"), row->group,
          digits(row->get("gflops")), percent(row->get("roof")), digits(intensity(*row)), row->say("problem"));
    add("</svg></figure>\n");
  }

  void ratios() {
    if (peers_.empty() || rows_.empty()) return;
    double low = 0.5, high = 2;
    std::vector<std::string> groups;
    for (auto &row : rows_) {
      if (!std::count(groups.begin(), groups.end(), row.group)) groups.push_back(row.group);
      for (auto &peer : peers_) {
        while (low > row.ratio(peer) && low > 0.125) low /= 2;
        while (high < row.ratio(peer) && high < 8) high *= 2;
      }
    }
    add("<h2>Against the peers</h2>\n<p class=\"quiet\">The peer's time over ours, on a logarithmic scale; a bar that "
        "passes its end is broken.</p>\n<p>");
    key("fast", "above 1: we are faster"), key("near", "0.85 to 1"), key("slow", "below 0.85");
    add("</p>\n");
    for (auto &group : groups) bars(group, low, high);
  }

  // The peers side by side, a bar a row.
  void bars(const std::string &group, double low, double high) {
    std::vector<const Row *> rows;
    size_t longest = 8;
    for (auto &row : rows_)
      if (row.group == group) rows.push_back(&row), longest = std::max(longest, row.say("kernel").size());
    const double peers = double(peers_.size()), labels = 8 * double(longest) + 14;
    const double share = std::clamp((1200 - labels) / peers, 200., 420.);
    const double step = 19, top = 46, bottom = top + step * double(rows.size()) + 4;
    add("<h3>{0}</h3>\n<div class=\"wide\"><svg width=\"{1:.0f}\" height=\"{2}\" viewBox=\"0 0 {1:.0f} {2}\">\n", group,
        labels + share * peers, bottom + 4);
    for (size_t i = 0; i < rows.size(); i++) {
      add("<a href=\"#r{}\">", rows[i]->id);
      words("end", labels - 8, top + step * double(i) + 15,
            fmt::format("{0}<title>{0}: {1}</title>", rows[i]->say("kernel"), rows[i]->say("problem")));
      add("</a>");
    }
    for (size_t p = 0; p < peers_.size(); p++) {
      const std::string &peer = peers_[p];
      const double from = labels + share * double(p);
      const Axis x{low, high, from + 46, from + share - 50};
      for (int power = std::ilogb(low); power <= std::ilogb(high); power++) {
        const double at = x(std::ldexp(1, power));
        line("grid", at, top, at, bottom);
        words("quiet mid", at, top - 6, fmt::format("{}{}", power < 0 ? "1/" : "", 1 << std::abs(power)));
      }
      double logarithms = 0, answers = 0;
      for (size_t i = 0; i < rows.size(); i++) {
        const double ratio = rows[i]->ratio(peer), end = x(std::clamp(ratio, low, high));
        const double us = rows[i]->get("us_min"), y = top + step * double(i) + 3;
        if (std::isnan(ratio)) {
          words("quiet", x(1) + 6, y + 12, "–<title>" + rows[i]->refusal(peer) + "</title>");
          continue;
        }
        logarithms += std::log(ratio), answers++;
        const std::string shade = ratio >= 1 ? "fast" : ratio >= marked_below ? "near" : "slow";
        add("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"14\" fill=\"var(--{})\">"
            "<title>{}: {} us; {}: {} us</title></rect>\n",
            std::min(end, x(1)), y, std::abs(end - x(1)), shade, rows[i]->say("kernel"), digits(us), escaped(peer),
            digits(ratio * us));
        const double inwards = ratio > 1 ? -10 : 10;
        if (ratio > high || ratio < low) line("break", end + inwards - 2, y + 16, end + inwards + 2, y - 2);
        words((ratio < 1 ? "end " + shade : shade).c_str(), end + (ratio < 1 ? -5 : 5), y + 12, ratio_text(ratio));
      }
      line("axis", x(1), top - 2, x(1), bottom);
      std::string heading = "<tspan font-weight=\"600\">" + escaped(peer) + "</tspan>";
      heading += fmt::format(": {} of {} rows", answers, rows.size());
      if (answers > 0) heading += ", mean " + ratio_text(std::exp(logarithms / answers));
      words("", x.from, 15, heading);
    }
    add("</svg></div>\n");
  }

  static Cell ratio_cell(double ratio, const std::string &attributes) {
    if (ratio < marked_below) return {"▾ " + ratio_text(ratio), " class=\"slow\""};
    return shown(ratio) ? Cell{ratio_text(ratio)} : Cell{"–", attributes};
  }

  void means() {
    if (member(report_, "means").empty()) return;
    add("<h2>Geometric means</h2>\n<div class=\"wide\"><table>\n");
    std::vector<Cell> head = {{"of", left}, {"rows"}, {"roof"}};
    for (auto &peer : peers_) head.push_back({escaped(peer) + "\nratio"});
    cells("th", head);
    for (auto &mean : report_["means"]) {
      const Cell of = {escaped(text(mean, "of")), left}, rows = {escaped(text(mean, "rows"))};
      std::vector<Cell> list = {of, rows, {percent(number(mean, "roof"))}};
      for (auto &peer : peers_) list.push_back(ratio_cell(number(member(mean, "ratios"), peer), ""));
      cells("td", list);
    }
    add("</table></div>\n");
  }

  void table_of_rows() {
    const bool batches = std::any_of(rows_.begin(), rows_.end(), [](auto &row) { return row.json->contains("batch"); });
    add("<h2>{}</h2>\n<div class=\"wide tall\"><table>\n<thead>", rows_.empty() ? "No rows" : "Rows");
    std::vector<Cell> head = {{"kernel", left}, {"pass", left}, {"threads"}};
    if (batches) head.push_back({"n"});
    for (auto *name : {"us", "median", "GFLOP/s", "roof"}) head.push_back({name});
    for (auto &peer : peers_) head.push_back({escaped(peer) + "\nus"}), head.push_back({"ratio"});
    cells("th", head);
    add("</thead>\n");
    std::map<std::string, int> refusals;
    for (auto &row : rows_) {
      const std::string name = row.say("kernel") + "<small>" + row.say("problem") + "</small>";
      std::vector<Cell> list = {{name, left}, {row.say("pass"), left}, {row.say("threads")}};
      if (batches) list.push_back({row.say("batch")});
      for (auto *value : {"us_min", "us_median", "gflops"}) list.push_back({digits(row.get(value))});
      list.push_back({percent(row.get("roof"))});
      bool marked = false;
      for (auto &peer : peers_) {
        const Json &times = member(member(*row.json, "peers"), peer);
        const std::string refusal = row.refusal(peer);
        if (!refusal.empty()) refusals[escaped(peer) + ": " + refusal]++;
        const std::string shows = refusal.empty() ? "median " + digits(number(times, "us_median")) : refusal;
        const std::string attributes = " title=\"" + shows + '"';
        list.push_back({digits(number(times, "us_min")), attributes});
        list.push_back(ratio_cell(row.ratio(peer), attributes));
        marked = marked || row.ratio(peer) < marked_below;
      }
      cells("td", list, fmt::format(" id=\"r{}\"{}", row.id, marked ? " class=\"marked\"" : ""));
    }
    add("</table></div>\n");
    if (refusals.empty()) return;
    add("<h3>Refused</h3>\n<ul>\n");
    for (auto &[reason, count] : refusals)
      add("<li>{} <span class=\"quiet\">({} row{})</span></li>\n", reason, count, count == 1 ? "" : "s");
    add("</ul>\n");
  }

  static constexpr const char *left = " class=\"l\"";
  const Json &report_;
  std::string html_;
  std::vector<std::string> peers_;
  std::vector<Row> rows_;
};

}  // namespace

std::string bench_page(const Json &report) { return Page(report).html(); }

}  // namespace convsmith
