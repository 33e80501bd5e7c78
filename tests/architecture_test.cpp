// The wall between mathematics, schedules and run-time, read off the source.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <regex>
#include "convsmith/file.h"

namespace fs = std::filesystem;

namespace convsmith {
namespace {

// Comments and the insides of literals blanked out, line breaks and the names of included files kept.
std::string code_of(const std::string &text) {
  std::string code = text;
  const auto blank = [&](size_t from, size_t to) {
    for (size_t i = from; i < std::min(to, code.size()); i++)
      if (code[i] != '\n') code[i] = ' ';
    return std::min(to, code.size());
  };
  const auto after = [&](const std::string &end, size_t from) {
    const size_t at = text.find(end, from);
    return at == std::string::npos ? text.size() : at + end.size();
  };
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t i = 0; i < text.size();) {
    const char before = i > 0 ? text[i - 1] : '\n';
    if (text.compare(i, 8, "#include") == 0) {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.compare(i, 2, "//") == 0) {
      i = blank(i, after("\n", i) - 1);
    } else if (text.compare(i, 2, "/*") == 0) {
      i = blank(i, after("*/", i + 2));
    } else if (text.compare(i, 2, "R\"") == 0 && !in_word(before)) {
      const size_t open = std::min(text.find('(', i), text.size() - 1);
      i = blank(i, after(")" + text.substr(i + 2, open - i - 2) + "\"", open));
    } else if (text[i] == '"' || (text[i] == '\'' && !in_word(before))) {  // not the ' of 1'000
      size_t end = i + 1;
      while (end < text.size() && text[end] != text[i]) end += text[end] == '\\' ? 2 : 1;
      blank(i + 1, end), i = end + 1;
    } else {
      i++;
    }
  }
  return code;
}

using Offences = std::vector<std::string>;

// "FILE:LINE: what"
Offences offences_in(const std::string &name, const std::string &text, const std::string &pattern) {
  const std::string code = code_of(text);
  const std::regex expression(pattern);
  Offences found;
  for (std::sregex_iterator at(code.begin(), code.end(), expression), end; at != end; ++at)
    found.push_back(
        fmt::format("{}:{}: {}", name, 1 + std::count(code.begin(), code.begin() + at->position(), '\n'), at->str()));
  return found;
}

Offences offences(const std::string &folder, const std::string &pattern, const std::vector<std::string> &but = {}) {
  const auto left = [&](const std::string &path) { return std::find(but.begin(), but.end(), path) != but.end(); };
  Offences found;
  int files = 0, left_out = 0;
  const fs::path source(CONVSMITH_SOURCE);
  for (auto &entry : fs::recursive_directory_iterator(source / folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".cpp" && extension != ".h") continue;
    const std::string path = fs::relative(entry.path(), source).string();
    files++;
    if (left(path)) left_out++;
    else
      for (auto &o : offences_in(path, read_file(entry.path().string()), pattern)) found.push_back(o);
  }
  EXPECT_GT(files, 3) << folder;
  const auto within = std::count_if(but.begin(), but.end(), [&](auto &path) { return path.starts_with(folder + "/"); });
  EXPECT_EQ(left_out, within) << folder;
  return found;
}

const char *const scheduling =
    R"((\.|->)\s*(compute_at|compute_root|compute_inline|compute_with|store_at|store_root|store_in|hoist_storage\w*|)"
    R"(vectorize|parallel|unroll|serial|split|tile|fuse|reorder|reorder_storage|rfactor|eager_inline|bound|bound_extent|)"
    R"(bound_storage|align_\w+|fold_storage|specialize\w*|prefetch|partition|never_partition\w*|async|ring_buffer|atomic|)"
    R"(gpu_?\w*|hexagon|set_estimates?|in|clone_in|copy_to_\w+)\s*\()"
    R"(|\b(TailStrategy|LoopLevel|MemoryType|ScheduleHandle)\b)";
// A Func defined or updated, or something to define one with.
const char *const mathematics =
    R"(\)\s*[-+*/]?=(?!=)|\bBoundaryConditions\b|\b(select|mux|likely|cast|reinterpret|clamp)\s*[<(](?!\s*int\s*>))"
    R"(|\bRDom\s*(\w+\s*)?[({]|\bRVar\s*\w*\s*\(\s*"|\bFunc\s*(\w+\s*)?[({]\s*")"
    R"(|\bHalide::(sum|product|maximum|minimum|exp|log|sqrt|sin|cos|tanh|erf|pow)\s*\()";
const char *const outside =
    R"(\b(secure_)?getenv\b|\benviron\b|\bchrono\b|\bclock\w*|\bgettimeofday\b|\b(std::)?time\s*\(|\blocaltime\w*|)"
    R"(\brandom_device\b|\bs?rand\s*\(|\bhardware_concurrency\b)";

TEST(Architecture, GeneratorsScheduleNothing) { EXPECT_EQ(offences("generators", scheduling), Offences()); }

TEST(Architecture, SchedulesDefineNoMathematics) { EXPECT_EQ(offences("schedules", mathematics), Offences()); }

TEST(Architecture, NeitherReadsTheEnvironmentOrTheClock) {
  for (const char *folder : {"generators", "schedules"}) EXPECT_EQ(offences(folder, outside), Offences());
}

TEST(Architecture, OnlyTheNamesOfTargetsAskForThisMachine) {
  for (const char *folder : {"generators", "schedules"})
    EXPECT_EQ(offences(folder, R"(\bget_(host|jit)_target\w*)", {"schedules/levels.cpp"}), Offences());
}

TEST(Architecture, GeneratorsDoNotKnowSchedules) {
  EXPECT_EQ(offences("generators", R"(#include\s*[<"](schedules|tools)/|\bKnobs?\b|\bnatural_vector_size\b)"),
            Offences());
}

TEST(Architecture, TheRuntimeHasNoCompiler) {
  EXPECT_EQ(offences("runtime", R"(#include\s*[<"]Halide\.h|\bHalide::(?!Runtime\b)\w+)"), Offences());
  EXPECT_EQ(offences("runtime", R"(#include\s*[<"](fmt|nlohmann|CLI|generators|schedules|tools)\b)"), Offences());
}

TEST(Architecture, ThreeFilesLookInsideHalide) {
  for (const char *folder : {"generators", "runtime"}) EXPECT_EQ(offences(folder, R"(\bInternal\b)"), Offences());
  EXPECT_EQ(offences("tools", R"(\bInternal\b)", {"tools/emit/workspace.cpp", "tools/emit/device_code.cpp"}), Offences());
  EXPECT_EQ(offences("schedules", R"(\bInternal\b)", {"schedules/bounds.cpp"}), Offences());
}

// A check that sees nothing would pass too.
TEST(Architecture, ChecksSeeWhatTheyLookFor) {
  for (const char *call :
       {"f.compute_at(g, x);", "f.compute_root ();", "f.store_at(g, y);", "f.vectorize(x, 8);", "p->parallel(y);",
        "f.unroll(k);", "f\n  .split(x, o, i, 8);", "f.tile(x, y, a, b, 8, 8);", "f.fuse(x, y, t);", "f.reorder(y, x);",
        "f.reorder_storage(y, x);", "acc.update(0).rfactor(r, u);", "f.bound_extent(x, 8);", "f.gpu_tile(x, 8);",
        "f.gpu_blocks(y);", "w = f.in(g);", "f.specialize(n > 8);", "f.prefetch(g, y, y, 2);",
        "auto t = TailStrategy::GuardWithIf;"})
    EXPECT_EQ(offences_in("sample", call, scheduling).size(), 1u) << call;
  for (const char *definition :
       {"f(x, y) = g(x) + 1;", "f(x) += 2;", "f(x)\n  *= 2;", "Expr e = select(x > 0, 1, 2);", "RDom r(0, 8);",
        "auto r = RDom({{0, 8}});", "g = BoundaryConditions::repeat_edge(f, {});", "e = cast<float>(x);",
        "Func g(\"g\");", "e = Halide::exp(x);"})
    EXPECT_EQ(offences_in("sample", definition, mathematics).size(), 1u) << definition;
  for (const char *look : {"std::getenv(\"X\")", "std::time(nullptr)", "std::chrono::steady_clock::now()",
                           "clock_gettime(CLOCK_MONOTONIC, &t)", "std::random_device d;", "char **e = environ;"})
    EXPECT_GE(offences_in("sample", look, outside).size(), 1u) << look;

  // Neither words nor comparisons are definitions.
  EXPECT_EQ(offences_in("sample", "if (f(x) == 3 || g(x) >= 2 || h(x) != 1) i += j(2);", mathematics), Offences());
  EXPECT_EQ(offences_in("sample", "RDom red = sum.red; Func part = acc.update(0).rfactor(b);", mathematics),
            Offences());
  const std::string hidden =
      "// f.vectorize(x)\n/* f.split(y)\n f.fuse(z) */ s = \"f.tile(\\\" f.in(g)\"; t = R\"x(f.in(\")x\"; c = '\"';\n";
  EXPECT_EQ(offences_in("sample", hidden, scheduling), Offences());
  EXPECT_EQ(offences_in("sample", hidden + "int n = 1'000; f.in(g); // f.in(h)", scheduling),
            Offences{"sample:4: .in("});
  EXPECT_EQ(offences_in("sample", "int i;\n#include \"Halide.h\"", R"(#include\s*[<"]Halide\.h)"),
            Offences{"sample:2: #include \"Halide.h"});
}

}  // namespace
}  // namespace convsmith
