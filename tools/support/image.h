// Images as planar floats: read from PNG, JPEG, PPM and PGM files, written as PNG, PPM and PGM.
#pragma once
#include <string>
#include <vector>
#include "convsmith/tensor.h"

namespace convsmith {

/// pixels[(c * height + y) * width + x], in 0..1: the file's sample over its largest, with no gamma applied.
struct Image {
  int width = 0, height = 0, channels = 0;
  std::vector<float> pixels;
};

/// Reads a PNG, a JPEG (8 bits), a PGM (P2, P5) or a PPM (P3, P6), told apart by content: 1 channel (gray) or 3 (R, G,
/// B). Palettes become RGB. Alpha and transparency are dropped: colours are taken as stored, neither blended nor
/// multiplied. An EXIF rotation is not applied. Errors: Error, in one line with the path, for a file of another kind,
/// one that is damaged or incomplete (pixels are never guessed), or one of more than 2^28 pixels.
Image read_image(const std::string &path);

/// Writes 8 bits a sample, the whole file or nothing: .png (1 or 3 channels), .pgm (1) or .ppm (3), by the extension.
/// sample = 255 * value clamped to 0..1, rounded to the nearest, halves to even.
/// Errors: Error for another extension, channels that the format lacks, a NaN, or a failed write.
void write_image(const std::string &path, const Image &image);

/// [channels, 1, height, width]: each channel is one sample of the batch.
Tensor to_tensor(const Image &image);
/// From [C, 1, H, W] or [1, C, H, W], f32, with any strides: C becomes the channels. Errors: Error for another shape.
Image to_image(const Tensor &tensor);

}  // namespace convsmith
