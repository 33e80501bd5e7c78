#include "tools/support/cache.h"
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <system_error>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "tools/support/file_descriptor.h"
#include "tools/support/hash.h"

namespace convsmith {
namespace {

namespace fs = std::filesystem;

// An entry holds what was made, its key text, and a hash of both, by which a damaged one is known.
constexpr const char *key_file = "key.txt", *hash_file = "hash.txt";
constexpr std::string_view temporary_prefix = ".making-";
constexpr std::chrono::hours oldest_leftover{1};
constexpr std::uint64_t default_limit = std::uint64_t{1} << 30;

// FNV-1a, then the finaliser of SplitMix64, without which the last bytes reach few bits.
std::uint64_t hash(std::string_view text, std::uint64_t offset) {
  offset = fnv1a(text, offset);
  offset = (offset ^ (offset >> 30)) * 0xbf58476d1ce4e5b9;
  offset = (offset ^ (offset >> 27)) * 0x94d049bb133111eb;
  return offset ^ (offset >> 31);
}

std::string entry_name(std::string_view key_text) {
  return fmt::format("{:016x}{:016x}", hash(key_text, 0xcbf29ce484222325), hash(key_text, 0x6c62272e07bb0142));
}

bool is_entry_name(const std::string &name) {
  return name.size() == 32 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

[[noreturn]] void fail_to_write(const fs::path &folder, const std::error_code &error) {
  throw Error(
      fmt::format("{}: cannot write the cache folder: {}; make it writable, or set CONVSMITH_CACHE to another folder",
                  folder.string(), error.message()));
}

// Nothing where the file cannot be read: another process may be removing the entry.
std::optional<std::string> text_of(const fs::path &file) try {
  return read_file(file.string());
} catch (const Error &) {
  return std::nullopt;
}

std::vector<fs::path> listed(const fs::path &folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    paths.push_back(it->path());
  return paths;
}

std::vector<fs::path> regular_files(const fs::path &folder, std::error_code &error) {
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (std::error_code gone; it->symlink_status(gone).type() == fs::file_type::regular) files.push_back(it->path());
  return files;
}

std::uint64_t bytes_in(const fs::path &folder) {
  std::uint64_t bytes = 0;
  std::error_code error, gone;
  for (const fs::path &file : regular_files(folder, error))
    if (const std::uintmax_t size = fs::file_size(file, gone); !gone) bytes += size;
  return bytes;
}

// Of the names, sizes and bytes of all regular files but the hash's own; nothing where one cannot be read.
std::optional<std::string> hash_of(const fs::path &folder) {
  std::error_code error;
  std::vector<fs::path> files = regular_files(folder, error);
  if (error) return std::nullopt;
  std::erase(files, folder / hash_file);
  std::sort(files.begin(), files.end());
  std::uint64_t sum = fnv1a("");
  for (auto &file : files) {
    const std::optional<std::string> text = text_of(file);
    if (!text) return std::nullopt;
    sum = fnv1a(*text, fnv1a(fmt::format("{} {}\n", file.lexically_relative(folder).string(), text->size()), sum));
  }
  return fmt::format("{:016x}\n", sum);
}

// Whether the folder is what was once made for this key: not a collision, nothing missing, nothing changed.
bool holds(const fs::path &folder, const std::string &key_text) {
  if (text_of(folder / key_file) != key_text) return false;
  const std::optional<std::string> hash = hash_of(folder);
  return hash && text_of(folder / hash_file) == hash;
}

void mark_used(const fs::path &folder) {
  std::error_code ignored;  // a cache that can only be read still serves
  fs::last_write_time(folder, fs::file_time_type::clock::now(), ignored);
}

// A folder in the making. It is removed unless it was renamed.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path &cache) {
    std::string name = (cache / fmt::format("{}XXXXXX", temporary_prefix)).string();
    if (mkdtemp(name.data()) == nullptr) fail_to_write(cache, std::error_code(errno, std::generic_category()));
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  const fs::path &path() const { return path_; }

 private:
  fs::path path_;
};

// Out of sight in one step, so that nobody finds half an entry; then away.
void discard(const fs::path &cache, const fs::path &entry) {
  const TemporaryFolder grave(cache);
  std::error_code ignored;  // another process may have been first
  fs::rename(entry, grave.path() / "entry", ignored);
}

// Held shared while a folder is in the making, so that whoever gets it alone knows that all such folders are leftovers.
// The system releases it when a process dies, whatever container it ran in. Where locks fail, only age tells.
struct Lock {
  Lock(const fs::path &cache, int operation)
      : file(::open((cache / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (!file.open()) fail_to_write(cache, std::error_code(errno, std::generic_category()));
    int result;
    do result = flock(file.get(), operation);
    while (result != 0 && errno == EINTR);
    held = result == 0;
  }
  FileDescriptor file;
  bool held = false;
};

std::string environment(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::uint64_t parse_bytes(std::string_view what, std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view suffix = text.substr(end - text.data());
  const int shift = suffix.empty() ? 0 : suffix == "K" ? 10 : suffix == "M" ? 20 : suffix == "G" ? 30 : -1;
  if (error != std::errc() || shift < 0 || value > ~std::uint64_t{0} >> shift)
    throw Error(fmt::format("{}: expected a number of bytes, or a number with K, M or G, got '{}'", what, text));
  return value << shift;
}

Cache::Cache(fs::path folder, std::uint64_t limit_bytes) : folder_(std::move(folder)), limit_(limit_bytes) {}

Cache Cache::of_user() {
  const std::string limit_text = environment("CONVSMITH_CACHE_LIMIT");
  const std::uint64_t limit = limit_text.empty() ? default_limit : parse_bytes("CONVSMITH_CACHE_LIMIT", limit_text);
  if (const std::string folder = environment("CONVSMITH_CACHE"); !folder.empty()) {
    std::error_code error;
    const fs::path path = fs::absolute(folder, error);
    if (error) throw Error(fmt::format("CONVSMITH_CACHE {}: {}", folder, error.message()));
    return {path, limit};
  }
  // The XDG specification has relative paths ignored.
  if (const fs::path base = environment("XDG_CACHE_HOME"); base.is_absolute()) return {base / "convsmith", limit};
  if (const fs::path home = environment("HOME"); home.is_absolute()) return {home / ".cache" / "convsmith", limit};
  throw Error("cache: expected a folder in CONVSMITH_CACHE, XDG_CACHE_HOME or HOME, got none; set CONVSMITH_CACHE");
}

fs::path Cache::get(const std::string &key_text, const std::function<void(const fs::path &)> &make) {
  fs::path entry = folder_ / entry_name(key_text);
  if (holds(entry, key_text)) {
    mark_used(entry);
    return entry;
  }
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) fail_to_write(folder_, error);
  {
    const Lock lock(folder_, LOCK_SH);
    const TemporaryFolder made(folder_);
    make(made.path());
    write_file((made.path() / key_file).string(), key_text);
    write_file((made.path() / hash_file).string(), hash_of(made.path()).value_or(""));
    for (fs::rename(made.path(), entry, error); error; fs::rename(made.path(), entry, error)) {
      if (holds(entry, key_text)) break;  // another process was first
      if (error != std::errc::directory_not_empty && error != std::errc::file_exists &&
          error != std::errc::not_a_directory)
        fail_to_write(folder_, error);
      discard(folder_, entry);
    }
    mark_used(entry);
  }
  remove_leftovers();
  shrink(entry);
  return entry;
}

std::vector<CacheEntry> Cache::entries() const {
  std::vector<CacheEntry> found;
  for (const fs::path &path : listed(folder_)) {
    if (!is_entry_name(path.filename().string())) continue;
    std::optional<std::string> key_text = text_of(path / key_file);
    std::error_code error;
    const fs::file_time_type used = fs::last_write_time(path, error);
    if (key_text && !error) found.push_back({path, std::move(*key_text), bytes_in(path), used});
  }
  std::sort(found.begin(), found.end(), [](const CacheEntry &a, const CacheEntry &b) {
    return a.used != b.used ? a.used > b.used : a.folder < b.folder;
  });
  return found;
}

std::uint64_t Cache::size() const {
  std::uint64_t bytes = 0;
  for (const CacheEntry &entry : entries()) bytes += entry.bytes;
  return bytes;
}

void Cache::clear() {
  const std::vector<CacheEntry> found = entries();
  for (const CacheEntry &entry : found) discard(folder_, entry.folder);
  std::error_code error;
  if (fs::exists(folder_, error)) remove_leftovers();
}

void Cache::remove_leftovers() const {
  const Lock lock(folder_, LOCK_EX | LOCK_NB);
  for (const fs::path &path : listed(folder_)) {
    if (!path.filename().string().starts_with(temporary_prefix)) continue;
    std::error_code error;
    const fs::file_time_type changed = fs::last_write_time(path, error);
    const bool old = !error && fs::file_time_type::clock::now() - changed > oldest_leftover;
    if (lock.held || old) fs::remove_all(path, error);
  }
}

void Cache::shrink(const fs::path &keep) const {
  std::vector<CacheEntry> found = entries();
  std::uint64_t bytes = 0;
  for (const CacheEntry &entry : found) bytes += entry.bytes;
  for (auto entry = found.rbegin(); entry != found.rend() && bytes > limit_; ++entry) {
    if (entry->folder == keep) continue;
    discard(folder_, entry->folder);
    bytes -= entry->bytes;
  }
}

}  // namespace convsmith
