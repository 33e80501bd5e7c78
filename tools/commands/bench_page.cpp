#include "bench_page.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>
#include "page.h"

namespace convsmith {
namespace {

using Json = nlohmann::json;

constexpr double marked_below = 0.85;
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
  RoofDot dot() const {
    return {fmt::format("r{}", id),
            colour_of(text(*json, "pass")),
            get("operations"),
            get("bytes"),
            get("gflops"),
            get("roof"),
            say("kernel") + ", " + group,
            say("problem")};
  }
};

class BenchPage : public Page {
 public:
  explicit BenchPage(const Json &report) : Page("convsmith bench: " + escaped(text(report, "set"))), report_(report) {
    for (auto &[name, version] : member(report, "peers").items()) peers_.push_back(name);
    for (auto &j : elements(report, "rows")) {
      std::string group = text(j, "pass") + ", " + threads_text(j);
      if (j.contains("batch")) group += ", n=" + text(j, "batch");
      rows_.push_back({&j, rows_.size(), escaped(group)});
    }
    facts(), roofs(), ratios(), means(), table_of_rows();
    end(how_to_read);
  }

 private:
  void facts() {
    add("<table>\n");
    facts_of(report_);
    for (auto &peer : peers_) fact("peer " + peer, text(member(report_, "peers"), peer));
    add("</table>\n");
  }

  void roofs() {
    const Json &roofs = elements(report_, "roofs");
    if (roofs.empty()) return;
    table_of_roofs(roofs);
    std::vector<RoofDot> all;
    for (auto &row : rows_) all.push_back(row.dot());
    key_to(all);
    add("<div class=\"roofs\">\n");
    for (auto &roof : roofs) {
      std::vector<RoofDot> dots;
      for (auto &row : rows_)
        if (row.get("threads") == number(roof, "threads")) dots.push_back(row.dot());
      roofline(roof, escaped(threads_text(roof)), dots);
    }
    add("</div>\n");
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
      const LogAxis x{low, high, from + 46, from + share - 50};
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
    const Json &means = elements(report_, "means");
    if (means.empty()) return;
    add("<h2>Geometric means</h2>\n<div class=\"wide\"><table>\n");
    std::vector<Cell> head = {{"of", left}, {"rows"}, {"roof"}};
    for (auto &peer : peers_) head.push_back({escaped(peer) + "\nratio"});
    cells("th", head);
    for (auto &mean : means) {
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

  const Json &report_;
  std::vector<std::string> peers_;
  std::vector<Row> rows_;
};

}  // namespace

std::string bench_page(const Json &report) { return BenchPage(report).html(); }

}  // namespace convsmith
