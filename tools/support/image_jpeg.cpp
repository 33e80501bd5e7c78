#include <fmt/format.h>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include "convsmith/error.h"
#include "tools/support/image_format.h"
// These two need the types of <cstdio> first.
#include <jerror.h>
#include <jpeglib.h>

namespace convsmith {
namespace {

constexpr int most_scans = 500;  // far above any encoder's; a small file of endless scans would keep us for hours

struct Reader {
  Reader() {
    info.err = jpeg_std_error(&errors);
    errors.error_exit = on_error;
    errors.emit_message = on_message;
    errors.output_message = [](j_common_ptr) {};
    progress.progress_monitor = on_progress;
    info.client_data = this;
  }
  ~Reader() { jpeg_destroy_decompress(&info); }
  Reader(const Reader &) = delete;
  Reader &operator=(const Reader &) = delete;

  static Reader &of(j_common_ptr info) { return *static_cast<Reader *>(info->client_data); }

  [[noreturn]] static void on_error(j_common_ptr info) {
    Reader &reader = of(info);
    info->err->format_message(info, reader.message);
    std::longjmp(reader.jump, 1);
  }

  // Where pixels would be guessed libjpeg only warns. Unused bytes and odd but harmless headers pass.
  static void on_message(j_common_ptr info, int level) {
    if (level >= 0) return;
    switch (info->err->msg_code) {
      case JWRN_EXTRANEOUS_DATA:
      case JWRN_ADOBE_XFORM:
      case JWRN_JFIF_MAJOR:
        return;
      default:
        on_error(info);
    }
  }

  static void on_progress(j_common_ptr info) {
    Reader &reader = of(info);
    if (reader.info.input_scan_number <= most_scans) return;
    std::snprintf(reader.message, sizeof reader.message, "more than %d scans", most_scans);
    std::longjmp(reader.jump, 1);
  }

  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = "";
};

// Runs calls into libjpeg; false where one of them failed. The jump skips destructors, so `calls` may own nothing.
template<class Calls>
bool succeeds(Reader &reader, const Calls &calls) {
  if (setjmp(reader.jump) != 0) return false;
  calls();
  return true;
}

const char *name(J_COLOR_SPACE colour) {
  switch (colour) {
    case JCS_CMYK:
      return "CMYK";
    case JCS_YCCK:
      return "YCCK";
    default:
      return "an unknown colour space";
  }
}

}  // namespace

bool is_jpeg(std::string_view bytes) { return bytes.substr(0, 3) == "\xff\xd8\xff"; }

Image decode_jpeg(const std::string &path, std::string_view bytes) {
  Reader reader;
  jpeg_decompress_struct &info = reader.info;
  const auto damaged = [&](std::string_view words) {
    return Error(
        fmt::format("{}: expected a whole JPEG image, got {} bytes with this fault: {}", path, bytes.size(), words));
  };
  const bool headed = succeeds(reader, [&] {
    jpeg_create_decompress(&info);
    info.progress = &reader.progress;
    jpeg_mem_src(&info, reinterpret_cast<const unsigned char *>(bytes.data()), bytes.size());
    jpeg_read_header(&info, TRUE);
  });
  if (!headed) throw damaged(reader.message);

  const J_COLOR_SPACE stored = info.jpeg_color_space;
  const bool gray = stored == JCS_GRAYSCALE;
  if (!gray && stored != JCS_YCbCr && stored != JCS_RGB)
    throw Error(fmt::format("{}: expected a gray or RGB JPEG image, got {} with {} channels", path, name(stored),
                            info.num_components));
  info.out_color_space = gray ? JCS_GRAYSCALE : JCS_RGB;
  // A Huffman code takes a bit at least, and one component has a quarter of the image's 8x8 blocks or more: a header
  // that promises more than 2048 pixels a byte is refused before memory is taken.
  if (!info.arith_code && std::uint64_t{info.image_width} * info.image_height / 2048 > bytes.size())
    throw damaged(fmt::format("too short to hold {}x{} pixels", info.image_width, info.image_height));
  Image image = blank_image(path, info.image_width, info.image_height, gray ? 1 : 3);

  std::vector<std::uint8_t> row(static_cast<std::size_t>(image.width) * image.channels);
  const bool whole = succeeds(reader, [&] {
    jpeg_start_decompress(&info);
    for (int y = 0; y < image.height; y++) {
      JSAMPROW rows[] = {row.data()};
      jpeg_read_scanlines(&info, rows, 1);
      scatter_row(image, y, row.data(), 1, 255.0f);
    }
    jpeg_finish_decompress(&info);
  });
  if (!whole) throw damaged(reader.message);
  return image;
}

}  // namespace convsmith
