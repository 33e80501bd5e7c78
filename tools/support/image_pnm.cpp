#include <fmt/format.h>
#include <algorithm>
#include <cctype>
#include "convsmith/error.h"
#include "tools/support/image_format.h"

namespace convsmith {
namespace {

class Parser {
 public:
  Parser(const std::string &path, std::string_view bytes) : path_(path), bytes_(bytes) {}

  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }

  /// The next decimal number, in low..high, after white space and comments. It must end at white space.
  std::uint32_t number(const char *what, std::uint32_t low, std::uint32_t high) {
    skip_space();
    const std::size_t start = at_;
    std::uint64_t value = 0;
    while (at_ < bytes_.size() && std::isdigit(byte()) && value <= high) value = value * 10 + (bytes_[at_++] - '0');
    if (at_ == start || value < low || value > high || (at_ < bytes_.size() && !std::isspace(byte()) && byte() != '#'))
      fail(start, fmt::format("{} from {} to {}", what, low, high));
    return static_cast<std::uint32_t>(value);
  }

  /// The one white space between the header and the samples.
  void space() {
    if (at_ == bytes_.size() || !std::isspace(byte())) fail(at_, "white space");
    at_++;
  }

  void end() {
    skip_space();
    if (at_ < bytes_.size()) fail(at_, "the end of the file");
  }

  const std::uint8_t *samples() const { return reinterpret_cast<const std::uint8_t *>(bytes_.data()) + at_; }

  [[noreturn]] void fail(std::size_t where, const std::string &expected) const {
    std::string got;
    for (std::size_t i = where;
         i < bytes_.size() && i < where + 12 && !std::isspace(static_cast<unsigned char>(bytes_[i])); i++)
      got += std::isprint(static_cast<unsigned char>(bytes_[i])) ? bytes_[i] : '?';
    throw Error(fmt::format("{}: expected {} at byte {}, got {}", path_, expected, where,
                            where >= bytes_.size() ? "the end of the file" : "'" + got + "'"));
  }

 private:
  unsigned char byte() const { return static_cast<unsigned char>(bytes_[at_]); }

  void skip_space() {
    while (at_ < bytes_.size() && (std::isspace(byte()) || byte() == '#')) {
      if (byte() == '#') at_ = std::min(bytes_.find('\n', at_), bytes_.size() - 1);
      at_++;
    }
  }

  const std::string &path_;
  std::string_view bytes_;
  std::size_t at_ = 2;  // past the magic
};

}  // namespace

bool is_pnm(std::string_view bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' &&
         (bytes[1] == '2' || bytes[1] == '3' || bytes[1] == '5' || bytes[1] == '6') &&
         (std::isspace(static_cast<unsigned char>(bytes[2])) || bytes[2] == '#');
}

Image decode_pnm(const std::string &path, std::string_view bytes) {
  Parser parser(path, bytes);
  const bool text = bytes[1] < '5';
  const int channels = bytes[1] == '3' || bytes[1] == '6' ? 3 : 1;
  const std::uint64_t width = parser.number("a width", 1, 0x7fffffff);
  const std::uint64_t height = parser.number("a height", 1, 0x7fffffff);
  const std::uint32_t largest = parser.number("a largest sample", 1, 65535);
  if (!text) parser.space();

  // Held against the file's size before memory is taken. A sample in text is a digit and a space at least.
  const int sample_bytes = largest > 255 ? 2 : 1;
  require_size(path, width, height, channels);
  const std::uint64_t samples = width * height * channels;
  const bool fits = text ? parser.left() >= samples && parser.left() - samples >= samples - 1
                         : parser.left() % sample_bytes == 0 && parser.left() / sample_bytes == samples;
  if (!fits)
    throw Error(fmt::format("{}: expected {}{} samples for {}x{} pixels, got {} bytes after the header", path, samples,
                            text ? "" : fmt::format(" {}-byte", sample_bytes), width, height, parser.left()));
  Image image = blank_image(path, width, height, channels);
  const std::size_t row_samples = static_cast<std::size_t>(width) * channels;
  if (!text) {
    for (int y = 0; y < image.height; y++)
      scatter_row(image, y, parser.samples() + y * row_samples * sample_bytes, sample_bytes,
                  static_cast<float>(largest));
    const auto above = std::find_if(image.pixels.begin(), image.pixels.end(), [](float v) { return v > 1.0f; });
    if (above != image.pixels.end())
      throw Error(fmt::format("{}: expected samples from 0 to {}, got {}", path, largest,
                              *above * static_cast<float>(largest)));
    return image;
  }
  for (int y = 0; y < image.height; y++)
    for (int x = 0; x < image.width; x++)
      for (int c = 0; c < channels; c++)
        image.pixels[(static_cast<std::size_t>(c) * image.height + y) * image.width + x] =
            static_cast<float>(parser.number("a sample", 0, largest)) / static_cast<float>(largest);
  parser.end();
  return image;
}

std::string encode_pnm(const Image &image) {
  std::string bytes = fmt::format("P{}\n{} {}\n255\n", image.channels == 1 ? 5 : 6, image.width, image.height);
  const std::size_t header = bytes.size(), row = static_cast<std::size_t>(image.width) * image.channels;
  bytes.resize(header + row * image.height);
  for (int y = 0; y < image.height; y++)
    interleave_row(image, y, reinterpret_cast<std::uint8_t *>(bytes.data()) + header + row * y);
  return bytes;
}

}  // namespace convsmith
