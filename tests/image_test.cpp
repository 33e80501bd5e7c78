#include "tools/support/image.h"
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include "convsmith/error.h"
#include "convsmith/file.h"
// The C headers below need <cstdio> first.
#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

namespace convsmith {
namespace {

using Bytes = std::vector<std::uint8_t>;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "image_test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string &name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

struct PngLayout {
  int width = 0, height = 0, bit_depth = 8, colour = PNG_COLOR_TYPE_RGB;
  bool interlaced = false;
  std::vector<png_color> palette = {};
  Bytes transparent = {};  // the alpha of each entry of the palette
};

// Rows as the file stores them: packed below 8 bits, high byte first above.
std::string png(const PngLayout &layout, const Bytes &rows) {
  std::string out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &out,
      [](png_structp p, png_bytep bytes, std::size_t count) {
        static_cast<std::string *>(png_get_io_ptr(p))->append(reinterpret_cast<char *>(bytes), count);
      },
      nullptr);
  png_set_IHDR(png, info, layout.width, layout.height, layout.bit_depth, layout.colour,
               layout.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  if (!layout.palette.empty()) png_set_PLTE(png, info, layout.palette.data(), static_cast<int>(layout.palette.size()));
  if (!layout.transparent.empty())
    png_set_tRNS(png, info, layout.transparent.data(), static_cast<int>(layout.transparent.size()), nullptr);
  png_write_info(png, info);
  const std::size_t row_bytes = png_get_rowbytes(png, info);
  EXPECT_EQ(rows.size(), row_bytes * layout.height);
  std::vector<png_bytep> pointers;
  for (int y = 0; y < layout.height; y++) pointers.push_back(const_cast<png_bytep>(rows.data() + y * row_bytes));
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return out;
}

std::string jpeg(int width, int height, int channels, J_COLOR_SPACE colour, const Bytes &samples,
                 bool progressive = false) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char *out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &out, &size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = channels;
  info.in_color_space = colour;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  if (progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < height; y++) {
    JSAMPROW row[] = {const_cast<JSAMPROW>(samples.data() + static_cast<std::size_t>(y) * width * channels)};
    jpeg_write_scanlines(&info, row, 1);
  }
  jpeg_finish_compress(&info);
  const std::string bytes(reinterpret_cast<char *>(out), size);
  jpeg_destroy_compress(&info);
  std::free(out);
  return bytes;
}

Image read_bytes(std::string_view bytes) {
  const TemporaryFolder folder;
  std::ofstream(folder.file("image"), std::ios::binary) << bytes;
  return read_image(folder.file("image"));
}

// The message, or "" where the file was read.
std::string refusal(std::string_view bytes) {
  try {
    const Image image = read_bytes(bytes);
    EXPECT_EQ(image.pixels.size(), static_cast<std::size_t>(image.width) * image.height * image.channels);
    return "";
  } catch (const Error &error) {
    return error.what();
  }
}

void expect_refused(std::string_view bytes, const std::string &words) {
  const std::string message = refusal(bytes);
  EXPECT_NE(message.find(words), std::string::npos) << message;
  EXPECT_NE(message.find("image_test-"), std::string::npos) << "no path in: " << message;
}

std::vector<float> over(float largest, const std::vector<int> &samples) {
  std::vector<float> result;
  for (const int sample : samples) result.push_back(static_cast<float>(sample) / largest);
  return result;
}

Bytes noise(std::size_t count) {
  std::mt19937 random(1);
  Bytes bytes(count);
  for (auto &byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

std::string small_png() { return png({.width = 5, .height = 4}, noise(60)); }
std::string small_jpeg(bool progressive) { return jpeg(9, 10, 3, JCS_RGB, noise(270), progressive); }
const std::string small_ppm = "P6\n# a comment\n3 2\n255\nabcdefghijklmnopqr";
const std::string small_text_ppm = "P3 2 2 # size\n9\n1 2 3  4 5 6\n7 8 9  0 1 2\n";

TEST(Image, ReadsRgbPng) {
  const Image image = read_bytes(png({.width = 2, .height = 1}, {0, 51, 255, 102, 153, 204}));
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(image.height, 1);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels, over(255, {0, 102, 51, 153, 255, 204}));
}

TEST(Image, ReadsGrayPngOfEveryDepth) {
  EXPECT_EQ(read_bytes(png({3, 1, 1, PNG_COLOR_TYPE_GRAY}, {0b10100000})).pixels, over(1, {1, 0, 1}));
  EXPECT_EQ(read_bytes(png({3, 1, 2, PNG_COLOR_TYPE_GRAY}, {0b11011000})).pixels, over(3, {3, 1, 2}));
  EXPECT_EQ(read_bytes(png({3, 1, 4, PNG_COLOR_TYPE_GRAY}, {0x0f, 0x70})).pixels, over(15, {0, 15, 7}));
  EXPECT_EQ(read_bytes(png({3, 1, 8, PNG_COLOR_TYPE_GRAY}, {0, 128, 255})).pixels, over(255, {0, 128, 255}));
  EXPECT_EQ(read_bytes(png({2, 1, 16, PNG_COLOR_TYPE_GRAY}, {0x12, 0x34, 0xff, 0xff})).pixels,
            over(65535, {0x1234, 65535}));
}

TEST(Image, DropsAlphaAndKeepsTheStoredColours) {
  const Image rgba = read_bytes(png({1, 2, 8, PNG_COLOR_TYPE_RGBA}, {10, 20, 30, 0, 40, 50, 60, 128}));
  EXPECT_EQ(rgba.channels, 3);
  EXPECT_EQ(rgba.pixels, over(255, {10, 40, 20, 50, 30, 60}));
  const Image gray = read_bytes(png({2, 1, 16, PNG_COLOR_TYPE_GRAY_ALPHA}, {1, 2, 0, 0, 3, 4, 9, 9}));
  EXPECT_EQ(gray.channels, 1);
  EXPECT_EQ(gray.pixels, over(65535, {0x102, 0x304}));
}

TEST(Image, ReadsPalettePng) {
  PngLayout layout{.width = 3, .height = 1, .bit_depth = 2, .colour = PNG_COLOR_TYPE_PALETTE};
  layout.palette = {{1, 2, 3}, {40, 50, 60}, {255, 254, 253}};
  const std::vector<float> expected = over(255, {255, 1, 40, 254, 2, 50, 253, 3, 60});
  EXPECT_EQ(read_bytes(png(layout, {0b10000100})).pixels, expected);
  layout.transparent = {0, 128};
  const Image image = read_bytes(png(layout, {0b10000100}));
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels, expected);
}

TEST(Image, ReadsInterlacedPng) {
  PngLayout layout{.width = 13, .height = 11};
  const Bytes rows = noise(13 * 11 * 3);
  const Image plain = read_bytes(png(layout, rows));
  layout.interlaced = true;
  EXPECT_EQ(read_bytes(png(layout, rows)).pixels, plain.pixels);
  EXPECT_EQ(plain.pixels[(2 * 11 + 7) * 13 + 5], rows[(7 * 13 + 5) * 3 + 2] / 255.0f);
}

TEST(Image, ReadsJpeg) {
  Bytes smooth;
  for (int y = 0; y < 24; y++)
    for (int x = 0; x < 17; x++)
      for (const int value : {10 * x, 9 * y, 100}) smooth.push_back(static_cast<std::uint8_t>(value));
  for (const bool progressive : {false, true}) {
    const Image image = read_bytes(jpeg(17, 24, 3, JCS_RGB, smooth, progressive));
    ASSERT_EQ(image.channels, 3);
    ASSERT_EQ(image.width, 17);
    ASSERT_EQ(image.height, 24);
    for (int c = 0; c < 3; c++)
      for (int i = 0; i < 17 * 24; i++) ASSERT_NEAR(image.pixels[c * 17 * 24 + i], smooth[i * 3 + c] / 255.0f, 0.08f);
  }
  const Image gray = read_bytes(jpeg(16, 16, 1, JCS_GRAYSCALE, Bytes(256, 77)));
  ASSERT_EQ(gray.channels, 1);
  for (const float pixel : gray.pixels) EXPECT_NEAR(pixel, 77 / 255.0f, 0.005f);
}

TEST(Image, RefusesCmykJpeg) {
  expect_refused(jpeg(8, 8, 4, JCS_CMYK, Bytes(256, 7)), "expected a gray or RGB JPEG image, got CMYK with 4 channels");
}

TEST(Image, ReadsPnm) {
  const Image gray = read_bytes("P2\n#c\n3 1\n#d\n10\n0 5\n10\n");
  EXPECT_EQ(gray.channels, 1);
  EXPECT_EQ(gray.pixels, over(10, {0, 5, 10}));
  EXPECT_EQ(read_bytes(small_text_ppm).pixels, over(9, {1, 4, 7, 0, 2, 5, 8, 1, 3, 6, 9, 2}));
  EXPECT_EQ(read_bytes(std::string("P5 2 1 65535\n\x01\x02\xff\xff", 17)).pixels, over(65535, {0x102, 65535}));
  EXPECT_EQ(read_bytes(std::string("P6 1 1 300 \x00\x03\x01\x2c\x00\x00", 17)).pixels, over(300, {3, 300, 0}));
}

TEST(Image, RefusalsSayWhatWasExpectedAndWhatCame) {
  expect_refused("", "expected a PNG, JPEG, PGM (P2, P5) or PPM (P3, P6) image, got an empty file");
  expect_refused("GIF89a", "got a file that begins 47 49 46 38 (GIF8)");
  expect_refused("P2 3 x 9", "expected a height from 1 to 2147483647 at byte 5, got 'x'");
  expect_refused("P2 3 0 9", "expected a height from 1 to 2147483647 at byte 5, got '0'");
  expect_refused("P2 3 1 70000 1", "expected a largest sample from 1 to 65535 at byte 7, got '70000'");
  expect_refused("P2 3 1", "expected a largest sample from 1 to 65535 at byte 6, got the end of the file");
  expect_refused("P2 2 1 9 1 10", "expected a sample from 0 to 9 at byte 11, got '10'");
  expect_refused("P2 2 1 9 1 2 3", "expected the end of the file at byte 13, got '3'");
  expect_refused("P5 2 2 255 abc", "expected 4 1-byte samples for 2x2 pixels, got 3 bytes after the header");
  expect_refused("P5 2 2 255 abcde", "expected 4 1-byte samples for 2x2 pixels, got 5 bytes");
  expect_refused("P5 2 1 100 az", "expected samples from 0 to 100, got 122");
  expect_refused("P5 2147483647 2147483647 255 abc", "expected an image of 1 to 2^28 pixels");
  expect_refused(small_png().substr(0, 60), "expected a whole PNG image, got 60 bytes with this fault: ");
  expect_refused(small_jpeg(false).substr(0, 300), "expected a whole JPEG image, got 300 bytes with this fault: ");
  EXPECT_THROW(read_image("/no/such/file.png"), Error);
  EXPECT_THROW(read_image("/tmp"), Error);
}

// A few hundred bytes must not take gigabytes, whatever their header promises.
TEST(Image, RefusesDecompressionBombs) {
  std::string wide = png({.width = 16000, .height = 1}, Bytes(48000, 0));
  const std::string header("IHDR\0\0\x3e\x80\0\0\x3e\x80\x08\x02\0\0\0", 17);
  wide.replace(12, 17, header);
  const unsigned long crc = crc32(0, reinterpret_cast<const Bytef *>(header.data()), 17);
  for (int i = 0; i < 4; i++) wide[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  expect_refused(wide, "too short to hold 16000x16000 pixels");

  std::string tall = jpeg(8, 8, 1, JCS_GRAYSCALE, Bytes(64, 0));
  const std::size_t frame = tall.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  tall.replace(frame + 5, 4, "\x3e\x80\x3e\x80");
  expect_refused(tall, "too short to hold 16000x16000 pixels");
  tall.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
  tall.resize(3 << 20);
  expect_refused(tall, "expected an image of 1 to 2^28 pixels, got 65500x65500");
}

TEST(Image, EveryTruncationIsReadOrRefusedInOneLine) {
  for (const std::string &whole : {small_png(), small_jpeg(false), small_jpeg(true), small_ppm, small_text_ppm}) {
    ASSERT_EQ(refusal(whole), "");
    for (std::size_t size = 0; size < whole.size(); size++) {
      const std::string message = refusal(whole.substr(0, size));
      EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0) << message;
      // Only the white space after the last number can be missing unnoticed.
      const bool complete = whole == small_text_ppm && size + 1 == whole.size();
      EXPECT_EQ(message.empty(), complete) << whole.substr(0, 2) << " cut to " << size << " bytes: " << message;
    }
  }
}

TEST(Image, EveryFlippedByteIsReadOrRefusedInOneLine) {
  const unsigned seed = 20;
  std::mt19937 random(seed);
  testing::internal::CaptureStderr();
  for (const std::string &whole : {small_png(), small_jpeg(false), small_jpeg(true), small_ppm, small_text_ppm})
    for (int i = 0; i < 500; i++) {
      std::string damaged = whole;
      const std::size_t at = random() % damaged.size();
      const unsigned flip = 1 + random() % 255;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      const std::string message = refusal(damaged);
      EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](unsigned char c) { return c >= ' '; }))
          << "seed " << seed << ", byte " << at << " with " << flip << ": " << message;
    }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Image, WritesAndReadsBackTheSamePixels) {
  const TemporaryFolder folder;
  std::mt19937 random(2);
  for (const auto &[name, channels] : {std::pair{"a.png", 1}, {"b.png", 3}, {"c.PGM", 1}, {"d.ppm", 3}}) {
    Image image{7, 5, channels, {}};
    for (int i = 0; i < 35 * channels; i++) image.pixels.push_back(static_cast<float>(random() % 256) / 255.0f);
    write_image(folder.file(name), image);
    const Image back = read_image(folder.file(name));
    EXPECT_EQ(back.width, 7) << name;
    EXPECT_EQ(back.height, 5) << name;
    EXPECT_EQ(back.channels, channels) << name;
    EXPECT_EQ(back.pixels, image.pixels) << name;
  }
}

TEST(Image, WritesClampedAndRoundedToTheNearest) {
  const TemporaryFolder folder;
  const float infinity = std::numeric_limits<float>::infinity();
  const Image image{8, 1, 1, {-1, 2, -infinity, infinity, 0.5f, 1.5f / 255, 2.4f / 255, 2.6f / 255}};
  write_image(folder.file("a.pgm"), image);
  EXPECT_EQ(read_file(folder.file("a.pgm")), std::string("P5\n8 1\n255\n\x00\xff\x00\xff\x80\x02\x02\x03", 19));
}

TEST(Image, RefusesToWriteWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string &name, const Image &image) -> std::string {
    try {
      write_image(folder.file(name), image);
      return "";
    } catch (const Error &error) {
      return error.what();
    }
  };
  const Image two{1, 1, 2, {0, 0}}, three{1, 1, 3, {0, 0, 0}};
  EXPECT_NE(message("a.jpg", three).find("expected a file name that ends in .png, .ppm or .pgm, got '.jpg'"),
            std::string::npos);
  EXPECT_NE(message("a.png", two).find("expected 1 or 3 channels for this format, got 2"), std::string::npos);
  EXPECT_NE(message("a.pgm", three).find("expected 1 channels for this format, got 3"), std::string::npos);
  EXPECT_NE(message("a.png", {2, 1, 1, {0, NAN}}).find("got NaN at channel 0, row 0, column 1"), std::string::npos);
  EXPECT_NE(message("a.png", {2, 1, 1, {0}}).find("got 1 for 2x1x1"), std::string::npos);
  EXPECT_NE(message("no/folder/a.png", three), "");
  EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(folder.file("x")).parent_path()));
}

TEST(Image, TensorsHaveChannelsAsBatchSamples) {
  Image image{3, 2, 2, {}};
  for (int i = 0; i < 12; i++) image.pixels.push_back(static_cast<float>(i));
  const Tensor tensor = to_tensor(image);
  EXPECT_EQ(tensor.shape(), (Shape{2, 1, 2, 3}));
  EXPECT_EQ(tensor.at({1, 0, 1, 2}), 11);
  EXPECT_EQ(to_image(tensor).pixels, image.pixels);
  // [1, C, H, W], and H and W exchanged in memory.
  EXPECT_EQ(to_image(tensor.permuted({1, 0, 2, 3})).pixels, image.pixels);
  const Image turned = to_image(tensor.permuted({0, 1, 3, 2}));
  EXPECT_EQ(turned.width, 2);
  EXPECT_EQ(turned.pixels, (std::vector<float>{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}));
}

TEST(Image, RefusesTensorsThatAreNoImage) {
  for (const Shape &shape :
       {Shape{2, 3}, Shape{2, 2, 4, 4}, Shape{0, 1, 4, 4}, Shape{1, 1, 0, 4}, Shape{1, 3, 4, 4, 4}})
    EXPECT_THROW(to_image(Tensor(shape)), Error) << shape_text(shape);
  EXPECT_THROW(to_image(Tensor({1, 1, 2, 2}, CONVSMITH_U8)), Error);
}

}  // namespace
}  // namespace convsmith
