#include "temporary_folder.h"
#include <fmt/format.h>
#include <stdlib.h>
#include <cerrno>
#include <system_error>
#include "convsmith/error.h"

namespace fs = std::filesystem;

namespace convsmith {

TemporaryFolder::TemporaryFolder(const std::string &parent) {
  std::error_code error;
  const std::string folder = parent.empty() ? fs::temp_directory_path(error).string() : parent;
  fs::create_directories(folder, error);
  path_ = folder + "/.convsmith-XXXXXX";
  if (!mkdtemp(path_.data()))
    throw Error(fmt::format("{}: expected a folder that can be written, got: {}", folder,
                            std::generic_category().message(errno)));
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace convsmith
