// The C side of an emitted library: its header, and the layer between a caller's descriptors and the kernels.
#pragma once
#include "kernel_job.h"
#include <string>
#include <vector>

namespace convsmith {

struct EmittedPass {
  std::string kernel, pass, problem;
  std::vector<KernelResult> levels;  // one a level, in the library's order; they agree on the arguments
};

struct EmittedLibrary {
  std::string name;
  std::vector<std::string> levels;  // names, best first
  std::vector<EmittedPass> passes;
};

/// LIB_KERNEL_PASS
std::string function_name(const EmittedLibrary &, const EmittedPass &);
/// The symbol of one level's kernel.
std::string kernel_symbol(const std::string &function, size_t level);
/// Every symbol that the archive shows.
std::vector<std::string> public_symbols(const EmittedLibrary &);
std::string c_header(const EmittedLibrary &);
std::string c_source(const EmittedLibrary &);

}  // namespace convsmith
