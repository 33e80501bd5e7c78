// The subcommands: one file each, all with this shape.
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include "convsmith/error.h"
#include "convsmith/library.h"
#include "tools/emit/library.h"

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
/// Of those only --quiet, --target and --cc.
void add_build_settings(CLI::App &, Settings &);

// Each adds its subcommand; it runs when the command line names it and throws where it fails.
void add_learn(CLI::App &, Settings &);
void add_apply(CLI::App &, Settings &);
void add_emit(CLI::App &, Settings &);
void add_run(CLI::App &, Settings &);
void add_verify(CLI::App &, Settings &);
void add_bench(CLI::App &, Settings &);
void add_tune(CLI::App &, Settings &);
void add_explain(CLI::App &, Settings &);
void add_list(CLI::App &, Settings &);
void add_cache(CLI::App &, Settings &);

/// The kernels of a spec file, or one called "kernel" of a problem text with these passes.
std::vector<KernelRequest> requests_of(const std::string &problem_or_spec, const std::string &passes);
/// Whether that is a spec file: where there is one, or no key=value.
bool is_spec(const std::string &problem_or_spec);

/// Of these kernels, which come from `source`, those whose names hold a text, with their passes out of "all" or a list.
/// Throws Error where none is left, or an extent is not known.
std::vector<KernelRequest> selected(std::vector<KernelRequest>, const std::string &source, const std::string &only, const std::string &passes);
Error none_selected(const std::string &source, const std::string &only, const std::string &passes);

/// Emits (or finds in the cache) and loads one kernel for this machine at the level asked for. Throws Error where this
/// machine cannot run it.
Library load_kernel(const KernelRequest &, const Settings &);
/// The kernel of load_kernel.
inline constexpr const char *kernel_name = "kernel";

/// Results for a machine, on standard output.
void print_json(const nlohmann::json &);
/// The text of `print_json`; bytes of a file's name that are no UTF-8 become U+FFFD.
std::string json_text(const nlohmann::json &);

/// Of an option's text: from low to high; at least low, and finite; one of the words. Messages say what was expected
/// and what came.
CLI::Validator whole_number(std::uint64_t low, std::uint64_t high);
CLI::Validator number_from(double low);
CLI::Validator one_of(std::vector<std::string> words);
/// Of a file's or a folder's name: that it is not empty, as an unset variable of a shell is.
CLI::Validator a_name(const std::string &of = "a name");

/// "copied_bytes" to and from the GPU, where a library runs on one.
void note_copies(nlohmann::json &, const Library &);

/// "1,2": numbers from 1 to `most`, separated by commas. Throws Error that begins with the option.
std::vector<std::int64_t> numbers_of(const std::string &option, const std::string &list, std::int64_t most);
/// One thread, and as many as there are processors.
std::string default_thread_counts();

/// --json and --html of a subcommand that measures. With --json - the report goes to standard output, and nothing else does.
struct ReportFiles {
  std::string json, html;
  void add_to(CLI::App &);
  /// Before the work: whether they can be written, and are none of the inputs, a file for each option that names one.
  void check(Settings &, const std::map<std::string, std::string> &inputs) const;
  void write(const nlohmann::json &report, std::string (*page)(const nlohmann::json &)) const;
};

/// Throws Error where a file cannot be made there: to say it before the work, not after. An empty name is none.
void require_writable(const std::string &option, const std::string &file);
/// Two files that must not be one: throws Error that names both options.
void refuse_same_file(const std::string &option, const std::string &file, const std::string &other_option,
                      const std::string &other_file);

/// Throws Error where a tensor read from `source` holds a NaN or an infinity.
void require_finite(const Tensor &, const std::string &source);
/// The tensor with axes of 1 put before its own, as `shape` has them. Throws Error, beginning with `source`, where that
/// does not make them equal.
Tensor with_leading_ones(const Tensor &, const Shape &shape, const std::string &source);
/// "6x8", and a word for what has no axes.
std::string shape_of(const Tensor &);
/// Numbers of a small matrix or list, in columns.
std::string matrix_text(const std::vector<double> &values, std::int64_t columns);

}  // namespace convsmith
