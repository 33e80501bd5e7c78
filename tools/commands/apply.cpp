#include <fmt/format.h>
#include <cmath>
#include <iostream>
#include "command.h"
#include "convsmith/conv.h"
#include "convsmith/error.h"
#include "named_kernels.h"
#include "tools/support/image.h"

namespace convsmith {
namespace {

struct ApplyArguments {
  std::string kernel, in, out;
  bool absolute = false;
};

void apply(const ApplyArguments &a, const Settings &s) {
  require_writable("--output", a.out);
  const Tensor weight = named_kernel(a.kernel);
  require_finite(weight, a.kernel);
  const Image image = read_image(a.in);
  const Tensor x = to_tensor(image);
  const std::int64_t kh = weight.extent(2), kw = weight.extent(3);
  // Same size, the border repeated; the extra element of an even kernel lies behind.
  const Problem p =
      Problem::parse(fmt::format("n={} in={}x{} kernel={}x{} pad={}:{}x{}:{} border=replicate", image.channels,
                                 image.height, image.width, kh, kw, (kh - 1) / 2, kh / 2, (kw - 1) / 2, kw / 2));
  KernelRequest r{kernel_name, parse_passes("forward", p), p, "", {}};
  Conv layer(load_kernel(r, s), kernel_name);
  layer.set_weight(weight);
  Image result = to_image(layer.forward(x));
  if (a.absolute)
    for (float &v : result.pixels) v = std::abs(v);
  write_image(a.out, result);
  if (s.json) print_json({{"problem", p.str()}, {"out", a.out}});
  else if (!s.quiet)
    std::cout << fmt::format("{} applied to {} ({}x{}, {} channel{}) -> {}\n", a.kernel, a.in, image.width,
                             image.height, image.channels, image.channels == 1 ? "" : "s", a.out);
}

}  // namespace

void add_apply(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("apply", "apply a kernel to a picture");
  auto a = std::make_shared<ApplyArguments>();
  sub->add_option("KERNEL", a->kernel, "K.npy, edge-x, edge-y, sharpen, laplacian, gaussian:SIGMA or box:N")
      ->required();
  sub->add_option("IMAGE", a->in, "PNG, JPEG, PPM or PGM; each channel on its own, the border repeated")->required();
  sub->add_option("-o,--output", a->out, ".png, .ppm or .pgm, of the same size; values clamped to 0..1")->required()->check(a_name());
  sub->add_flag("--absolute", a->absolute, "write the magnitude, for kernels of edges");
  add_settings(*sub, s);
  sub->callback([a, &s] { apply(*a, s); });
}

}  // namespace convsmith
