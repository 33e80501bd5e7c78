// One kernel to compile: what to make, and what came of it. The compiler runs in a fresh child process a kernel, so
// that the same problem gives the same bytes whoever asks, and a compiler crash is an error message.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>
#include "tools/support/internal_error.h"

namespace convsmith {

struct KernelJob {
  std::string problem, pass;
  std::string target;                // a level name
  std::string cpu;                   // tuned for: a CPU's name, or "*"
  std::string records;               // folder; empty: the built-in ones
  std::string schedule, knobs;       // empty: chosen by record or rule; "presets": by rule
  int panel = 0, quad = 0;           // for pack_weight: what the pass it packs for was given
  std::string weight;                // .npy in the order of files, made a constant; empty: an argument
  std::string function;              // symbol
  std::string object;                // file to write; jobs of a request that name the same are in it together
  std::string assembly, loop_nest;   // files to write, or empty
  bool assertions = false;           // keep the generated assertions where they could be left out
};

struct KernelArgument {
  struct Dim {
    int axis, extent, multiple, interleaved;
  };
  std::string name, type;                    // type as in "f32"
  std::vector<std::int64_t> shape, strides;  // logical; strides as `init` gives them
  std::vector<int> memory;                   // logical axes, innermost first
  std::vector<int> sizes;                    // of each axis the Size that is known only when run, or -1
  int fixed = 0;                             // of `memory`, how many strides may not differ
  std::vector<Dim> dims;
};

/// A kernel that is started on a device: -1 for what is known only when run.
struct KernelLaunch {
  std::string kernel;
  int threads = 0, shared_bytes = 0;  // of a block
};

struct KernelResult {
  std::string schedule, knobs, why;
  int version = 0, panel = 0, quad = 0;
  std::vector<int> sizes;  // the Sizes that the function takes as numbers
  std::vector<KernelArgument> arguments;
  int outputs = 1;
  std::string serial_bytes = "0", task_bytes = "0";  // of workspace, once and a thread: in C, of sizes s[Size]
  std::int64_t object_bytes = 0;  // of the first job of an object
  std::vector<KernelLaunch> launches;  // on a device
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelJob, problem, pass, target, cpu, records, schedule, knobs, panel, quad, weight,
                                   function, object, assembly, loop_nest, assertions)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelArgument::Dim, axis, extent, multiple, interleaved)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelArgument, name, type, shape, strides, memory, sizes, fixed, dims)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelLaunch, kernel, threads, shared_bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelResult, schedule, knobs, why, version, panel, quad, sizes, arguments, outputs,
                                   serial_bytes, task_bytes, object_bytes, launches)

/// A schedule with one setting of its knobs, to be tried.
struct Candidate {
  std::string schedule, knobs;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Candidate, schedule, knobs)
/// "NAME knob=…": the first word, and the others; or "presets".
Candidate candidate_of(const std::string &text);

/// What a child process may use; 0: no limit.
struct CompileLimits {
  double seconds = 600;  // a kernel of the largest tile takes seconds; ten minutes is a compiler that hangs
  std::size_t memory = 0;
};

/// What would be chosen for a job by record or rule, without compiling it.
struct KernelChoice {
  std::string schedule, knobs, why;
  int version = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelChoice, schedule, knobs, why, version)

/// The child's side: reads a request from standard input, writes the answer to standard output. Never returns an
/// exception; the exit status is 0, 2 (bad input) or 3 (a fault of the compiler or ours), with one line on stderr.
int kernel_worker();

/// The parent's side. Throw Error with the child's own line where it failed on the input, InternalError where it died.
KernelResult compile_kernel(const KernelJob &, const CompileLimits & = {});
std::vector<KernelResult> compile_kernels_in_one_child(const std::vector<KernelJob> &, const CompileLimits & = {});
/// Asks a child of this program, `about` being how its failures begin.
nlohmann::json ask_worker(const nlohmann::json &request, const std::string &about, const CompileLimits & = {});
KernelChoice kernel_choice(const KernelJob &);
void compile_runtime(const std::string &target, const std::string &object);
/// For each pass, every schedule that supports it, at its presets and, where `extremes`, at each knob's ends.
std::vector<std::vector<Candidate>> candidates(const std::string &problem, const std::vector<std::string> &passes,
                                               const std::string &target, bool extremes);

}  // namespace convsmith
