// The command: convsmith SUBCOMMAND …
#include "commands/command.h"
#include "convsmith/error.h"
#include "convsmith/trainer.h"
#include "tools/emit/kernel_job.h"
#include "tools/support/interrupt.h"
#include "tools/verify/certificate.h"
#include <fmt/format.h>
#include <iostream>
#include <new>

namespace convsmith {

extern const char *const version_text;

namespace {

enum Exit { success = 0, check_failed = 1, bad_input = 2, our_fault = 3, interrupted_exit = 130 };

int fail(Exit status, const char *what) {
  std::cerr << "convsmith: " << what << std::endl;
  return status;
}

int run(int argc, char **argv) {
  CLI::App app("convsmith turns a cross-correlation and its extents into ahead-of-time libraries that train and apply kernels.", "convsmith");
  app.set_version_flag("--version", version_text);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Settings settings;
  add_learn(app, settings);
  add_apply(app, settings);
  add_emit(app, settings);
  add_run(app, settings);
  add_verify(app, settings);
  add_list(app, settings);
  add_cache(app, settings);
  try {
    app.parse(argc, argv);
    std::cout.flush();
    if (!std::cout) return fail(bad_input, "standard output: could not be written");
    return success;
  } catch (const CLI::CallForHelp &e) { return app.exit(e);
  } catch (const CLI::CallForAllHelp &e) { return app.exit(e);
  } catch (const CLI::CallForVersion &e) { return app.exit(e);
  } catch (const CLI::ParseError &e) { return fail(bad_input, fmt::format("{}; see convsmith --help", e.what()).c_str());
  } catch (const Interrupted &) { return fail(interrupted_exit, "interrupted");
  } catch (const CheckFailed &e) { return fail(check_failed, e.what());
  } catch (const Diverged &e) { return fail(check_failed, e.what());
  } catch (const Error &e) { return fail(bad_input, e.what());
  } catch (const std::bad_alloc &) { return fail(bad_input, "out of memory");
  } catch (const std::exception &e) { return fail(our_fault, e.what()); }
}

}  // namespace
}  // namespace convsmith

int main(int argc, char **argv) {
  if (argc == 2 && std::string_view(argv[1]) == "kernel-worker") return convsmith::kernel_worker();
  convsmith::install_interrupt_handlers();
  return convsmith::run(argc, argv);
}
