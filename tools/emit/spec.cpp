// Spec files: one kernel a line, NAME : PASSES : PROBLEM.
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "library.h"
#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace convsmith {
namespace {

std::string_view trimmed(std::string_view s) {
  const size_t from = s.find_first_not_of(" \t\r"), to = s.find_last_not_of(" \t\r");
  return from == std::string_view::npos ? std::string_view() : s.substr(from, to - from + 1);
}

void check_name(std::string_view name) {
  const auto word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) || !std::all_of(name.begin(), name.end(), word))
    throw Error(fmt::format("name: expected letters, digits and _, got \"{}\"", name));
}

KernelRequest parse_line(std::string_view line) {
  const size_t first = line.find(" : "), second = first == std::string_view::npos ? first : line.find(" : ", first + 3);
  if (second == std::string_view::npos)
    throw Error(fmt::format("expected NAME : PASSES : PROBLEM, got \"{}\"", line));
  KernelRequest r;
  r.name = trimmed(line.substr(0, first));
  check_name(r.name);
  r.problem = Problem::parse(line.substr(second + 3));
  r.passes = parse_passes(trimmed(line.substr(first + 3, second - first - 3)), r.problem);
  return r;
}

}  // namespace

std::vector<PassKind> parse_passes(std::string_view text, const Problem &p) {
  std::set<PassKind> passes;
  if (text == "all") {
    for (PassKind pass : passes_of(p)) passes.insert(pass);
  } else {
    for (size_t at = 0; at <= text.size();) {
      const size_t comma = std::min(text.find(',', at), text.size());
      passes.insert(parse_pass(trimmed(text.substr(at, comma - at))));
      at = comma + 1;
    }
  }
  if (passes.count(PassKind::forward)) passes.insert(PassKind::pack_weight);
  if (passes.count(PassKind::input_gradient)) passes.insert(PassKind::pack_weight_for_input_gradient);
  for (PassKind pass : passes) require_available(p, pass);
  return {passes.begin(), passes.end()};
}

std::vector<KernelRequest> read_spec(const std::string &path) {
  const std::string text = read_file(path);
  std::vector<KernelRequest> kernels;
  std::set<std::string> names;
  int number = 0;
  for (size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0; at < text.size();) {  // past a mark of UTF-8
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view whole(text.data() + at, end - at);
    const std::string_view line = trimmed(whole.substr(0, whole.find('#')));
    at = end + 1, number++;
    if (line.empty()) continue;
    try {
      kernels.push_back(parse_line(line));
      if (!names.insert(kernels.back().name).second)
        throw Error(fmt::format("kernel {} is there already", kernels.back().name));
    } catch (const Error &e) { throw Error(fmt::format("{}:{}: {}", path, number, e.what())); }
  }
  if (kernels.empty()) throw Error(fmt::format("{}: expected at least one line NAME : PASSES : PROBLEM", path));
  return kernels;
}

}  // namespace convsmith
