// What NVIDIA's assembler makes of a kernel's PTX, where it is installed: registers, spills, and how many blocks fit.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace convsmith {

struct PtxKernel {
  std::string name;
  int registers = 0;      // of a thread, 32 bits each
  int spilled_bytes = 0;  // stored and loaded
};

/// The assembler: on the PATH, or where CUDA is usually installed. Nothing where it is not.
std::optional<std::string> find_ptxas();
/// Assembles the file for compute capability `sm`, 75 for 7.5. Throws Error with the assembler's first line.
std::vector<PtxKernel> assemble_ptx(const std::string &ptxas, const std::string &file, int sm);

/// The share of a multiprocessor's warps that blocks of so many threads keep busy, each with so many registers, and so many
/// bytes of shared memory a block. Source: CUDA C++ Programming Guide, "Compute Capabilities".
double occupancy(int sm, int threads, int registers, int shared_bytes);

}  // namespace convsmith
