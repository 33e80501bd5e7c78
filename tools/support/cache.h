// A folder of things that take long to make, found again by the text that describes them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

struct CacheEntry {
  std::filesystem::path folder;
  std::string key_text;
  std::uint64_t bytes = 0;
  std::filesystem::file_time_type used;
};

/// One folder an entry, named by a 128-bit hash of its key text. Any number of processes and threads may use one cache.
class Cache {
 public:
  /// Touches nothing yet.
  Cache(std::filesystem::path folder, std::uint64_t limit_bytes);
  /// $CONVSMITH_CACHE, else $XDG_CACHE_HOME/convsmith, else $HOME/.cache/convsmith; at most $CONVSMITH_CACHE_LIMIT
  /// (bytes, or a number with K, M or G), else 1 GiB. Errors: Error where these say no folder or no size.
  static Cache of_user();

  /// The folder that `make` filled for this key text, now or earlier; nothing in it may be changed. `make` gets an
  /// empty folder, which appears in the cache only when whole; two callers at once may both make, and then share the
  /// first. Afterwards the entries used longest ago are removed until the limit holds, this one never. Errors: what
  /// `make` throws; Error where the folder cannot be written.
  std::filesystem::path get(const std::string &key_text,
                            const std::function<void(const std::filesystem::path &)> &make);

  /// The last used first.
  std::vector<CacheEntry> entries() const;
  std::uint64_t size() const;
  /// Removes every entry, and nothing else that the folder may hold.
  void clear();

  const std::filesystem::path &folder() const { return folder_; }
  std::uint64_t limit() const { return limit_; }

 private:
  void remove_leftovers() const;
  void shrink(const std::filesystem::path &keep) const;

  std::filesystem::path folder_;
  std::uint64_t limit_;
};

/// Bytes from "1048576", "512K", "100M" or "2G" (powers of 1024). Errors: Error, beginning with `what`.
std::uint64_t parse_bytes(std::string_view what, std::string_view text);

}  // namespace convsmith
