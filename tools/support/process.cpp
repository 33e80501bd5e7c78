#include "tools/support/process.h"
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <system_error>
#include "convsmith/error.h"
#include "tools/support/file_descriptor.h"
#include "tools/support/interrupt.h"

namespace convsmith {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Ends of pipes wake poll at once; a program's end, an interrupt and a deadline are looked for this often.
constexpr milliseconds longest_nap{50};

[[noreturn]] void fail(const std::string &program, std::string_view what, int error) {
  throw Error(fmt::format("{}: {}: {}", program, what, std::generic_category().message(error)));
}

// Moved above the standard descriptors where ours are closed, so that none of the child's overwrites another.
FileDescriptor above_standard(const std::string &program, FileDescriptor fd) {
  if (!fd.open()) fail(program, "cannot open a pipe to it", errno);
  if (fd.get() > STDERR_FILENO) return fd;
  FileDescriptor moved(fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!moved.open()) fail(program, "cannot open a pipe to it", errno);
  return moved;
}

struct Pipe {
  explicit Pipe(const std::string &program) {
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) fail(program, "cannot open a pipe to it", errno);
    FileDescriptor first(ends[0]), second(ends[1]);
    read = above_standard(program, std::move(first));
    write = above_standard(program, std::move(second));
    fcntl(read.get(), F_SETFL, O_NONBLOCK);
  }
  FileDescriptor read, write;
};

// A file in memory: whenever the program reads it, or does not, nobody waits and no SIGPIPE comes back.
FileDescriptor input_file(const std::string &program, std::string_view text) {
  if (text.empty()) return above_standard(program, FileDescriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)));
  FileDescriptor file = above_standard(program, FileDescriptor(memfd_create("input", MFD_CLOEXEC)));
  while (!text.empty()) {
    const ssize_t count = write(file.get(), text.data(), text.size());
    if (count >= 0) text.remove_prefix(static_cast<std::size_t>(count));
    else if (errno != EINTR) fail(program, "cannot store its input", errno);
  }
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings &) = delete;
  SpawnSettings &operator=(const SpawnSettings &) = delete;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

// A running program and its group. Until it is reaped its number cannot be given to another, so killing is safe.
class Child {
 public:
  Child(const std::vector<std::string> &argv, const std::array<int, 3> &standard, std::size_t max_memory) : program_(argv.front()) {
    SpawnSettings settings;
    for (int i = 0; i < 3; i++) posix_spawn_file_actions_adddup2(&settings.actions, standard[i], i);
    // A program expects the default signals, whatever this process blocks, ignores or handles.
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGQUIT, SIGCHLD}) sigaddset(&usual, signal);
    posix_spawnattr_setsigmask(&settings.attributes, &none);
    posix_spawnattr_setsigdefault(&settings.attributes, &usual);
    posix_spawnattr_setpgroup(&settings.attributes, 0);
    posix_spawnattr_setflags(&settings.attributes,
                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::vector<char *> arguments;
    arguments.reserve(argv.size() + 1);
    for (const std::string &argument : argv) arguments.push_back(const_cast<char *>(argument.c_str()));
    arguments.push_back(nullptr);
    const int error =
        posix_spawnp(&pid_, arguments[0], &settings.actions, &settings.attributes, arguments.data(), environ);
    if (error == ENOENT)
      throw Error(fmt::format("{}: cannot run: no such program{}", program_,
                              program_.find('/') == std::string::npos ? " in the folders of PATH" : ""));
    if (error != 0) fail(program_, "cannot run", error);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // whose shadow is terabytes of address space
    const rlimit most{max_memory, max_memory};  // what it has taken by now it keeps
    if (max_memory) prlimit(pid_, RLIMIT_AS, &most, nullptr);
#else
    (void)max_memory;
#endif
  }
  ~Child() {
    if (reaped_) return;
    kill();
    siginfo_t info{};
    while (waitid(P_PID, pid_, &info, WEXITED) != 0 && errno == EINTR) {
    }
  }
  Child(const Child &) = delete;
  Child &operator=(const Child &) = delete;

  bool ended() {
    siginfo_t info{};
    if (waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) == 0) return info.si_pid != 0;
    if (errno == EINTR) return false;
    reaped_ = true;  // by the system, where SIGCHLD is ignored
    fail(program_, "its end cannot be waited for", errno);
  }

  std::string how_it_ended() const {
    siginfo_t info{};
    if (waitid(P_PID, pid_, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return "";
    return fmt::format("{} {}", info.si_code == CLD_EXITED ? "ended with exit status" : "died of signal", info.si_status);
  }

  void kill() const {
    ::kill(-pid_, SIGKILL);
    ::kill(pid_, SIGKILL);  // it may have moved to another group
  }

  void reap(ProcessResult &result) {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0) {
      if (errno == EINTR) continue;
      reaped_ = true;
      fail(program_, "its end cannot be waited for", errno);
    }
    reaped_ = true;
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    else result.signal = WTERMSIG(status);
  }

 private:
  std::string program_;
  pid_t pid_ = 0;
  bool reaped_ = false;
};

// What is in the pipe now, up to `room` bytes; the end is closed at the end of file. True where there was more.
// One call takes at most a pipe's largest capacity, so that an endless writer cannot keep us from the clock.
bool drain(FileDescriptor &pipe, std::string &text, std::size_t room) {
  constexpr std::size_t largest_pipe = std::size_t{1} << 20;
  char buffer[65536];
  for (std::size_t taken = 0; pipe.open() && taken < largest_pipe;) {
    const ssize_t count = read(pipe.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count <= 0) {
      pipe.close();
      return false;
    }
    const std::size_t size = static_cast<std::size_t>(count);
    text.append(buffer, std::min(size, room - taken));
    if (size > room - taken) return true;
    taken += size;
  }
  return false;
}

}  // namespace

ProcessResult run_process(const std::vector<std::string> &argv, const ProcessOptions &options) {
  if (argv.empty() || argv.front().empty()) throw Error("expected a program to run, got an empty name");
  check_interrupt();
  const std::string &program = argv.front();
  Pipe out(program), err(program);
  FileDescriptor input = input_file(program, options.input);
  const auto start = Clock::now();
  Child child(argv, {input.get(), out.write.get(), err.write.get()}, options.max_memory);
  for (FileDescriptor *ours : {&input, &out.write, &err.write}) ours->close();

  ProcessResult result;
  milliseconds closed_nap{1};  // a program that closed its output is about to end
  for (;;) {
    check_interrupt();
    const bool ended = child.ended();  // asked before the pipes are read: they hold all that it wrote
    for (auto [pipe, text] : {std::pair{&out.read, &result.out}, std::pair{&err.read, &result.err}})
      if (drain(*pipe, *text, options.max_output - result.out.size() - result.err.size()))
        result.output_exceeded = true;
    const std::chrono::duration<double> used = Clock::now() - start;
    result.timed_out = !ended && options.timeout_s > 0 && used.count() >= options.timeout_s;
    if (ended || result.timed_out || result.output_exceeded) break;

    milliseconds nap = longest_nap;
    if (!out.read.open() && !err.read.open()) nap = closed_nap = std::min(2 * closed_nap, longest_nap);
    if (options.timeout_s > 0)
      nap = std::min(nap,
                     milliseconds(static_cast<int>(std::ceil(std::min(1.0, options.timeout_s - used.count()) * 1000))));
    pollfd pipes[] = {{out.read.get(), POLLIN, 0}, {err.read.get(), POLLIN, 0}};
    poll(pipes, 2, static_cast<int>(nap.count()));
  }
  child.kill();
  child.reap(result);
  return result;
}

struct Conversation::State {
  State(const std::vector<std::string> &argv, const ConversationOptions &options)
      : program(argv.front()), sockets(program), nowhere(options.quiet ? above_standard(program, FileDescriptor(open("/dev/null", O_WRONLY | O_CLOEXEC))) : FileDescriptor()),
        child(argv, {sockets.theirs.get(), sockets.theirs.get(), options.quiet ? nowhere.get() : STDERR_FILENO}, options.max_memory) {
    sockets.theirs.close(), nowhere.close();
  }
  struct Sockets {  // not pipes: writing to a program that has ended must not raise SIGPIPE
    explicit Sockets(const std::string &program) {
      int ends[2] = {-1, -1};
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail(program, "cannot open a socket to it", errno);
      FileDescriptor first(ends[0]), second(ends[1]);
      ours = above_standard(program, std::move(first)), theirs = above_standard(program, std::move(second));
    }
    FileDescriptor ours, theirs;
  };
  std::string program;
  Sockets sockets;
  FileDescriptor nowhere;
  Child child;
  std::string said;  // and not yet returned
};

Conversation::Conversation(const std::vector<std::string> &argv, const ConversationOptions &options) {
  if (argv.empty() || argv.front().empty()) throw Error("expected a program to talk to, got an empty name");
  state_ = std::make_unique<State>(argv, options);
}

Conversation::~Conversation() = default;

std::string Conversation::ask(const std::string &line, double timeout_s) {
  State &s = *state_;
  std::string text = line.empty() ? "" : line + "\n";
  const auto ended = [&] { return NoAnswer(NoAnswer::Reason::ended, fmt::format("{}: ended before it answered \"{}\"", s.program, line)); };
  while (!text.empty()) {
    const ssize_t count = send(s.sockets.ours.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (count >= 0) text.erase(0, size_t(count));
    else if (errno == EPIPE || errno == ECONNRESET) throw ended();
    else if (errno != EINTR) fail(s.program, "cannot be asked", errno);
  }
  const auto start = Clock::now();
  for (;;) {
    check_interrupt();
    if (const size_t end = s.said.find('\n'); end != std::string::npos) {
      const std::string answer = s.said.substr(0, end);
      s.said.erase(0, end + 1);
      return answer;
    }
    const std::chrono::duration<double> used = Clock::now() - start;
    if (used.count() > timeout_s) throw NoAnswer(NoAnswer::Reason::silent, fmt::format("{}: expected an answer within {:g} s to \"{}\"", s.program, timeout_s, line));
    if (s.said.size() > std::size_t{64} << 10) throw NoAnswer(NoAnswer::Reason::too_long, fmt::format("{}: expected a line, got 64 KiB without an end", s.program));
    pollfd socket = {s.sockets.ours.get(), POLLIN, 0};
    if (poll(&socket, 1, int(longest_nap.count())) <= 0) continue;
    char buffer[4096];
    const ssize_t count = recv(s.sockets.ours.get(), buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw ended();
    s.said.append(buffer, size_t(count));
  }
}

std::string Conversation::how_it_ended() const {
  std::string how;
  for (int naps = 0; naps < 100 && (how = state_->child.how_it_ended()).empty(); naps++) poll(nullptr, 0, 1);
  return how;
}

void end_with_parent() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == 1) _exit(0);  // it was too late
}

std::string own_executable() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) fail("/proc/self/exe", "cannot find this program", error.value());
  std::error_code same_error;
  if (!std::filesystem::equivalent(path, "/proc/self/exe", same_error))
    throw Error(fmt::format("{}: this program's file was replaced while it ran; start it again", path.string()));
  return path.string();
}

}  // namespace convsmith
