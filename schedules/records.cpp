#include "records.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "levels.h"
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <map>

namespace convsmith {

struct RecordFile {
  const char *name, *text;
};
extern const std::vector<RecordFile> built_in_records;  // written by CMake

namespace {

std::string_view trimmed(std::string_view s) {
  const size_t from = s.find_first_not_of(" \t\r"), to = s.find_last_not_of(" \t\r");
  return from == std::string_view::npos ? std::string_view() : s.substr(from, to - from + 1);
}

Record parse_record(std::string_view line) {
  std::vector<std::string_view> fields;
  for (size_t at = 0; at <= line.size();) {
    const size_t bar = std::min(line.find('|', at), line.size());
    fields.push_back(trimmed(line.substr(at, bar - at)));
    at = bar + 1;
  }
  if (fields.size() != 5)
    throw Error(fmt::format("expected PROBLEM | PASS | CPU | SCHEDULE@VERSION knobs | measured, got {} fields", fields.size()));
  Record r;
  r.problem = Problem::parse(fields[0]);
  if (r.problem.str() != fields[0])
    throw Error(fmt::format("expected the canonical problem \"{}\", got \"{}\"", r.problem.str(), fields[0]));
  r.pass = parse_pass(fields[1]);
  if (fields[2].empty()) throw Error("expected a CPU or *, got nothing");
  r.cpu = fields[2];
  const size_t space = std::min(fields[3].find(' '), fields[3].size()), at = fields[3].find('@');
  if (at >= space) throw Error(fmt::format("expected SCHEDULE@VERSION, got \"{}\"", fields[3].substr(0, space)));
  r.schedule = fields[3].substr(0, at);
  const auto version = fields[3].substr(at + 1, space - at - 1);
  const auto [end, error] = std::from_chars(version.data(), version.data() + version.size(), r.version);
  if (error != std::errc() || end != version.data() + version.size())
    throw Error(fmt::format("expected a version after @, got \"{}\"", version));
  const int current = find_schedule(r.schedule).version;
  if (current != r.version)
    throw Error(fmt::format("{}@{} is stale: expected version {}", r.schedule, r.version, current));
  r.knobs = Knobs::parse(fields[3].substr(space));
  r.measured = fields[4];
  r.halide = measured_word(r.measured, "halide");
  return r;
}

// A line of its file, without the end.
std::string record_line(const Record &r) {
  return fmt::format("{} | {} | {} | {}@{} {} | {}", r.problem.str(), pass_name(r.pass), r.cpu, r.schedule, r.version, r.knobs.str(), r.measured);
}

}  // namespace

void RecordBook::add(const std::string &file_name, std::string_view text) {
  const std::string target = std::filesystem::path(file_name).stem().string();
  int line_number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(text.substr(at, end - at));
    at = end + 1, line_number++;
    if (line.empty() || line[0] == '#') continue;
    const std::string where = fmt::format("{}:{}", file_name, line_number);
    try {
      Record r = parse_record(line);
      r.target = target, r.where = where;
      records_.push_back(std::move(r));
    } catch (const Error &e) { throw Error(fmt::format("{}: {}", where, e.what())); }
  }
}

RecordBook RecordBook::built_in() {
  RecordBook book;
  for (auto &file : built_in_records) book.add(file.name, file.text);
  return book;
}

RecordBook RecordBook::load(const std::string &folder) {
  RecordBook book;
  std::vector<std::string> files;
  std::error_code error;
  for (auto &entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().extension() == ".rec") files.push_back(entry.path().string());
  if (error) throw Error(fmt::format("records: expected a folder of *.rec files, got \"{}\": {}", folder, error.message()));
  std::sort(files.begin(), files.end());
  for (auto &file : files) book.add(file, read_file(file));
  return book;
}

const Record *RecordBook::find(const Workload &w, const std::string &cpu) const {
  const std::string problem = w.problem.str(), level = level_name(w.target);
  const Record *any = nullptr;
  for (auto &r : records_) {
    if (r.target != level || r.pass != w.pass || r.problem.str() != problem) continue;
    if (r.cpu == cpu) return &r;
    if (r.cpu == "*") any = &r;
  }
  return any;
}

std::string measured_word(const std::string &measured, const std::string &word) {
  const size_t at = (" " + measured).find(" " + word + "=");
  if (at == std::string::npos) return "";
  const size_t value = at + word.size() + 1;
  return measured.substr(value, measured.find(' ', value) - value);
}

std::string fold_records(const std::string &text, const std::string &target, const std::vector<Record> &records) {
  RecordBook book;
  book.add(target + ".rec", text);
  struct Entry {
    std::string comments, line;
  };
  std::map<std::string, Entry> entries;
  const auto entry = [&](const Record &r) -> Entry & { return entries[fmt::format("{} | {} | {}", r.problem.str(), pass_name(r.pass), r.cpu)]; };
  // What stands before the first record is the file's; a comment further on belongs to the record after it.
  std::string folded, comments;
  size_t next = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trimmed(std::string_view(text).substr(at, end - at));
    at = end + 1;
    if (line.empty() || line[0] == '#') {
      std::string &kept = next == 0 ? folded : comments;
      if (next == 0 || !line.empty()) kept += std::string(line) + "\n";
      continue;
    }
    const Record &r = book.records()[next++];
    Entry &e = entry(r);
    e.comments += comments, e.line = record_line(r);
    comments.clear();
  }
  for (auto &r : records) entry(r).line = record_line(r);
  for (auto &[key, e] : entries) folded += e.comments + e.line + "\n";
  return folded + comments;
}

std::string halide_version() {
  return fmt::format("{}.{}.{}", HALIDE_VERSION_MAJOR, HALIDE_VERSION_MINOR, HALIDE_VERSION_PATCH);
}

}  // namespace convsmith
