#include "tools/support/plot.h"
#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

namespace convsmith {
namespace {

constexpr int width = 700, height = 400;
constexpr double left = 92, right = width - 26, top = 52, bottom = height - 58;
constexpr double largest_shown = 1e300;
constexpr std::size_t most_dots = 60;
constexpr int longest_title = 56;

struct Tick {
  double value;
  std::string label;
};

struct Axis {
  double low = 0, high = 1;  // of the values, or of their base-10 logarithms
  bool logarithmic = false;
  std::vector<Tick> ticks;
  std::vector<double> minor;

  /// 0 at the low end, 1 at the high end.
  double position(double value) const {
    if (logarithmic) value = value > 0 ? std::log10(value) : low;
    return (value - low) / (high - low);
  }
};

struct Point {
  double x, y;
};

using Out = std::back_insert_iterator<std::string>;

bool shown(double loss) { return std::abs(loss) <= largest_shown; }

// The least of 1, 2, 5 times a power of ten that splits `range` in at most `count` parts.
double nice_step(double range, int count) {
  const double rough = range / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

// As many digits as tell neighbouring ticks apart.
std::string linear_label(double value, double step, double largest) {
  if (value == 0) return "0";
  const int last_digit = static_cast<int>(std::floor(std::log10(step) + 1e-9));
  if (largest < 1e6 && last_digit >= -6) return fmt::format("{:.{}f}", value, std::max(0, -last_digit));
  const int first_digit = static_cast<int>(std::floor(std::log10(std::abs(value)) + 1e-9));
  const double power = std::pow(10.0, first_digit);
  return fmt::format("{:.{}f}e{}", value / power, std::clamp(first_digit - last_digit, 0, 16), first_digit);
}

Axis linear_axis(double low, double high, int count) {
  Axis axis;
  const double largest = std::max(std::abs(low), std::abs(high));
  // At least 1e-4 of the values: a finer scale would need labels of many digits to show what is noise.
  const double room = std::max(0.06 * (high - low), 1e-4 * largest);
  if (low == high) {
    axis.low = std::min(0.0, 1.5 * low);
    axis.high = std::max(0.0, 1.5 * high);
  } else {
    axis.low = low >= 0 && low < 0.3 * high ? 0 : low - room;  // a loss near zero is read against zero
    axis.high = high + room;
  }
  if (axis.high - axis.low < 1e-300) axis.high = axis.low + 1;
  const double step = nice_step(axis.high - axis.low, count);
  const double first = std::ceil(axis.low / step - 1e-9);
  for (int i = 0; i <= 2 * count; i++) {
    const double value = first + i == 0 ? 0 : (first + i) * step;
    if (value > axis.high) break;
    axis.ticks.push_back({value, linear_label(value, step, largest)});
  }
  return axis;
}

std::string power_of_ten(int exponent, bool plain) {
  if (plain) return fmt::format("{:g}", std::pow(10.0, exponent));
  return fmt::format("10<tspan dy=\"-5\" font-size=\"9\">{}{}</tspan>", exponent < 0 ? "−" : "", std::abs(exponent));
}

Axis logarithmic_axis(double low, double high, int count) {
  Axis axis;
  axis.logarithmic = true;
  const double from = std::log10(low), to = std::log10(high), room = 0.04 * (to - from);
  axis.low = from - room;
  axis.high = to + room;
  const int first = static_cast<int>(std::ceil(axis.low)), last = static_cast<int>(std::floor(axis.high));
  const int stride = (last - first) / count + 1;
  const bool plain = first >= -4 && last <= 4;
  for (int exponent = first; exponent <= last; exponent++) {
    if ((exponent - first) % stride == 0)
      axis.ticks.push_back({std::pow(10.0, exponent), power_of_ten(exponent, plain)});
    else axis.minor.push_back(std::pow(10.0, exponent));
  }
  if (last - first <= 4)
    for (int exponent = first - 1; exponent <= last; exponent++)
      for (int digit = 2; digit < 10; digit++) {
        const double value = digit * std::pow(10.0, exponent), at = axis.position(value);
        if (at >= 0 && at <= 1) axis.minor.push_back(value);
      }
  return axis;
}

Axis loss_axis(const std::vector<double> &losses) {
  double low = largest_shown, high = -largest_shown, least_positive = largest_shown;
  bool any = false;
  for (const double loss : losses) {
    if (!shown(loss)) continue;
    any = true;
    low = std::min(low, loss);
    high = std::max(high, loss);
    if (loss > 0) least_positive = std::min(least_positive, loss);
  }
  if (!any) return {};
  if (low >= 0 && high / least_positive > 100) return logarithmic_axis(least_positive, high, 7);
  return linear_axis(low, high, 6);
}

Axis step_axis(std::size_t count) {
  Axis axis;
  if (count == 0) return axis;
  axis.low = count == 1 ? 0 : 1;
  axis.high = count == 1 ? 2 : static_cast<double>(count);
  const auto step = static_cast<std::size_t>(std::max(1.0, std::round(nice_step(axis.high - axis.low, 8))));
  for (std::size_t value = step; value <= count; value += step)
    axis.ticks.push_back({static_cast<double>(value), fmt::format("{}", value)});
  return axis;
}

double x_of(const Axis &axis, double value) { return left + axis.position(value) * (right - left); }
double y_of(const Axis &axis, double value) {
  return bottom - std::clamp(axis.position(value), 0.0, 1.0) * (bottom - top);
}

// Of the points in one column of pixels the lowest and the highest: no spike is lost, and the text stays short.
std::vector<Point> thinned(const std::vector<Point> &line) {
  if (static_cast<double>(line.size()) <= 2 * (right - left)) return line;
  std::vector<Point> kept;
  for (std::size_t i = 0; i < line.size();) {
    std::size_t low = i, high = i, end = i;
    for (; end < line.size() && std::floor(line[end].x) == std::floor(line[i].x); end++) {
      if (line[end].y < line[low].y) low = end;
      if (line[end].y > line[high].y) high = end;
    }
    kept.push_back(line[std::min(low, high)]);
    if (low != high) kept.push_back(line[std::max(low, high)]);
    i = end;
  }
  return kept;
}

// Bytes of the UTF-8 character that `text` begins with, or 0.
std::size_t character_bytes(std::string_view text) {
  const unsigned char first = static_cast<unsigned char>(text[0]);
  const std::size_t size = first < 0x80                    ? 1
                           : first >= 0xc2 && first < 0xe0 ? 2
                           : (first & 0xf0) == 0xe0        ? 3
                           : first >= 0xf0 && first < 0xf5 ? 4
                                                           : 0;
  if (size > text.size()) return 0;
  std::uint32_t code = size == 1 ? first : first & (0x7f >> size);
  for (std::size_t i = 1; i < size; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (text[i] & 0x3f);
  }
  const bool shortest = size < 3 || code >= (size == 3 ? 0x800u : 0x10000u);
  return shortest && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) && code != 0xfffe && code != 0xffff ? size
                                                                                                              : 0;
}

// At most `room` characters as XML text; one that XML refuses becomes '?'.
std::string escaped(std::string_view text, int room) {
  std::string result;
  for (; !text.empty(); room--) {
    if (room == 0) return result + "…";
    const std::size_t size = character_bytes(text);
    const char c = text[0];
    if (size == 0 || (size == 1 && static_cast<unsigned char>(c) < 0x20)) result += '?';
    else if (c == '&') result += "&amp;";
    else if (c == '<') result += "&lt;";
    else if (c == '>') result += "&gt;";
    else result += text.substr(0, size);
    text.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return result;
}

void draw_axes(Out out, const Axis &steps, const Axis &losses) {
  fmt::format_to(out, "<g stroke=\"#eef1f4\">\n");
  for (const double value : losses.minor)
    fmt::format_to(out, "<path d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", left, y_of(losses, value), right);
  fmt::format_to(out, "</g>\n<g stroke=\"#d8dee4\">\n");
  for (const Tick &tick : losses.ticks)
    fmt::format_to(out, "<path d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", left, y_of(losses, tick.value), right);
  for (const Tick &tick : steps.ticks)
    fmt::format_to(out, "<path d=\"M{:.1f} {:.1f}V{:.1f}\"/>\n", x_of(steps, tick.value), top, bottom);
  fmt::format_to(out, "</g>\n<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" fill=\"none\" stroke=\"#57606a\"/>\n", left, top,
                 bottom, right);
  fmt::format_to(out, "<g font-size=\"11\" fill=\"#57606a\">\n<g text-anchor=\"end\">\n");
  for (const Tick &tick : losses.ticks)
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left - 8, y_of(losses, tick.value) + 4,
                   tick.label);
  fmt::format_to(out, "</g>\n<g text-anchor=\"middle\">\n");
  for (const Tick &tick : steps.ticks)
    fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x_of(steps, tick.value), bottom + 18,
                   tick.label);
  fmt::format_to(out, "</g>\n</g>\n<g font-size=\"13\" fill=\"#24292f\" text-anchor=\"middle\">\n");
  fmt::format_to(out, "<text x=\"{:.1f}\" y=\"{:.1f}\">step</text>\n", (left + right) / 2, bottom + 42);
  fmt::format_to(out, "<text transform=\"translate(14 {:.1f}) rotate(-90)\">loss</text>\n</g>\n", (top + bottom) / 2);
}

void draw_line(Out out, const std::vector<Point> &line, bool dots) {
  if (line.empty()) return;
  if (line.size() > 1) {
    fmt::format_to(out, "<path fill=\"none\" stroke=\"#0969da\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"M");
    for (const Point &point : thinned(line)) fmt::format_to(out, "{:.1f} {:.1f} ", point.x, point.y);
    fmt::format_to(out, "\"/>\n");
  }
  if (!dots && line.size() > 1) return;
  for (const Point &point : line)
    fmt::format_to(out, "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"#0969da\"/>\n", point.x, point.y);
}

// The line, and a cross at the upper edge for each column in which a loss is not finite. Returns how many are not.
std::size_t draw_losses(Out out, const std::vector<double> &losses, const Axis &steps, const Axis &values) {
  std::vector<Point> line;
  std::size_t not_finite = 0;
  double last_cross = -1;
  for (std::size_t i = 0; i < losses.size(); i++) {
    const double x = x_of(steps, static_cast<double>(i + 1));
    if (shown(losses[i])) {
      line.push_back({x, y_of(values, losses[i])});
      continue;
    }
    draw_line(out, line, losses.size() <= most_dots);
    line.clear();
    not_finite++;
    if (x - last_cross < 1) continue;
    last_cross = x;
    fmt::format_to(out, "<path d=\"M{:.1f} {:.1f}l8 8m0 -8l-8 8\" stroke=\"#cf222e\" stroke-width=\"2\"/>\n", x - 4,
                   top - 4);
  }
  draw_line(out, line, losses.size() <= most_dots);
  return not_finite;
}

std::string number_label(double loss) {
  return std::isnan(loss)   ? "NaN"
         : std::isinf(loss) ? (loss > 0 ? "infinity" : "−infinity")
                            : fmt::format("{:.4g}", loss);
}

}  // namespace

std::string loss_curve_svg(const std::vector<double> &losses, std::string_view title) {
  const Axis steps = step_axis(losses.size()), values = loss_axis(losses);
  const std::string heading = escaped(title, longest_title);
  std::string svg;
  const Out out = std::back_inserter(svg);
  fmt::format_to(
      out,
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" "
      "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
      "<title>{2}</title>\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      width, height, heading);
  fmt::format_to(out, "<text x=\"{:.1f}\" y=\"28\" font-size=\"16\" font-weight=\"600\" fill=\"#24292f\">{}</text>\n",
                 left, heading);
  draw_axes(out, steps, values);
  const std::size_t not_finite = draw_losses(out, losses, steps, values);
  if (!losses.empty())
    fmt::format_to(
        out, "<text x=\"{:.1f}\" y=\"28\" font-size=\"13\" fill=\"#57606a\" text-anchor=\"end\">step {}: {}</text>\n",
        right, losses.size(), number_label(losses.back()));
  if (losses.empty())
    fmt::format_to(
        out,
        "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"14\" fill=\"#57606a\" text-anchor=\"middle\">no steps</text>\n",
        (left + right) / 2, (top + bottom) / 2);
  if (not_finite > 0)
    fmt::format_to(out,
                   "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"12\" fill=\"#cf222e\" text-anchor=\"end\">{} of {} "
                   "losses not finite</text>\n",
                   right, bottom + 42, not_finite, losses.size());
  svg += "</svg>\n";
  return svg;
}

}  // namespace convsmith
