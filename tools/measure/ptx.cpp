#include "ptx.h"
#include <fmt/format.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <sstream>
#include "convsmith/error.h"
#include "tools/support/process.h"

namespace fs = std::filesystem;

namespace convsmith {

std::optional<std::string> find_ptxas() {
  const char *path = std::getenv("PATH");
  std::istringstream folders(std::string(path ? path : "") + ":/usr/local/cuda/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = (fs::path(folder) / "ptxas").string();
    if (!folder.empty() && access(file.c_str(), X_OK) == 0) return file;
  }
  return std::nullopt;
}

std::vector<PtxKernel> assemble_ptx(const std::string &ptxas, const std::string &file, int sm) {
  const ProcessResult r = run_process({ptxas, "-v", fmt::format("-arch=sm_{}", sm), file, "-o", "/dev/null"}, {});
  if (r.exit_code || r.signal) throw Error(fmt::format("{}: {}", file, r.err.substr(0, r.err.find('\n'))));
  std::vector<PtxKernel> kernels;
  static const std::regex entry(R"(Function properties for (\S+))"), spills(R"((\d+) bytes spill stores, (\d+) bytes spill loads)"),
      registers(R"(Used (\d+) registers)");
  std::istringstream lines(r.err + r.out);
  for (std::string line; std::getline(lines, line);) {
    std::smatch found;
    if (std::regex_search(line, found, entry)) kernels.push_back({found[1], 0, 0});
    if (kernels.empty()) continue;
    if (std::regex_search(line, found, spills)) kernels.back().spilled_bytes = std::stoi(found[1]) + std::stoi(found[2]);
    if (std::regex_search(line, found, registers)) kernels.back().registers = std::stoi(found[1]);
  }
  return kernels;
}

double occupancy(int sm, int threads, int registers, int shared_bytes) {
  const int most_warps = sm == 75 ? 32 : sm == 86 || sm == 89 ? 48 : 64, most_blocks = sm == 75 || sm == 86 ? 16 : sm == 89 ? 24 : 32;
  const int shared = (sm == 75 ? 64 : sm == 80 ? 164 : sm == 86 || sm == 89 ? 100 : 228) * 1024;
  const int reserved = sm >= 80 ? 1024 : 0;  // of each block, for the system
  const int warps = (threads + 31) / 32, of_warp = std::max(256, (registers * 32 + 255) / 256 * 256);
  const int by_registers = 65536 / of_warp / 4 * 4 / warps;
  const int by_shared = shared_bytes || reserved ? shared / (shared_bytes + reserved) : most_blocks;
  const int blocks = std::min({most_blocks, most_warps / warps, by_registers, by_shared});
  return double(blocks * warps) / most_warps;
}

}  // namespace convsmith
