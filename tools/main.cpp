// The command: convsmith SUBCOMMAND …
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <csignal>
#include <iostream>
#include <new>
#include "commands/command.h"
#include "convsmith/error.h"
#include "convsmith/trainer.h"
#include "tools/emit/kernel_job.h"
#include "tools/support/interrupt.h"
#include "tools/tune/contestant.h"
#include "tools/verify/certificate.h"

namespace convsmith {

extern const char *const version_text;

namespace {

enum Exit { success = 0, check_failed = 1, bad_input = 2, our_fault = 3, interrupted_exit = 130 };

// One line, whatever a file's name or a word of the command line holds.
int fail(Exit status, std::string_view what) {
  std::string line;
  for (const char c : what) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') line += "\\n";
    else if (byte < 0x20 || byte == 0x7f) line += fmt::format("\\x{:02x}", byte);
    else line += c;
  }
  std::cerr << "convsmith: " << line << std::endl;
  return status;
}

int finish() {
  std::cout.flush();
  return std::cout ? success : fail(bad_input, "standard output: could not be written");
}

// A word that nobody knows comes first: what else is missing often follows from it.
std::string usage_error(const CLI::App &app, const CLI::ParseError &error) {
  const auto chosen = app.get_subcommands();
  const auto unknown = app.remaining(true);
  const bool missing = dynamic_cast<const CLI::RequiredError *>(&error) != nullptr;
  if (chosen.empty()) {
    if (!unknown.empty() && unknown[0][0] == '-')
      return fmt::format("expected a subcommand or an option of convsmith, got \"{}\"; see convsmith --help",
                         unknown[0]);
    if (!missing && unknown.empty()) return fmt::format("{}; see convsmith --help", error.what());
    std::vector<std::string> names;
    for (const CLI::App *sub : app.get_subcommands([](const CLI::App *) { return true; }))
      names.push_back(sub->get_name());
    return fmt::format("expected a subcommand, one of {}, got {}", fmt::join(names, ", "),
                       unknown.empty() ? "none" : fmt::format("\"{}\"", unknown[0]));
  }
  const std::string name = chosen[0]->get_name();
  std::string what = error.what();
  if (!unknown.empty() && (missing || dynamic_cast<const CLI::ExtrasError *>(&error)))
    what = fmt::format("expected {} {}, got \"{}\"",
                       unknown[0].starts_with("-") ? "an option of" : "no more arguments to", name, unknown[0]);
  return fmt::format("{}; see convsmith {} --help", what, name);
}

int run(int argc, char **argv) {
  CLI::App app(
      "convsmith turns a cross-correlation and its extents into ahead-of-time libraries that train and apply kernels.",
      "convsmith");
  app.set_version_flag("--version", version_text);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Settings settings;
  add_learn(app, settings);
  add_apply(app, settings);
  add_emit(app, settings);
  add_run(app, settings);
  add_verify(app, settings);
  add_bench(app, settings);
  add_tune(app, settings);
  add_explain(app, settings);
  add_list(app, settings);
  add_cache(app, settings);
  try {
    app.parse(argc, argv);
    return finish();
  } catch (const CLI::Success &e) {
    return app.exit(e), finish();  // --help, --version
  } catch (const CLI::ParseError &e) {
    return fail(bad_input, usage_error(app, e));
  } catch (const Interrupted &) {
    return fail(interrupted_exit, "interrupted");
  } catch (const CheckFailed &e) {
    return fail(check_failed, e.what());
  } catch (const Diverged &e) {
    return fail(check_failed, e.what());
  } catch (const Error &e) {
    return fail(bad_input, e.what());
  } catch (const std::bad_alloc &) {
    return fail(bad_input, "out of memory");
  } catch (const std::exception &e) {
    return fail(our_fault, e.what());
  }
}

}  // namespace
}  // namespace convsmith

int main(int argc, char **argv) {
  if (argc == 2 && std::string_view(argv[1]) == "kernel-worker") return convsmith::kernel_worker();
  if (argc == 2 && std::string_view(argv[1]) == "contestant") return convsmith::contestant_worker();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of writing it
  convsmith::install_interrupt_handlers();
  return convsmith::run(argc, argv);
}
