#include "tools/support/cache.h"
#include <fmt/format.h>
#include <iostream>
#include "command.h"

namespace convsmith {

void add_cache(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("cache", "show or clear the cache of compiled kernels");
  auto clear = std::make_shared<bool>(false);
  sub->add_flag("--clear", *clear, "remove every entry");
  add_settings(*sub, s);
  sub->callback([clear, &s] {
    Cache cache = Cache::of_user();
    if (*clear) cache.clear();
    const auto entries = cache.entries();
    if (s.json)
      print_json({{"folder", cache.folder().string()},
                  {"entries", entries.size()},
                  {"bytes", cache.size()},
                  {"limit", cache.limit()}});
    else if (!s.quiet)
      std::cout << fmt::format("{}: {} entries, {:.1f} MiB of at most {:.0f}\n", cache.folder().string(),
                               entries.size(), double(cache.size()) / (1 << 20), double(cache.limit()) / (1 << 20));
  });
}

}  // namespace convsmith
