#include "trial.h"
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <system_error>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "tools/support/cache.h"
#include "tools/support/file_descriptor.h"
#include "tools/support/hash.h"

namespace fs = std::filesystem;

namespace convsmith {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TrialKey, cpu, halide, level, problem, pass, threads, schedule, knobs, rung)

namespace {

[[noreturn]] void fail(const std::string &file, const char *what) {
  throw Error(fmt::format("{}: cannot {} the trials: {}", file, what, std::generic_category().message(errno)));
}

constexpr std::string_view first_field = "{\"against\":";  // how every line begins

FileDescriptor open_file(const std::string &file, int flags) {
  FileDescriptor fd(open(file.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd.open()) fail(file, "open");
  return fd;
}

// Held while the file is read or written; a killed holder's lock goes with it.
FileDescriptor locked(const std::string &file) {
  FileDescriptor lock = open_file(file + ".lock", O_RDWR | O_CREAT);
  while (flock(lock.get(), LOCK_EX) != 0)
    if (errno != EINTR) fail(file, "lock");
  return lock;
}

void write_whole(const std::string &file, const FileDescriptor &fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd.get(), text.data(), text.size());
    if (count >= 0) text.remove_prefix(size_t(count));
    else if (errno != EINTR) fail(file, "write");
  }
  if (fsync(fd.get()) != 0) fail(file, "write");
}

}  // namespace

std::string trial_line(const Trial &t) {
  nlohmann::json j = t.key;
  j["us"] = t.us, j["against"] = t.against, j["against_us"] = t.against_us, j["noise"] = t.noise;
  j["seed"] = t.seed, j["date"] = t.date, j["convsmith"] = t.convsmith;
  if (!t.fault.empty()) j["fault"] = t.fault;
  const auto text = [&] { return j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace); };
  j["sum"] = fnv1a(text());  // it finds a torn or edited line, nothing more
  return text();
}

bool read_trial(const std::string &line, Trial &t) {
  auto j = nlohmann::json::parse(line, nullptr, false);
  if (!j.is_object() || !j.contains("sum")) return false;
  const auto sum = j["sum"];
  j.erase("sum");
  if (sum != fnv1a(j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))) return false;
  try {
    t.key = j.get<TrialKey>();
    t.us = j.at("us"), t.against = j.at("against"), t.against_us = j.at("against_us"), t.noise = j.at("noise");
    t.seed = j.at("seed"), t.date = j.at("date"), t.convsmith = j.at("convsmith");
    t.fault = j.value("fault", "");
  } catch (const nlohmann::json::exception &) { return false; }
  return !t.fault.empty() || (t.us > 0 && t.against_us > 0 && std::isfinite(t.us) && std::isfinite(t.against_us));
}

TrialLog::TrialLog(std::string file) : file_(std::move(file)) { read(); }

std::string TrialLog::file_of_user() { return (Cache::of_user().folder() / "trials.jsonl").string(); }

void TrialLog::read() {
  if (file_.empty()) return;
  std::error_code error;
  const fs::path folder = fs::path(file_).parent_path();
  if (!folder.empty()) fs::create_directories(folder, error);
  if (fs::exists(file_, error) && !fs::is_regular_file(file_, error))
    throw Error(fmt::format("{}: expected a file for the trials, got a folder, a device or a pipe", file_));
  const FileDescriptor lock = locked(file_);
  if (!fs::exists(file_, error)) return;
  const std::string text = read_file(file_);
  std::string kept, bad;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) {
      const std::string_view tail = std::string_view(text).substr(at);
      if (!tail.starts_with(first_field.substr(0, tail.size()))) bad += text.substr(at) + "\n", quarantined_++;
      break;  // else its writer was killed: no trial was finished
    }
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (Trial t; read_trial(line, t)) trials_[t.key] = t, kept += line + "\n";
    else bad += line + "\n", quarantined_++;
  }
  if (kept.size() == text.size()) return;
  if (!bad.empty()) write_whole(file_ + ".bad", open_file(file_ + ".bad", O_WRONLY | O_CREAT | O_APPEND), bad);
  write_file(file_, kept);
}

const Trial *TrialLog::find(const TrialKey &key) const {
  const auto at = trials_.find(key);
  return at == trials_.end() ? nullptr : &at->second;
}

void TrialLog::append(const Trial &t) {
  trials_[t.key] = t;
  if (file_.empty()) return;
  const FileDescriptor lock = locked(file_);
  const FileDescriptor fd = open_file(file_, O_RDWR | O_CREAT | O_APPEND);
  // Another process may have been killed in the middle of a line since we read the file.
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) fail(file_, "write");
  char last = '\n';
  if (status.st_size > 0 && pread(fd.get(), &last, 1, status.st_size - 1) != 1) fail(file_, "read");
  write_whole(file_, fd, fmt::format("{}{}\n", last == '\n' ? "" : "\n", trial_line(t)));
}

}  // namespace convsmith
