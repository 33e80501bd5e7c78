// Reading a problem text.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include "convsmith/error.h"
#include "problem_words.h"

namespace convsmith {
namespace {

using namespace problem_words;

/// ASCII on one line, cut where it is long: what a message can quote of any text.
std::string printable(std::string_view text, std::size_t limit) {
  std::string result;
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') result += "\\n";
    else if (c == '\t') result += "\\t";
    else if (c == '\r') result += "\\r";
    else if (c == '"' || c == '\\') result += {'\\', c};
    else if (byte >= 0x20 && byte < 0x7f) result += c;
    else result += {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  }
  return text.size() > limit ? result + "..." : result;
}

std::string quoted(std::string_view text, std::size_t limit = 48) {
  const std::string quote = "\"" + printable(text, limit) + "\"";
  return text.size() > limit ? quote + " (" + std::to_string(text.size()) + " bytes)" : quote;
}

/// The pieces between separators, looked for until there are more than `limit`.
std::vector<std::string_view> split(std::string_view text, char separator, std::size_t limit) {
  std::vector<std::string_view> pieces;
  for (;;) {
    const std::size_t end = text.find(separator);
    pieces.push_back(text.substr(0, end));
    if (end == std::string_view::npos || pieces.size() > limit) return pieces;
    text.remove_prefix(end + 1);
  }
}

/// Insertions, deletions and replacements of one character that turn `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = i;
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

/// "a key, perhaps "kernel"", or all of them where none is near.
std::string keys_near(std::string_view word) {
  std::size_t best = 3;
  std::string_view near;
  if (word.size() <= 16) {
    for (const std::string_view key : keys) {
      const std::size_t distance = edit_distance(word, key);
      if (distance < best && distance < key.size()) best = distance, near = key;
    }
  }
  if (!near.empty()) return "a key, perhaps \"" + std::string(near) + "\"";
  std::string all = "one of the keys";
  for (const std::string_view key : keys) all += (key == keys[0] ? " " : ", ") + std::string(key);
  return all;
}

template<class E, std::size_t N>
std::string names(const Word<E> (&words)[N]) {
  std::string all;
  for (std::size_t i = 0; i < N; ++i) {
    all += (i == 0 ? "" : i + 1 == N ? " or " : ", ") + std::string(words[i].text);
  }
  return all;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {
    constexpr std::string_view blanks = " \t\n\r";
    for (std::size_t at = text.find_first_not_of(blanks); at != std::string_view::npos;
         at = text.find_first_not_of(blanks, at)) {
      const std::size_t end = std::min(text.find_first_of(blanks, at), text.size());
      take(text.substr(at, end - at));
      at = end;
    }
  }

  Problem read() {
    read_word(Key::op, ops, problem_.op);
    read_word(Key::type, types, problem_.type);
    refuse_keys_of_other_ops();
    read_in();
    if (value(Key::n) != "?") read_number(Key::n, 0, problem_.n, " or \"?\"");
    else problem_.n = run_time;
    read_number(Key::ic, 1, problem_.ic);
    read_number(Key::oc, 1, problem_.oc);
    read_number(Key::groups, 1, problem_.groups);
    read_axes(Key::kernel, 1, problem_.kernel);
    if (!value(Key::kernel) && problem_.op != Op::dense)
      fail(Key::kernel, one_an_axis("a number of at least 1", "2x1"));
    read_axes(Key::out, 1, problem_.dense_out);
    read_axes(Key::stride, 1, problem_.stride);
    read_axes(Key::dilation, 1, problem_.dilation);
    read_pad();
    read_axes(Key::out_pad, 0, problem_.out_pad);
    read_word(Key::border, borders, problem_.border);
    read_word(Key::out_type, out_types, problem_.out_type);
    read_word(Key::scale, scales, problem_.scale);
    read_word(Key::layout, layouts, problem_.layout);
    read_word(Key::bias, switches, problem_.bias);
    read_activation();
    read_word(Key::residual, switches, problem_.residual);
    read_word(Key::save, saves, problem_.save);
    read_word(Key::precision, precisions, problem_.precision);
    check();
    return problem_;
  }

 private:
  std::string_view text_;
  std::optional<std::string_view> values_[key_count];
  Problem problem_;

  const std::optional<std::string_view> &value(Key key) const { return values_[static_cast<std::size_t>(key)]; }

  [[noreturn]] void refuse(const std::string &what, const std::string &expected, const std::string &got) const {
    throw Error("problem: " + what + ": expected " + expected + ", got " + got + " in " + quoted(text_, 240));
  }
  [[noreturn]] void fail(Key key, const std::string &expected, const std::string &got) const {
    refuse(value(key) ? name(key) + "=" + printable(*value(key), 48) : name(key), expected, got);
  }
  [[noreturn]] void fail(Key key, const std::string &expected) const {
    fail(key, expected, value(key) ? quoted(*value(key)) : "nothing");
  }

  void take(std::string_view word) {
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos) refuse(printable(word, 48), "a word of the form key=value", quoted(word));
    const std::string_view key = word.substr(0, equals);
    const auto found = std::find(std::begin(keys), std::end(keys), key);
    if (found == std::end(keys)) refuse(printable(word, 48), keys_near(key), quoted(key));
    std::optional<std::string_view> &value = values_[found - std::begin(keys)];
    if (value)
      refuse(printable(word, 48), "each key once", quoted(std::string(key) + "=" + std::string(*value)) + " too");
    value = word.substr(equals + 1);
  }

  void allow(Key key, bool allowed, const char *where, const std::string &got) const {
    if (value(key) && !allowed) fail(key, std::string("this key only with ") + where, got);
  }

  void refuse_keys_of_other_ops() const {
    const std::string op = "op=" + name(ops, problem_.op), type = "type=" + name(types, problem_.type);
    for (const Key key : {Key::groups, Key::kernel, Key::stride, Key::dilation, Key::pad, Key::border}) {
      allow(key, problem_.op != Op::dense, "an op that slides a window", op);
    }
    allow(Key::out, problem_.op == Op::dense, "op=dense", op);
    allow(Key::out_pad, problem_.op == Op::transposed, "op=transposed", op);
    for (const Key key : {Key::out_type, Key::scale}) allow(key, problem_.type == Type::u8s8, "type=u8s8", type);
  }

  template<class E, std::size_t N>
  void read_word(Key key, const Word<E> (&words)[N], E &result) const {
    if (!value(key)) return;
    for (const Word<E> &word : words) {
      if (word.text == *value(key)) {
        result = word.value;
        return;
      }
    }
    fail(key, names(words));
  }

  /// Whether the whole of `text` is a number of at least `minimum`; one that no 64 bits hold is refused here.
  bool is_number(Key key, std::string_view text, std::int64_t minimum, std::int64_t &result) const {
    const char *const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, result);
    if (error == std::errc::result_out_of_range) fail(key, "numbers that fit 64 bits");
    return error == std::errc() && rest == end && result >= minimum;
  }

  void read_number(Key key, std::int64_t minimum, std::int64_t &result, const char *alternative = "") const {
    if (value(key) && !is_number(key, *value(key), minimum, result)) {
      fail(key, "a number of at least " + std::to_string(minimum) + alternative);
    }
  }

  std::string one_an_axis(const std::string &what, const std::string &example) const {
    if (problem_.rank == 1) return what + " (in has one axis)";
    return what + ", or one an axis (\"" + example + (problem_.rank == 3 ? "x1" : "") + "\")";
  }

  /// The pieces of a value of one piece an axis, or of one piece for all.
  std::vector<std::string_view> pieces(Key key, const std::string &expected) const {
    const auto rank = static_cast<std::size_t>(problem_.rank);
    std::vector<std::string_view> result = split(*value(key), 'x', rank);
    if (result.size() == 1) result.resize(rank, result[0]);
    if (result.size() != rank) fail(key, expected);
    return result;
  }

  void read_axes(Key key, std::int64_t minimum, Problem::Extents &result) const {
    if (!value(key)) return;
    const std::string expected =
        one_an_axis("a number of at least " + std::to_string(minimum), minimum == 0 ? "1x0" : "2x1");
    std::size_t axis = 0;
    for (const std::string_view piece : pieces(key, expected)) {
      if (!is_number(key, piece, minimum, result[axis++])) fail(key, expected);
    }
  }

  void read_in() {
    const bool shared = problem_.op != Op::local && problem_.op != Op::dense;
    const std::string expected = std::string("W, HxW or DxHxW, numbers of at least 1") +
                                 (shared ? " or \"?\"" : " (\"?\" only where op has shared weights)");
    if (!value(Key::in)) fail(Key::in, expected);
    const std::vector<std::string_view> extents = split(*value(Key::in), 'x', 3);
    if (extents.size() > 3) fail(Key::in, expected);
    for (const std::string_view extent : extents) {
      std::int64_t &result = problem_.in[problem_.rank++];
      if (extent == "?" && shared) result = run_time;
      else if (!is_number(Key::in, extent, 1, result)) fail(Key::in, expected);
    }
  }

  void read_pad() {
    if (!value(Key::pad)) return;
    const std::string expected = one_an_axis("a number or LO:HI", "1x0:1");
    constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
    std::size_t axis = 0;
    for (const std::string_view piece : pieces(Key::pad, expected)) {
      const std::vector<std::string_view> ends = split(piece, ':', 2);
      if (ends.size() > 2 || !is_number(Key::pad, ends.front(), least, problem_.pad_lo[axis]) ||
          !is_number(Key::pad, ends.back(), least, problem_.pad_hi[axis])) {
        fail(Key::pad, expected);
      }
      ++axis;
    }
  }

  static bool is_finite(std::string_view text, float &result) {
    const char *const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, result);
    return error == std::errc() && rest == end && std::isfinite(result);
  }

  void read_activation() {
    if (!value(Key::activation)) return;
    const std::vector<std::string_view> parts = split(*value(Key::activation), ':', 3);
    const auto *const found = std::find_if(std::begin(activations), std::end(activations),
                                           [&](const Word<Kind> &word) { return word.text == parts[0]; });
    Activation &activation = problem_.activation;
    if (found == std::end(activations) || parts.size() != 1 + parameter_count(found->value) ||
        (parts.size() > 1 && !is_finite(parts[1], activation.a)) ||
        (parts.size() > 2 && !is_finite(parts[2], activation.b))) {
      fail(Key::activation,
           "none, relu, relu6, leaky_relu:S, sigmoid, tanh, silu, gelu or clamp:LO:HI, numbers that f32 holds");
    }
    activation.kind = found->value;
    if (activation.kind == Kind::clamp && activation.a > activation.b)
      fail(Key::activation, "clamp:LO:HI with LO <= HI");
  }

  /// What no word shows by itself.
  void check() const {
    if (problem_.ic % problem_.groups != 0 || problem_.oc % problem_.groups != 0) {
      fail(Key::groups, "a divisor of ic and oc",
           "ic=" + std::to_string(problem_.ic) + " oc=" + std::to_string(problem_.oc));
    }
    if (problem_.op == Op::transposed && problem_.border != Border::zero) fail(Key::border, "zero for op=transposed");
    for (int axis = 0; axis < problem_.rank; ++axis) {
      if (problem_.op == Op::transposed) check_transposed(axis);
      else if (problem_.op != Op::dense) check_window(axis);
    }
    check_element_limit(problem_, 63);
  }

  std::string on_axis(int axis) const { return std::string(" on axis ") + "DHW"[3 - problem_.rank + axis]; }

  void check_transposed(int axis) const {
    const std::int64_t limit = std::max(problem_.stride[axis], problem_.dilation[axis]), extra = problem_.out_pad[axis];
    if (extra >= limit) {
      fail(Key::out_pad, "less than stride or dilation",
           std::to_string(extra) + " with stride " + std::to_string(problem_.stride[axis]) + " and dilation " +
               std::to_string(problem_.dilation[axis]) + on_axis(axis));
    }
    const std::int64_t out = problem_.out(axis);
    if (problem_.in[axis] != run_time && out < 1)
      fail(Key::pad, "an output extent of at least 1", std::to_string(out) + on_axis(axis));
  }

  void check_window(int axis) const {
    const std::int64_t in = problem_.in[axis], lo = problem_.pad_lo[axis], hi = problem_.pad_hi[axis];
    const std::int64_t out = problem_.out(axis);
    if (in == run_time) return;
    const std::string input = "an extent of " + std::to_string(in) + " padded by " + pad_text(lo, hi) + on_axis(axis);
    // The border applies to what a negative pad leaves.
    const std::int64_t tail = in + std::clamp(lo, -in, std::int64_t{0});
    const std::int64_t left = tail + std::clamp(hi, -tail, std::int64_t{0});
    if (left < 1) fail(Key::pad, "a crop that leaves an extent of at least 1", input);
    const std::int64_t reach = problem_.border == Border::reflect ? left - 1 : left;
    const bool bounded = problem_.border == Border::reflect || problem_.border == Border::wrap;
    if (bounded && std::max(lo, hi) > reach) {
      fail(Key::pad, "at most " + std::to_string(reach) + " an end for border=" + name(borders, problem_.border),
           input);
    }
    if (out < 1) {
      fail(Key::kernel, "a window no larger than the padded input",
           "a window of " + std::to_string(problem_.window(axis)) + " over " + input);
    }
  }
};

}  // namespace

Problem Problem::parse(std::string_view text) { return Reader(text).read(); }

}  // namespace convsmith
