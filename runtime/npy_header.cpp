#include "npy_header.h"
#include <algorithm>
#include <limits>
#include "convsmith/abi.h"
#include "convsmith/error.h"

namespace convsmith {
namespace {

// The Python dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } and nothing more of Python.
class Parser {
 public:
  Parser(std::string_view file, const std::string &name) : file_(file), name_(name) {}

  NpyHeader parse() {
    parse_preamble();
    parse_dictionary();
    check_size();
    return header_;
  }

 private:
  [[noreturn]] void fail(std::size_t byte, const std::string &expected, const std::string &got) const {
    throw Error(name_ + ": byte " + std::to_string(byte) + ": expected " + expected + ", got " + got);
  }

  // What stands at a byte, fit to be printed on one line.
  std::string seen(std::size_t from, std::size_t to) const {
    if (from >= end_) return end_ == file_.size() ? "the end of the file" : "the end of the header";
    std::string text = "'";
    for (std::size_t i = from; i < std::min({to, end_, from + 24}); i++) {
      const auto c = static_cast<unsigned char>(file_[i]);
      const char *digits = "0123456789abcdef";
      if (c >= 0x20 && c < 0x7f) text += static_cast<char>(c);
      else text += {'\\', 'x', digits[c >> 4], digits[c & 15]};
    }
    return text + "'";
  }
  [[noreturn]] void fail_here(const std::string &expected) const { fail(at_, expected, seen(at_, at_ + 1)); }

  void parse_preamble() {
    const std::string_view magic("\x93NUMPY", 6);
    end_ = file_.size();
    if (file_.substr(0, 6) != magic) fail(0, "the bytes \\x93NUMPY", seen(0, 6));
    if (file_.size() < 8 || file_[6] < 1 || file_[6] > 3 || file_[7] != 0) {
      fail(6, "format version 1.0, 2.0 or 3.0", seen(6, 8));
    }
    const std::size_t width = file_[6] == 1 ? 2 : 4;
    at_ = 8 + width;
    if (file_.size() < at_) fail(8, std::to_string(width) + " bytes of header length", seen(file_.size(), 0));
    std::size_t length = 0;
    for (std::size_t i = width; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file_[8 + i]);
    if (length > file_.size() - at_) {
      fail(8, "a header within the file's " + std::to_string(file_.size()) + " bytes",
           "a header of " + std::to_string(length));
    }
    end_ = at_ + length;
    header_.data_offset = end_;
  }

  bool take(char c) {
    skip_spaces();
    if (at_ >= end_ || file_[at_] != c) return false;
    at_++;
    return true;
  }
  void expect(char c, const char *expected) {
    if (!take(c)) fail_here(expected);
  }
  void skip_spaces() {
    while (at_ < end_ && (file_[at_] == ' ' || file_[at_] == '\t' || file_[at_] == '\n')) at_++;
  }

  std::string_view parse_string(const char *expected) {
    skip_spaces();
    if (at_ >= end_ || (file_[at_] != '\'' && file_[at_] != '"')) fail_here(expected);
    const std::size_t close = file_.substr(0, end_).find(file_[at_], at_ + 1);
    if (close == std::string_view::npos) fail(at_, "a closing quotation mark", "the end of the header");
    const std::string_view text = file_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    return text;
  }

  void parse_dictionary() {
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{', "'{'");
    while (!take('}')) {
      skip_spaces();
      const std::size_t start = at_;
      const std::string_view key = parse_string("a key or '}'");
      bool *has = key == "descr"           ? &has_descr
                  : key == "fortran_order" ? &has_order
                  : key == "shape"         ? &has_shape
                                           : nullptr;
      if (has == nullptr || *has) fail(start, "each of descr, fortran_order and shape once", seen(start, at_));
      *has = true;
      expect(':', "':'");
      if (has == &has_descr) parse_descr();
      else if (has == &has_order) parse_order();
      else parse_shape();
      if (!take(',')) {
        expect('}', "',' or '}'");
        break;
      }
    }
    const char *missing = !has_descr ? "descr" : !has_order ? "fortran_order" : !has_shape ? "shape" : nullptr;
    if (missing != nullptr) fail(at_, std::string("a header with the key ") + missing, "none");
    skip_spaces();
    if (at_ != end_) fail_here("only spaces after the dictionary");
  }

  void parse_descr() {
    skip_spaces();
    const std::size_t start = at_;
    const std::string_view text = parse_string("an element type such as '<f4'");
    const std::string_view known[] = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"};
    const bool valid =
        text.size() == 3 && std::find(std::begin(known), std::end(known), text.substr(1)) != std::end(known);
    if (!valid || (text[0] != '<' && text[0] != '>' && (text[0] != '|' || text[2] != '1'))) {
      fail(start, "an element type of f2, f4, f8, i1 to i8, u1 to u8 or b1 after '<', '>' or '|'", seen(start, at_));
    }
    header_.big_endian = text[0] == '>';
    header_.kind = text[1];
    header_.item_bytes = static_cast<std::size_t>(text[2] - '0');
  }

  void parse_order() {
    skip_spaces();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (file_.substr(0, end_).substr(at_, word.size()) != word) continue;
      header_.fortran_order = value;
      at_ += word.size();
      return;
    }
    fail(at_, "True or False", seen(at_, at_ + 8));
  }

  void parse_shape() {
    expect('(', "'(' of a shape");
    bool comma = true;
    while (!take(')')) {
      if (!comma) fail_here("',' or ')'");
      if (header_.shape.size() == CONVSMITH_MAX_RANK) {
        fail(at_, "at most " + std::to_string(CONVSMITH_MAX_RANK) + " axes", "more");
      }
      header_.shape.push_back(parse_extent());
      comma = take(',');
    }
    if (header_.shape.size() == 1 && !comma) fail(at_ - 1, "',' after a lone extent", "')'");
  }

  std::int64_t parse_extent() {
    skip_spaces();
    const std::size_t start = at_;
    std::int64_t value = 0;
    for (; at_ < end_ && file_[at_] >= '0' && file_[at_] <= '9'; at_++) {
      const int digit = file_[at_] - '0';
      if (value > (std::numeric_limits<std::int64_t>::max() - digit) / 10) {
        fail(start, "an extent below 2^63", seen(start, at_ + 1) + "...");
      }
      value = 10 * value + digit;
    }
    if (at_ == start) fail_here("an extent or ')'");
    return value;
  }

  void check_size() const {
    const std::uint64_t bytes = file_.size() - header_.data_offset;
    std::uint64_t wanted = header_.item_bytes;
    const bool empty = std::find(header_.shape.begin(), header_.shape.end(), 0) != header_.shape.end();
    for (std::int64_t extent : header_.shape) {
      const auto factor = static_cast<std::uint64_t>(empty ? 0 : extent);
      if (factor != 0 && wanted > std::numeric_limits<std::uint64_t>::max() / factor) {
        fail(header_.data_offset, "fewer than 2^64 bytes of elements", "a shape of " + shape_text(header_.shape));
      }
      wanted *= factor;
    }
    if (wanted != bytes) {
      fail(header_.data_offset,
           std::to_string(wanted) + " bytes of elements for a shape of " + shape_text(header_.shape),
           std::to_string(bytes));
    }
  }

  std::string_view file_;
  const std::string &name_;
  NpyHeader header_;
  std::size_t at_ = 0, end_ = 0;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view file, const std::string &name) { return Parser(file, name).parse(); }

}  // namespace convsmith
