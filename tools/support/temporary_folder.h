// A folder of our own, gone with its contents whatever happens.
#pragma once
#include <filesystem>
#include <string>

namespace convsmith {

class TemporaryFolder {
 public:
  /// A new folder within `parent`, which is made where it is missing; without one, where the system keeps such things.
  /// Throws Error where it cannot be made.
  explicit TemporaryFolder(const std::string &parent = "");
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  std::string operator/(const std::string &name) const { return path_ + "/" + name; }
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace convsmith
