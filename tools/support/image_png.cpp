#include <fmt/format.h>
#include <png.h>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>
#include "convsmith/error.h"
#include "tools/support/image_format.h"

namespace convsmith {
namespace {

// What libpng's callbacks reach.
struct State {
  std::string_view input;
  std::size_t next = 0;
  std::string output;
  char message[256] = "";
};

[[noreturn]] void on_error(png_structp png, png_const_charp words) {
  State *state = static_cast<State *>(png_get_error_ptr(png));
  std::snprintf(state->message, sizeof state->message, "%s", words);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, std::size_t count) {
  State *state = static_cast<State *>(png_get_io_ptr(png));
  if (count > state->input.size() - state->next) png_error(png, "the file ends too early");
  std::memcpy(to, state->input.data() + state->next, count);
  state->next += count;
}

void on_write(png_structp png, png_bytep from, std::size_t count) {
  State *state = static_cast<State *>(png_get_io_ptr(png));
  bool stored = true;
  try {
    state->output.append(reinterpret_cast<const char *>(from), count);
  } catch (const std::bad_alloc &) {
    stored = false;
  }
  if (!stored) png_error(png, "not enough memory");
}

// Runs calls into libpng; false where one of them failed. The jump skips destructors, so `calls` may own nothing.
template<class Calls>
bool succeeds(png_structp png, const Calls &calls) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  calls();
  return true;
}

struct Reader {
  explicit Reader(State &state) : png(png_create_read_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning)) {
    if (png != nullptr) info = png_create_info_struct(png);
    if (info == nullptr) throw std::bad_alloc();
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader &) = delete;
  Reader &operator=(const Reader &) = delete;
  png_structp png;
  png_infop info = nullptr;
};

struct Writer {
  explicit Writer(State &state) : png(png_create_write_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning)) {
    if (png != nullptr) info = png_create_info_struct(png);
    if (info == nullptr) throw std::bad_alloc();
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer &) = delete;
  Writer &operator=(const Writer &) = delete;
  png_structp png;
  png_infop info = nullptr;
};

struct Header {
  std::uint64_t width = 0, height = 0, stored_row_bytes = 0, row_bytes = 0;
  int channels = 0, bit_depth = 0, passes = 1;
};

// Asks libpng for gray or RGB of 8 or 16 bits, whatever the file holds.
bool read_header(const Reader &reader, State &state, Header &header) {
  return succeeds(reader.png, [&] {
    png_set_read_fn(reader.png, &state, on_read);
    png_set_user_limits(reader.png, 0x7fffffff, 0x7fffffff);
    png_read_info(reader.png, reader.info);
    header.width = png_get_image_width(reader.png, reader.info);
    header.height = png_get_image_height(reader.png, reader.info);
    header.stored_row_bytes = png_get_rowbytes(reader.png, reader.info);
    const int colour = png_get_color_type(reader.png, reader.info);
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader.png);
    if (colour == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(reader.png);
    png_set_strip_alpha(reader.png);
    header.passes = png_set_interlace_handling(reader.png);
    png_read_update_info(reader.png, reader.info);
    header.row_bytes = png_get_rowbytes(reader.png, reader.info);
    header.channels = png_get_channels(reader.png, reader.info);
    header.bit_depth = png_get_bit_depth(reader.png, reader.info);
  });
}

}  // namespace

bool is_png(std::string_view bytes) { return bytes.substr(0, 4) == "\x89PNG"; }

Image decode_png(const std::string &path, std::string_view bytes) {
  State state;
  state.input = bytes;
  const Reader reader(state);
  const auto damaged = [&](std::string_view words) {
    return Error(
        fmt::format("{}: expected a whole PNG image, got {} bytes with this fault: {}", path, bytes.size(), words));
  };
  Header header;
  if (!read_header(reader, state, header)) throw damaged(state.message);
  // Deflate makes at most 1032 bytes of one: a header that promises more is refused before memory is taken.
  if (header.stored_row_bytes * header.height / 1032 > bytes.size())
    throw damaged(fmt::format("too short to hold {}x{} pixels", header.width, header.height));
  const int sample_bytes = header.bit_depth / 8;
  if (header.row_bytes != header.width * static_cast<std::uint64_t>(header.channels * sample_bytes))
    throw damaged(fmt::format("{} channels of {} bits", header.channels, header.bit_depth));
  Image image = blank_image(path, header.width, header.height, header.channels);

  // The passes of an interlaced file each refine the whole image; else one row at a time is enough.
  const bool interlaced = header.passes > 1;
  std::vector<std::uint8_t> rows(header.row_bytes * (interlaced ? header.height : 1));
  const bool whole = succeeds(reader.png, [&] {
    for (int pass = 0; pass < header.passes; pass++)
      for (int y = 0; y < image.height; y++) {
        std::uint8_t *row = rows.data() + (interlaced ? header.row_bytes * y : 0);
        png_read_row(reader.png, row, nullptr);
        if (pass == header.passes - 1) scatter_row(image, y, row, sample_bytes, sample_bytes == 1 ? 255.0f : 65535.0f);
      }
    png_read_end(reader.png, nullptr);
  });
  if (!whole) throw damaged(state.message);
  return image;
}

std::string encode_png(const std::string &path, const Image &image) {
  State state;
  const Writer writer(state);
  std::vector<std::uint8_t> row(static_cast<std::size_t>(image.width) * image.channels);
  const bool whole = succeeds(writer.png, [&] {
    png_set_write_fn(writer.png, &state, on_write, nullptr);
    png_set_user_limits(writer.png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(writer.png, writer.info, image.width, image.height, 8,
                 image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(writer.png, writer.info);
    for (int y = 0; y < image.height; y++) {
      interleave_row(image, y, row.data());
      png_write_row(writer.png, row.data());
    }
    png_write_end(writer.png, writer.info);
  });
  if (!whole) throw Error(fmt::format("{}: the PNG image could not be made: {}", path, state.message));
  return std::move(state.output);
}

}  // namespace convsmith
