#include "tune_page.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>
#include "knob_effects.h"
#include "page.h"

namespace convsmith {
namespace {

using Json = nlohmann::json;

constexpr size_t listed_settings = 10, listed_values = 8, listed_letters = 200;
constexpr double strip_width = 130, strip_height = 16;
constexpr const char *style = R"(<style>
:root { --good: #e5f5ec; --dots: 0.28 } @media (prefers-color-scheme: dark) { :root { --good: #12291f; --dots: 0.45 } }
.won td { background: var(--good) } .up { color: var(--p2); font-weight: 600 } td a { border-bottom: 1px dotted }
details { border-top: 1px solid var(--faint); padding: 5px 0 } details[open] { padding-bottom: 26px }
summary { cursor: pointer; font-variant-numeric: tabular-nums } summary b { margin-right: 10px }
code { font: 12px/1.5 ui-monospace, 'DejaVu Sans Mono', monospace; white-space: normal; overflow-wrap: anywhere }
td.w { white-space: normal } table small { min-width: 200px } .two { margin-top: 14px; display: grid; gap: 8px 36px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)) } .two svg { max-width: 100%; height: auto }
.knobs { display: grid; gap: 20px 18px; align-items: start; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)) }
.knobs table { font-size: 12px; line-height: 16px } .knobs td, .knobs th { padding: 0 0 0 6px; border: 0; font-weight: normal }
.knobs td:first-child { min-width: 26px; padding: 0 } .knobs td:nth-child(n+4) { min-width: 38px } .knobs td:last-child { min-width: 26px }
.knobs svg { display: block } .knobs th { color: var(--quiet) } .knobs th svg { font-size: 11px }
.knobs code { display: block; width: 104px; line-height: 16px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
figcaption .quiet { font-weight: normal } .curve { fill: none; stroke: var(--p0); stroke-width: 2 } .band { fill: var(--faint) }
.dots { stroke: var(--p0); stroke-width: 6; stroke-linecap: round; stroke-opacity: var(--dots) }
.top { fill: var(--p0) } .median { stroke: var(--text); stroke-width: 2 }
</style>
)";
constexpr const char *how_to_read = R"(<h2>How to read this</h2>
<ul>
<li>A <b>setting</b> is a schedule and a value for each of its knobs. The <b>present</b> one is what is used without this
search; the <b>best</b> is the best that was measured, or the present one where nothing was better.</li>
<li>A setting takes turns with the present one, in random order, so that noise hits both alike. <b>ratio</b> is the
present one's time over the setting's in those turns: above 1 the setting is faster. <b>us</b> is the least time of a
call, the geometric mean over the numbers of threads.</li>
<li><b>noise</b> is by how much the ratio differed between halves of the turns. A task is marked ▴ where its best is
faster by clearly more than that.</li>
<li>A <b>trial</b> measures one setting once. Its <b>rung</b> says how closely: many settings are looked at briefly on
rung 0, and the better ones again and longer on the next. Ratios of low rungs are rough.</li>
<li>A <b>fault</b> is a setting that does not compile, dies, takes too long or computes something else. It cannot win.</li>
<li><b>GFLOP/s</b> is nominal: the products that the formula names, those with a border's zeros among them. <b>roof</b> is
the share of the limit reached: multiply-adds from registers, or every tensor copied once at the rate of a working set of
that size, whichever takes longer.</li>
<li>A <b>knob</b>'s picture has a line a value: a dot for each of the n sound settings that have it, the best as a full dot, the
median as a bar, half the best ratio and less at the left end. A knob whose lines end alike matters little. The search
does not try all values equally often, so a value with few dots may merely have had poor company. The present setting is
among the dots, at 1.</li>
<li>A <b>baseline</b> is another scheduler's kernel, measured alike; it never wins. Its ratio is red where it is faster
than the best.</li>
</ul>
)";

// The beginning of a long text, cut between letters.
std::string beginning(const std::string &whole) {
  if (whole.size() <= listed_letters) return whole;
  size_t end = listed_letters;
  while (end > 0 && (static_cast<unsigned char>(whole[end]) & 0xc0) == 0x80) end--;
  return whole.substr(0, end) + "…";
}

std::string counted(double count, const std::string &word) {
  if (!std::isfinite(count)) count = 0;
  return fmt::format("{} {}{}", count, word, count == 1 ? "" : "s");
}

std::string exact_ratio(double ratio) {
  return !shown(ratio) ? "–" : ratio < 10 ? fmt::format("{:.3f}", ratio) : digits(ratio);
}
std::string noise_text(double noise) { return noise >= 0 && noise < 1e3 ? fmt::format("{:.1f} %", 100 * noise) : "–"; }

std::map<std::string, std::string> by_knob(const std::string &setting) {
  const auto values = knob_values(setting);
  return {values.begin(), values.end()};
}

// What b sets otherwise than a.
std::string changes(const std::string &a, const std::string &b, bool arrows) {
  const auto before = by_knob(a), after = by_knob(b);
  std::string result;
  for (auto &[knob, value] : knob_values(b)) {
    const auto at = before.find(knob);
    if (at != before.end() && at->second == value) continue;
    if (!result.empty()) result += arrows ? ", " : " ";
    if (arrows) result += fmt::format("{} {} → {}", knob, at == before.end() ? "–" : at->second, value);
    else result += knob == "schedule" ? value : fmt::format("{}={}", knob, value);
  }
  for (auto &[knob, value] : knob_values(a))
    if (arrows && !after.count(knob)) result += fmt::format("{}{} {} → –", result.empty() ? "" : ", ", knob, value);
  return result;
}

struct Task {
  const Json *json;
  size_t id;
  std::vector<Tried> tried = tried_settings(elements(*json, "seen"));

  std::string say(const char *key) const { return escaped(text(*json, key)); }
  double get(const char *key) const { return number(*json, key); }
  std::string title() const { return say("kernel") + ", " + say("pass"); }
  const Json &present() const { return member(*json, "present"); }
  const Json &best() const { return member(*json, "best"); }
  bool won() const { return member(*json, "won") == true; }
  std::string ratio() const { return (won() ? "▴ " : "") + exact_ratio(get("ratio")); }
  const Json &baseline(const std::string &name) const {
    static const Json none;
    for (auto &b : elements(*json, "baselines"))
      if (text(b, "name") == name) return b;
    return none;
  }
  RoofDot dot() const {
    return {fmt::format("t{}", id),
            colour_of(text(*json, "pass")),
            get("operations"),
            get("bytes"),
            get("gflops"),
            get("roof"),
            title(),
            say("problem")};
  }
};

class TunePage : public Page {
 public:
  explicit TunePage(const Json &report)
      : Page("convsmith tune: " + escaped(text(report, "set")), style), report_(report) {
    for (auto &j : elements(report, "tasks")) {
      tasks_.push_back({&j, tasks_.size()});
      for (auto &b : elements(j, "baselines"))
        if (!std::count(baselines_.begin(), baselines_.end(), text(b, "name"))) baselines_.push_back(text(b, "name"));
    }
    const auto won = std::count_if(tasks_.begin(), tasks_.end(), [](auto &task) { return task.won(); });
    add("<p>Something clearly faster than the present choice was found for {} of {}.</p>\n", won,
        counted(double(tasks_.size()), "task"));
    add("<div class=\"two\">\n<table>\n"), facts_of(report), add("</table>\n"), means(), add("</div>\n");
    roof(), table_of_tasks();
    if (!tasks_.empty()) add("<h2>Each search</h2>\n");
    for (auto &task : tasks_) search(task);
    end(how_to_read);
  }

 private:
  void means() {
    const Json &means = elements(report_, "means");
    if (means.empty()) return;
    add("<figure><figcaption>Geometric means <span class=\"quiet\">of the present choice's time over the "
        "best's</span></figcaption>\n<table>\n");
    cells("th", {{"of", left}, {"tasks"}, {"ratio"}});
    for (auto &mean : means)
      cells("td",
            {{escaped(text(mean, "of")), left}, {escaped(text(mean, "tasks"))}, {exact_ratio(number(mean, "ratio"))}});
    add("</table></figure>\n");
  }

  // Times are means over numbers of threads, so that there is no roof of their own to hold them against.
  void roof() {
    const Json &roofs = elements(report_, "roofs");
    if (roofs.empty()) return;
    table_of_roofs(roofs);
    std::vector<RoofDot> dots;
    for (auto &task : tasks_) dots.push_back(task.dot());
    key_to(dots);
    const std::string of = escaped(threads_text(roofs[0])), with = escaped(threads_text(report_));
    std::string caption = "Each task at its best, below the roof of " + of;
    if (of != with && !text(report_, "threads").empty()) caption += "; a time is the mean over " + with;
    add("<div class=\"roofs\">\n"), roofline(roofs[0], caption, dots), add("</div>\n");
  }

  void table_of_tasks() {
    add("<h2>{}</h2>\n<div class=\"wide tall\"><table>\n<thead>", tasks_.empty() ? "No tasks" : "Tasks");
    std::vector<Cell> head = {{"kernel", left}, {"pass", left}};
    for (auto *name : {"present\nus", "best\nus", "ratio", "", "noise", "trials", "faults", "GFLOP/s", "roof"})
      head.push_back({name});
    for (auto &name : baselines_) head.push_back({escaped(name) + "\nratio"});
    cells("th", head);
    add("</thead>\n");
    LogAxis gain{1, 1.1, 2, 58};
    for (auto &task : tasks_)
      if (shown(task.get("ratio"))) gain.include(std::clamp(task.get("ratio"), 0.5, 4.));
    std::map<std::string, int> faults;
    for (auto &task : tasks_) {
      const std::string name =
          fmt::format("<a href=\"#t{}\">{}</a><small>{}</small>", task.id, task.say("kernel"), task.say("problem"));
      const double ratio = task.get("ratio"), end = gain(std::clamp(shown(ratio) ? ratio : 1, gain.low, gain.high));
      std::vector<Cell> list = {{name, left}, {task.say("pass"), left}, time(task.present()), time(task.best())};
      list.push_back({task.ratio(), task.won() ? " class=\"up\"" : ""});
      list.push_back({fmt::format(
          "<svg width=\"60\" height=\"14\"><title>{}: {}</title><rect x=\"{:.1f}\" y=\"1\" width=\"{:.1f}\" "
          "height=\"12\" fill=\"var(--{})\"/><path class=\"axis\" d=\"M{:.1f} 0v14\"/></svg>",
          task.title(), exact_ratio(ratio), std::min(end, gain(1)), std::abs(end - gain(1)), task.won() ? "p2" : "near",
          gain(1))});
      list.push_back({noise_text(task.get("noise"))});
      for (auto *key : {"trials", "faults"}) list.push_back({task.say(key)});
      list.push_back({digits(task.get("gflops"))}), list.push_back({percent(task.get("roof"))});
      for (auto &baseline : baselines_) {
        const Json &b = task.baseline(baseline);
        const std::string fault = escaped(beginning(text(b, "fault")));
        if (!fault.empty()) faults[escaped(baseline) + ": " + fault]++;
        const std::string title = fault.empty() ? digits(number(b, "us")) + " us" : fault;
        list.push_back({exact_ratio(number(b, "ratio")),
                        fmt::format(" title=\"{}\"{}", title, number(b, "ratio") > ratio ? " class=\"slow\"" : "")});
      }
      cells("td", list, task.won() ? " class=\"won\"" : "");
    }
    add("</table></div>\n");
    if (!faults.empty()) add("<h3>Baselines without a result</h3>\n"), list_of(faults, "task");
  }

  static Cell time(const Json &choice) {
    return {digits(number(choice, "us")), " title=\"" + escaped(text(choice, "setting")) + '"'};
  }

  void list_of(const std::map<std::string, int> &reasons, const char *of) {
    add("<ul>\n");
    for (auto &[reason, count] : reasons)
      add("<li>{} <span class=\"quiet\">({})</span></li>\n", reason, counted(count, of));
    add("</ul>\n");
  }

  void search(const Task &task) {
    // The link leads to something within, so that a browser opens what is around it.
    add("<details{}><summary><b>{}</b> <span{}>{}</span> <span class=\"quiet\">{} → {} us, {}, {}</span></summary>\n<p "
        "id=\"t{}\" class=\"quiet\">{}</p>\n",
        tasks_.size() == 1 ? " open=\"\"" : "", task.title(), task.won() ? " class=\"up\"" : "", task.ratio(),
        digits(number(task.present(), "us")), digits(number(task.best(), "us")), counted(task.get("trials"), "trial"),
        counted(task.get("faults"), "fault"), task.id, task.say("problem"));
    choices(task);
    add("<div class=\"two\">\n"), curve(task), ten_best(task), add("</div>\n");
    knobs(task);
    std::map<std::string, int> faults;
    for (auto &tried : task.tried)
      if (!tried.fault.empty()) faults[escaped(beginning(tried.fault))]++;
    if (!faults.empty()) add("<h3>Faults</h3>\n"), list_of(faults, "setting");
    add("</details>\n");
  }

  void choices(const Task &task) {
    const auto choice = [&](const char *name, const Json &j, const std::string &more) {
      cells("td", {{name, " class=\"l quiet\""},
                   {digits(number(j, "us")) + " us"},
                   {"<code>" + escaped(text(j, "setting")) + "</code>" + more, " class=\"l w\""}});
    };
    const std::string before = text(task.present(), "setting"), after = text(task.best(), "setting");
    const std::string why = escaped(text(task.present(), "why"));
    add("<table>\n");
    choice("present", task.present(), why.empty() ? "" : "<br/><span class=\"quiet\">" + why + "</span>");
    if (before != after) {
      choice("best", task.best(), "");
      cells("td", {{"changes", " class=\"l quiet\""}, {""}, {escaped(changes(before, after, true)), " class=\"l w\""}});
    }
    add("</table>\n");
  }

  void curve(const Task &task) {
    std::vector<std::pair<double, double>> points = {{0, 1}};
    for (auto &step : elements(*task.json, "curve"))
      if (shown(number(step, "trial")) && shown(number(step, "best")))
        points.emplace_back(number(step, "trial"), number(step, "best"));
    if (points.size() < 2) return;
    std::stable_sort(points.begin() + 1, points.end(), [](auto &a, auto &b) { return a.first < b.first; });
    const double noise = task.get("noise") >= 0 && task.get("noise") < 1 ? task.get("noise") : 0;
    const double trials = shown(task.get("trials")) ? task.get("trials") : 1;
    EvenAxis x{0, std::max(trials, points.back().first), 64, 546}, y{1 - noise, 1 + noise, 214, 12};
    for (auto &[trial, best] : points) y.low = std::min(y.low, best), y.high = std::max(y.high, best);
    const double room = std::max(0.1 * (y.high - y.low), 0.01);
    y.low -= room, y.high += room;

    add("<figure><figcaption>Best so far</figcaption>\n<svg width=\"560\" height=\"262\" viewBox=\"0 0 560 262\">\n");
    add("<rect class=\"band\" x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\"><title>the noise: "
        "{}</title></rect>\n",
        x.from, y(1 + noise), x.to - x.from, y(1 - noise) - y(1 + noise), noise_text(noise));
    for (const double v : x.ticks(8))
      line("grid", x(v), y.from, x(v), y.to), words("quiet mid", x(v), y.from + 18, fmt::format("{:g}", v));
    for (const double v : y.ticks(6))
      line("grid", x.from, y(v), x.to, y(v)), words("quiet end", x.from - 7, y(v) + 4, fmt::format("{:.6g}", v));
    line("axis", x.from, y.from, x.to, y.from), line("axis", x.from, y(1), x.to, y(1));
    words("mid", (x.from + x.to) / 2, y.from + 42, "trials");
    add("<text class=\"mid\" transform=\"translate(14 {}) rotate(-90)\">ratio</text>\n", (y.from + y.to) / 2);
    std::string path = fmt::format("M{:.1f} {:.1f}", x(0), y(1)), marks;
    double best = 1;
    for (auto &[trial, ratio] : points) {
      if (ratio == best) continue;
      best = ratio;
      path += fmt::format("H{:.1f}V{:.1f}", x(trial), y(ratio));
      marks += fmt::format(
          "<circle class=\"top\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>trial {}: {}</title></circle>\n", x(trial),
          y(ratio), trial, exact_ratio(ratio));
    }
    add("<path class=\"curve\" d=\"{}H{:.1f}\"/>\n{}</svg></figure>\n", path, x.to, marks);
  }

  void ten_best(const Task &task) {
    const auto sound =
        std::count_if(task.tried.begin(), task.tried.end(), [](auto &tried) { return tried.fault.empty(); });
    if (!sound) return;
    add("<figure><figcaption>{}{} <span class=\"quiet\">and what they change</span></figcaption>\n<table>\n",
        sound > int(listed_settings) ? "The ten best of " : "", counted(double(sound), "sound setting"));
    cells("th", {{"ratio"}, {"us"}, {"noise"}, {"rung"}, {"setting", left}});
    const std::string present = text(task.present(), "setting");
    for (size_t i = 0; i < std::min(size_t(sound), listed_settings); i++) {
      const Tried &t = task.tried[i];
      const std::string changed = changes(present, t.setting, false);
      cells("td", {{exact_ratio(t.ratio)},
                   {digits(t.us)},
                   {noise_text(t.noise)},
                   {fmt::format("{}", t.rung)},
                   {changed.empty() ? "the present one" : "<code>" + escaped(changed) + "</code>",
                    " class=\"l w\" title=\"" + escaped(t.setting) + '"'}});
    }
    add("</table></figure>\n");
  }

  void knobs(const Task &task) {
    const std::string setting = text(task.present(), "setting");
    const auto present = by_knob(setting), best = by_knob(text(task.best(), "setting"));
    std::vector<Tried> tried = task.tried;
    if (std::none_of(tried.begin(), tried.end(), [&](auto &t) { return t.setting == setting; }))
      tried.push_back({setting, "", 0, number(task.present(), "us"), 1, 0});
    const auto effects = knob_effects(tried);
    if (effects.empty()) return;
    double high = 0, low = INFINITY;
    for (auto &t : tried)
      if (t.fault.empty()) high = std::max(high, t.ratio), low = std::min(low, t.ratio);
    const LogAxis x{std::max(high / 2, std::min(low, high / 1.1)), high, 12, strip_width - 7};
    add("<h3>What each knob did</h3>\n<p class=\"quiet\">The largest effect first: the best ratio with its best value, "
        "less the "
        "best with its worst. ★ is the best setting's value, ○ the present one's.</p>\n<div class=\"knobs\">\n");
    for (auto &effect : effects) {
      add("<figure><figcaption>{} <span class=\"quiet\">effect {}</span></figcaption>\n<table>\n", escaped(effect.knob),
          exact_ratio(effect.size()));
      cells("th", {{""}, {"value", left}, {scale(x)}, {"best"}, {"median"}, {"n"}});
      size_t left_out = 0;
      for (size_t i = 0; i < effect.values.size(); i++) {
        const ValueEffect &v = effect.values[i];
        const auto has = [&](auto &values) {
          const auto at = values.find(effect.knob);
          return at != values.end() && at->second == v.value;
        };
        const std::string mark = std::string(has(best) ? "★" : "") + (has(present) ? "○" : "");
        if (i >= listed_values && mark.empty()) left_out++;
        else
          cells("td",
                {{mark},
                 {"<code>" + escaped(v.value) + "</code>", left},
                 {strip(v, x)},
                 {exact_ratio(v.ratios[0])},
                 {exact_ratio(v.median())},
                 {fmt::format("{}", v.ratios.size())}},
                fmt::format(" title=\"{}: best {}, median {}, {}\"", escaped(effect.knob + "=" + v.value),
                            exact_ratio(v.ratios[0]), exact_ratio(v.median()),
                            counted(double(v.ratios.size()), "setting")));
      }
      add("</table>\n");
      if (left_out) add("<small>and {}</small>\n", counted(double(left_out), "lesser value"));
      add("</figure>\n");
    }
    add("</div>\n");
  }

  static std::string scale(const LogAxis &x) {
    const auto tick = [&](double ratio, const char *kind) {
      return fmt::format("<text class=\"quiet {}\" x=\"{:.1f}\" y=\"11\">{:.2g}</text>", kind, x(ratio), ratio);
    };
    return fmt::format("<svg width=\"{}\" height=\"14\">{}{}</svg>", strip_width, tick(x.low, "mid"),
                       x.low < 0.9 && x.high >= 1 ? tick(1, "mid") : tick(x.high, "end"));
  }

  // Dots that fall on the same place are one.
  static std::string strip(const ValueEffect &value, const LogAxis &x) {
    const auto at = [&](double ratio) { return x(std::max(ratio, x.low)); };
    std::string dots;
    int last = -1;
    for (const double ratio : value.ratios)
      if (const int place = int(std::lround(at(ratio))); place != last)
        dots += fmt::format("M{} 8h0", place), last = place;
    std::string result = fmt::format("<svg width=\"{}\" height=\"{}\">", strip_width, strip_height);
    if (x.low <= 1 && x.high >= 1)
      result += fmt::format("<path class=\"grid\" d=\"M{:.1f} 0v{}\"/>", x(1), strip_height);
    if (value.ratios.size() > 1)
      result += fmt::format("<path class=\"dots\" d=\"{}\"/><path class=\"median\" d=\"M{:.1f} 1v14\"/>", dots,
                            at(value.median()));
    return result + fmt::format("<circle class=\"top\" cx=\"{:.1f}\" cy=\"8\" r=\"4\"/></svg>", at(value.ratios[0]));
  }

  const Json &report_;
  std::vector<Task> tasks_;
  std::vector<std::string> baselines_;
};

}  // namespace

std::string tune_page(const Json &report) { return TunePage(report).html(); }

}  // namespace convsmith
