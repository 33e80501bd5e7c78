#include "page.h"
#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

namespace convsmith {
namespace {

using Json = nlohmann::json;

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

// Bytes and GB/s of the copies of 256 KiB and of the largest size, or of what comes nearest.
std::vector<std::pair<double, double>> two_copies(const Json &roof) {
  std::vector<std::pair<double, double>> copies;
  for (auto &copy : elements(roof, "copies")) {
    const double bytes = number(copy, "bytes"), rate = number(copy, "gb_per_s");
    if (!shown(bytes) || !shown(rate)) continue;
    if (copies.size() == 2) copies.pop_back();
    if (copies.size() == 1 && bytes <= 256 << 10) copies.pop_back();
    copies.emplace_back(bytes, rate);
  }
  return copies;
}

}  // namespace

const Json &member(const Json &j, const std::string &key) {
  static const Json none;
  return j.is_object() && j.contains(key) ? j[key] : none;
}

double number(const Json &j, const std::string &key) {
  const Json &value = member(j, key);
  return value.is_number() ? value.get<double>() : NAN;
}

std::string text(const Json &j, const std::string &key) {
  const Json &value = member(j, key);
  return value.is_string() ? value.get<std::string>() : value.is_number() ? value.dump() : "";
}

const Json &elements(const Json &j, const std::string &key) {
  static const Json none = Json::array();
  const Json &value = member(j, key);
  return value.is_array() ? value : none;
}

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

bool shown(double value) { return value > 1e-30 && value < 1e30; }

std::string digits(double value) {
  if (!shown(value)) return "–";
  if (value < 1e-3 || value >= 1e9) return fmt::format("{:.2e}", value);
  return fmt::format("{:.{}f}", value, std::clamp(2 - int(std::floor(std::log10(value))), 0, 4));
}

std::string ratio_text(double ratio) { return ratio < 10 ? fmt::format("{:.2f}", ratio) : digits(ratio); }

std::string percent(double share) { return shown(share) ? fmt::format("{:.0f} %", 100 * share) : "–"; }

std::string size_text(double bytes) {
  if (!shown(bytes)) return "–";
  return bytes < 1 << 20 ? fmt::format("{:g} KiB", bytes / 1024) : fmt::format("{:g} MiB", bytes / (1 << 20));
}

std::string threads_text(const Json &j) {
  const std::string threads = text(j, "threads");
  return threads + (threads == "1" ? " thread" : " threads");
}

size_t colour_of(const std::string &pass) {
  return size_t(std::find(std::begin(passes), std::end(passes), pass) - std::begin(passes));
}

double LogAxis::operator()(double value) const {
  return from + (to - from) * std::log(value / low) / std::log(high / low);
}

void LogAxis::include(double value) { low = std::min(low, value), high = std::max(high, value); }

std::vector<double> LogAxis::ticks() const {
  std::vector<double> values;
  for (int e = int(std::floor(std::log10(low))); e <= int(std::log10(high)); e++)
    for (const double factor : {1, 2, 5})
      if (const double v = factor * std::pow(10, e); v >= low && v <= high && (factor == 1 || high / low < 5e3))
        values.push_back(v);
  return values;
}

std::vector<double> EvenAxis::ticks(double most) const {
  const double least = (high - low) / most, power = std::pow(10, std::floor(std::log10(least)));
  double step = 10 * power;
  for (const double factor : {5, 2, 1})
    if (factor * power >= least) step = factor * power;
  std::vector<double> values;
  for (double i = std::ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++)
    values.push_back(i * step + 0.0);  // no -0
  return values;
}

Page::Page(const std::string &title, std::string_view more_style) {
  add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{0}</title>\n{1}{2}</head>\n"
      "<body>\n<h1>{0}</h1>\n",
      title, style, more_style);
}

void Page::end(std::string_view how_to_read) { add("{}</body>\n</html>\n", how_to_read); }

void Page::cells(const char *tag, const std::vector<Cell> &list, const std::string &attributes) {
  add("<tr{}>", attributes);
  for (auto &cell : list) add("<{0}{1}>{2}</{0}>", tag, cell.attributes, cell.markup);
  add("</tr>\n");
}

void Page::line(const char *kind, double x0, double y0, double x1, double y1) {
  add("<path class=\"{}\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"/>\n", kind, x0, y0, x1, y1);
}

void Page::words(const char *kind, double x, double y, const std::string &markup) {
  add("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kind, x, y, markup);
}

void Page::key(std::string_view colour, std::string_view name) {
  add("<span class=\"key\"><i style=\"background: var(--{})\"></i>{}</span>\n", colour, name);
}

void Page::fact(const std::string &name, const std::string &value) {
  cells("td", {{escaped(name), " class=\"l quiet\""}, {escaped(value), left}});
}

void Page::facts_of(const Json &report) {
  for (auto &[name, value] : report.items())
    if (value.is_primitive() && name != "set") fact(name, text(report, name));
}

void Page::table_of_roofs(const Json &roofs) {
  add("<h2>Roofs</h2>\n<p class=\"quiet\">What the machine allows, measured: multiply-adds from registers, and GB/s "
      "read and written by copies within so large a working set.</p>\n<div class=\"wide\"><table>\n");
  std::vector<Cell> head = {{"threads"}, {"GFLOP/s"}};
  for (auto &copy : elements(roofs[0], "copies")) head.push_back({size_text(number(copy, "bytes"))});
  cells("th", head);
  for (auto &roof : roofs) {
    std::vector<Cell> list = {{escaped(text(roof, "threads"))}, {digits(number(roof, "gflops"))}};
    for (auto &copy : elements(roof, "copies")) list.push_back({digits(number(copy, "gb_per_s"))});
    cells("td", list);
  }
  add("</table></div>\n");
}

void Page::key_to(const std::vector<RoofDot> &dots) {
  std::set<size_t> colours;
  for (auto &dot : dots) colours.insert(dot.colour);
  add("<p>");
  for (const size_t i : colours) key(fmt::format("p{}", i), i < std::size(passes) ? passes[i] : "other");
  add("</p>\n");
}

void Page::roofline(const Json &roof, const std::string &caption, const std::vector<RoofDot> &all) {
  const double peak = number(roof, "gflops");
  const auto copies = two_copies(roof);
  if (!shown(peak) || copies.empty()) return;
  LogAxis x{peak / copies[0].second, peak / copies[0].second, 64, 606}, y{peak / 15, peak, 366, 14};
  for (auto &[bytes, rate] : copies) x.include(peak / rate / 6), x.include(peak / rate * 4);
  std::vector<const RoofDot *> dots;
  const auto intensity = [](const RoofDot &dot) { return dot.operations / dot.bytes; };
  for (auto &dot : all)
    if (shown(intensity(dot)) && shown(dot.gflops))
      dots.push_back(&dot), x.include(intensity(dot)), y.include(dot.gflops);
  x.low /= 1.3, x.high *= 1.3, y.low /= 1.2, y.high *= 1.5;

  add("<figure><figcaption>{}</figcaption>\n<svg width=\"620\" height=\"420\" viewBox=\"0 0 620 420\">\n", caption);
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
    words("", x(ridge), std::max(12., y(peak) - above), size_text(bytes) + ": " + digits(rate) + " GB/s");
  }
  words("end", x.to, std::max(12., y(peak) - 26), digits(peak) + " GFLOP/s");
  for (auto *dot : dots)
    add("<a href=\"#{}\"><circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"var(--p{})\">"
        "<title>{}: {} GFLOP/s, {} of the roof, {} operations a byte&#10;{}</title></circle></a>\n",
        dot->id, x(intensity(*dot)), y(dot->gflops), dot->colour, dot->name, digits(dot->gflops), percent(dot->share),
        digits(intensity(*dot)), dot->problem);
  add("</svg></figure>\n");
}

}  // namespace convsmith
