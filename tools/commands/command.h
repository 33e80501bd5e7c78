// The subcommands: one file each, all with this shape.
#pragma once
#include "convsmith/library.h"
#include "tools/emit/library.h"
#include <CLI/CLI.hpp>
#include <string>

namespace convsmith {

/// What every subcommand takes.
struct Settings {
  bool json = false;   // machine-readable results on standard output
  bool quiet = false;  // no progress bars, no prose
  std::string target = "host";
  int threads = 0;  // 0: one a processor
  std::string cc = "cc";
};

void add_settings(CLI::App &, Settings &);

// Each adds its subcommand; it runs when the command line names it and throws where it fails.
void add_learn(CLI::App &, Settings &);
void add_apply(CLI::App &, Settings &);
void add_emit(CLI::App &, Settings &);
void add_run(CLI::App &, Settings &);
void add_verify(CLI::App &, Settings &);
void add_list(CLI::App &, Settings &);
void add_cache(CLI::App &, Settings &);

/// Emits (or finds in the cache) and loads one kernel for this machine at the level asked for. Throws Error where this
/// machine cannot run it.
Library load_kernel(const KernelRequest &, const Settings &);
/// The kernel of load_kernel.
inline constexpr const char *kernel_name = "kernel";

/// Two files that must not be one: throws Error that names both options.
void refuse_same_file(const std::string &option, const std::string &file, const std::string &other_option, const std::string &other_file);

/// Throws Error where a tensor read from `source` holds a NaN or an infinity.
void require_finite(const Tensor &, const std::string &source);
/// Numbers of a small matrix or list, in columns.
std::string matrix_text(const std::vector<double> &values, std::int64_t columns);

}  // namespace convsmith
