// From problems to one archive: libLIB.a, LIB.h, LIB.c and the manifest LIB.json.
#pragma once
#include "convsmith/problem.h"
#include "generators/pass.h"
#include "kernel_job.h"
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace convsmith {

/// One line of a spec file: NAME : PASSES : PROBLEM.
struct KernelRequest {
  std::string name;
  std::vector<PassKind> passes;
  Problem problem;
  std::string weight;                      // .npy of constant weights, or empty
  std::map<PassKind, Candidate> schedule;  // what to use instead of the records and rules
};

struct EmitOptions {
  std::string name = "kernels", folder = ".";
  std::string targets = "host";
  std::string tune_for;  // a CPU; empty: this machine's where the target is its own, else "*"
  std::string records;   // folder; empty: the built-in ones
  std::string cc = "cc", layer_level = "-O2";  // and how well it optimises the C layer
  bool verify = true;        // run the certificate where this machine can
  bool one_child = false;    // compile all in one child, with assertions into one object: quicker, but the bytes depend on the order
  bool assertions = false;   // keep the generated assertions in every kernel
  CompileLimits limits = {};
  std::function<void(int done, int all, const std::string &what)> progress;
};

/// Reads a spec file. Throws Error with FILE:LINE for a line that is no kernel, or a name given twice.
std::vector<KernelRequest> read_spec(const std::string &path);
/// "forward,weight_gradient" or "all"; the packing that a pass needs is added.
std::vector<PassKind> parse_passes(std::string_view text, const Problem &);

/// Writes the four files, each whole or not at all, and returns the manifest. Throws Error for bad input, a compiler
/// that is not there or a folder that cannot be written; InternalError where a compiler died.
nlohmann::json emit_library(const std::vector<KernelRequest> &, const EmitOptions &);

/// Their names, of a library called so.
std::vector<std::string> emitted_files(const std::string &name);

/// Links an emitted archive into a shared object that exports what its header declares.
void link_shared(const std::string &cc, const std::string &archive, const std::string &to);

/// A library of these kernels for this machine, from the cache or made now: the path of its shared object.
std::string cached_library(const std::vector<KernelRequest> &, const EmitOptions &);

/// The CPU that records name: the model in a word or two, "zen4" or "sapphirerapids", as the compiler calls it.
std::string this_cpu();

}  // namespace convsmith
