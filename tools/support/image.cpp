#include "tools/support/image.h"
#include <fmt/format.h>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <new>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "tools/support/image_format.h"

namespace convsmith {
namespace {

constexpr std::uint64_t most_pixels = std::uint64_t{1} << 28;
constexpr std::uint64_t most_elements = (std::uint64_t{1} << 31) - 1;

// The first bytes as a person can compare them: "47 49 46 38 (GIF8)".
std::string first_bytes(std::string_view bytes) {
  std::string hex, text;
  for (const unsigned char c : bytes.substr(0, 4)) {
    hex += fmt::format("{}{:02x}", hex.empty() ? "" : " ", c);
    text += std::isprint(c) ? static_cast<char>(c) : '.';
  }
  return bytes.empty() ? "an empty file" : fmt::format("a file that begins {} ({})", hex, text);
}

std::string lower_extension(const std::string &path) {
  std::string extension = std::filesystem::path(path).extension().string();
  for (char &c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension;
}

void check_writable(const std::string &path, const Image &image) {
  const std::uint64_t plane = static_cast<std::uint64_t>(image.width) * static_cast<std::uint64_t>(image.height);
  if (image.width < 1 || image.height < 1 || image.channels < 1 || plane > most_pixels ||
      image.pixels.size() != plane * static_cast<std::uint64_t>(image.channels))
    throw Error(fmt::format("{}: expected an image of width * height * channels pixels, got {} for {}x{}x{}", path,
                            image.pixels.size(), image.width, image.height, image.channels));
  const auto nan = std::find_if(image.pixels.begin(), image.pixels.end(), [](float v) { return std::isnan(v); });
  if (nan == image.pixels.end()) return;
  const std::uint64_t index = static_cast<std::uint64_t>(nan - image.pixels.begin());
  throw Error(fmt::format("{}: expected pixels in 0..1, got NaN at channel {}, row {}, column {}", path, index / plane,
                          index % plane / image.width, index % image.width));
}

void check_channels(const std::string &path, const Image &image, bool gray, bool colour) {
  if ((gray && image.channels == 1) || (colour && image.channels == 3)) return;
  throw Error(fmt::format("{}: expected {} channels for this format, got {}", path,
                          gray && colour ? "1 or 3" : (gray ? "1" : "3"), image.channels));
}

}  // namespace

void require_size(const std::string &path, std::uint64_t width, std::uint64_t height, int channels) {
  if (width < 1 || height < 1 || width > most_elements || height > most_elements || width * height > most_pixels ||
      width * height * static_cast<std::uint64_t>(channels) > most_elements)
    throw Error(fmt::format("{}: expected an image of 1 to 2^28 pixels, got {}x{} (width x height) with {} channel{}",
                            path, width, height, channels, channels == 1 ? "" : "s"));
}

Image blank_image(const std::string &path, std::uint64_t width, std::uint64_t height, int channels) {
  require_size(path, width, height, channels);
  Image image{static_cast<int>(width), static_cast<int>(height), channels, {}};
  try {
    image.pixels.resize(width * height * static_cast<std::uint64_t>(channels));
  } catch (const std::bad_alloc &) {
    throw Error(
        fmt::format("{}: not enough memory for an image of {}x{} with {} channels", path, width, height, channels));
  }
  return image;
}

std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(std::lrint(std::clamp(value, 0.0f, 1.0f) * 255.0f));
}

void interleave_row(const Image &image, int y, std::uint8_t *row) {
  const std::size_t width = static_cast<std::size_t>(image.width), channels = static_cast<std::size_t>(image.channels);
  for (std::size_t c = 0; c < channels; c++) {
    const float *from = image.pixels.data() + (c * image.height + y) * width;
    for (std::size_t x = 0; x < width; x++) row[x * channels + c] = to_byte(from[x]);
  }
}

void scatter_row(Image &image, int y, const std::uint8_t *row, int sample_bytes, float largest) {
  const std::size_t width = static_cast<std::size_t>(image.width), channels = static_cast<std::size_t>(image.channels);
  for (std::size_t c = 0; c < channels; c++) {
    float *to = image.pixels.data() + (c * image.height + y) * width;
    for (std::size_t x = 0; x < width; x++) {
      const std::uint8_t *sample = row + (x * channels + c) * sample_bytes;
      to[x] = static_cast<float>(sample_bytes == 1 ? sample[0] : sample[0] * 256 + sample[1]) / largest;
    }
  }
}

Image read_image(const std::string &path) {
  const std::string bytes = read_file(path);
  if (is_png(bytes)) return decode_png(path, bytes);
  if (is_jpeg(bytes)) return decode_jpeg(path, bytes);
  if (is_pnm(bytes)) return decode_pnm(path, bytes);
  throw Error(
      fmt::format("{}: expected a PNG, JPEG, PGM (P2, P5) or PPM (P3, P6) image, got {}", path, first_bytes(bytes)));
}

void write_image(const std::string &path, const Image &image) {
  const std::string extension = lower_extension(path);
  const bool png = extension == ".png", pgm = extension == ".pgm", ppm = extension == ".ppm";
  if (!png && !pgm && !ppm)
    throw Error(fmt::format("{}: expected a file name that ends in .png, .ppm or .pgm, got '{}'", path, extension));
  check_writable(path, image);
  check_channels(path, image, png || pgm, png || ppm);
  write_file(path, png ? encode_png(path, image) : encode_pnm(image));
}

Tensor to_tensor(const Image &image) {
  Tensor tensor(Shape{image.channels, 1, image.height, image.width});
  std::copy(image.pixels.begin(), image.pixels.end(), tensor.data<float>());
  return tensor;
}

Image to_image(const Tensor &tensor) {
  const Shape shape = tensor.shape();
  if (tensor.type() != CONVSMITH_F32 || shape.size() != 4 || (shape[0] != 1 && shape[1] != 1))
    throw Error(fmt::format("image: expected an f32 tensor of shape [C, 1, H, W] or [1, C, H, W], got {} {}",
                            type_name(tensor.type()), shape_text(shape)));
  const int channel_axis = shape[1] == 1 ? 0 : 1;
  const std::int64_t channels = shape[channel_axis], height = shape[2], width = shape[3];
  if (channels < 1 || channels > static_cast<std::int64_t>(most_elements))
    throw Error(fmt::format("image: expected at least one channel, got a tensor of shape {}", shape_text(shape)));
  Image image = blank_image("image", height < 0 ? 0 : width, height, static_cast<int>(channels));
  const Shape strides = tensor.strides();
  float *to = image.pixels.data();
  for (std::int64_t c = 0; c < channels; c++)
    for (std::int64_t y = 0; y < height; y++) {
      const float *row = tensor.data<float>() + c * strides[channel_axis] + y * strides[2];
      for (std::int64_t x = 0; x < width; x++) *to++ = row[x * strides[3]];
    }
  return image;
}

}  // namespace convsmith
