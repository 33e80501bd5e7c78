#include "convsmith/file.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>
#include "convsmith/error.h"

namespace convsmith {
namespace {

[[noreturn]] void fail(const std::string &path, const char *action, int error) {
  throw Error(path + ": cannot " + action + ": " + std::generic_category().message(error));
}

// An open file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  /// The result of close(2): some file systems report a full disk only then.
  int close() { return ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

void write_all(const Descriptor &file, const std::string &path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file.get(), bytes.data(), bytes.size());
    if (count >= 0) bytes.remove_prefix(static_cast<std::size_t>(count));
    else if (errno != EINTR) fail(path, "write", errno);
  }
}

std::string folder_of(const std::string &path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// Of a name under /proc that stands for an open file of this process, as /dev/stdout leads to: its descriptor; else -1.
int own_descriptor(const std::string &path) {
  char *real = ::realpath(folder_of(path).c_str(), nullptr);
  const std::string folder = real == nullptr ? "" : real, own = "/proc/" + std::to_string(::getpid()) + "/";
  std::free(real);
  int number = -1;
  const char *end = path.data() + path.size();
  const bool of_thread = folder.rfind(own + "task/", 0) == 0 && folder.find("/fd", own.size()) == folder.size() - 3;
  if ((folder != own + "fd" && !of_thread) || std::from_chars(path.data() + (path.rfind('/') + 1), end, number).ptr != end) return -1;
  return number;
}

// Where the bytes go: the end of a chain of symbolic links, or the path itself. `descriptor` where that is an open file.
std::string resolved(const std::string &path, int &descriptor) {
  std::string at = path;
  descriptor = -1;
  for (int links = 0; links < 40; links++) {
    char to[PATH_MAX];
    const ssize_t length = ::readlink(at.c_str(), to, sizeof to);
    if (length < 0) return at;  // no link, or nothing there yet
    descriptor = own_descriptor(at);
    if (descriptor >= 0) return at;
    const std::string target(to, static_cast<std::size_t>(length));
    const std::string next = target.rfind('/', 0) == 0 || at.find('/') == std::string::npos ? target : folder_of(at) + target;
    struct stat status;
    // What /proc shows of another process leads to a file, but its text may not.
    if (::stat(at.c_str(), &status) == 0 && ::lstat(next.c_str(), &status) != 0) return at;
    at = next;
  }
  fail(path, "write", ELOOP);
}

void write_directly(int opened, const std::string &path, std::string_view bytes) {
  Descriptor file(opened);
  if (file.get() < 0) fail(path, "write", errno);
  write_all(file, path, bytes);
  if (file.close() != 0) fail(path, "write", errno);
}

// A new file in the folder, whose name no other process or thread takes.
int create_temporary(const std::string &folder, std::string &name) {
  static std::atomic<unsigned> counter{0};
  for (;;) {
    name = folder + "/.convsmith-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
    const int fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
}

// `size` is where to start: the end of file decides.
std::string read_all(const Descriptor &file, const std::string &path, std::size_t size) {
  std::string bytes(size, '\0');
  std::size_t used = 0;
  for (;;) {
    const ssize_t count = ::read(file.get(), bytes.data() + used, bytes.size() - used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "read", errno);
    if (count == 0) break;
    used += static_cast<std::size_t>(count);
    if (used == bytes.size()) bytes.resize(2 * used);
  }
  bytes.resize(used);
  return bytes;
}

}  // namespace

std::string read_file(const std::string &path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) fail(path, "read", errno);
  // A pipe and the files of /proc have no size.
  try {
    return read_all(file, path, S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) + 1 : 65536);
  } catch (const std::bad_alloc &) {
    fail(path, "read", ENOMEM);
  } catch (const std::length_error &) { fail(path, "read", EFBIG); }
}

void write_file(const std::string &path, std::string_view bytes) {
  int descriptor;
  const std::string target = resolved(path, descriptor);
  // Opened anew, it would be written from its start.
  if (descriptor >= 0) return write_directly(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0), path, bytes);
  struct stat status;
  const bool exists = ::stat(target.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) fail(path, "write", EISDIR);
  if (exists && !S_ISREG(status.st_mode)) return write_directly(::open(target.c_str(), O_WRONLY | O_CLOEXEC), path, bytes);

  std::string temporary;
  Descriptor file(create_temporary(folder_of(target), temporary));
  if (file.get() < 0) fail(path, "write", errno);
  try {
    if (exists && ::fchmod(file.get(), status.st_mode & 07777) != 0) fail(path, "write", errno);
    write_all(file, path, bytes);
    if (::fsync(file.get()) != 0 || file.close() != 0) fail(path, "write", errno);
    if (std::rename(temporary.c_str(), target.c_str()) != 0) fail(path, "write", errno);
  } catch (const Error &) {
    ::unlink(temporary.c_str());
    throw;
  }
  // The name itself; where a file system refuses this, the file is still whole.
  const Descriptor folder(::open(folder_of(target).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0) ::fsync(folder.get());
}

}  // namespace convsmith
