// The file formats behind image.h, one a source file. `path` is for messages; `bytes` is the whole file.
#pragma once
#include <cstdint>
#include <string_view>
#include "tools/support/image.h"

namespace convsmith {

bool is_png(std::string_view bytes);
Image decode_png(const std::string &path, std::string_view bytes);
std::string encode_png(const std::string &path, const Image &image);

bool is_jpeg(std::string_view bytes);
Image decode_jpeg(const std::string &path, std::string_view bytes);

bool is_pnm(std::string_view bytes);
Image decode_pnm(const std::string &path, std::string_view bytes);
/// PGM for one channel, PPM for three.
std::string encode_pnm(const Image &image);

/// Throws Error for more than 2^28 pixels or 2^31-1 elements.
void require_size(const std::string &path, std::uint64_t width, std::uint64_t height, int channels);
/// An image of zeros. Errors: as require_size, or where memory runs out.
Image blank_image(const std::string &path, std::uint64_t width, std::uint64_t height, int channels);
/// 255 * value clamped to 0..1, rounded to the nearest, halves to even.
std::uint8_t to_byte(float value);
/// Row y with the channels of a pixel side by side; `row` holds width * channels bytes.
void interleave_row(const Image &image, int y, std::uint8_t *row);
/// The reverse, from samples of 1 byte, or of 2 with the high one first; `largest` stands for 1.
void scatter_row(Image &image, int y, const std::uint8_t *row, int sample_bytes, float largest);

}  // namespace convsmith
