// The wall between mathematics, schedules and run-time, read off the source.
#include "convsmith/file.h"
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <regex>

namespace fs = std::filesystem;

namespace convsmith {
namespace {

// Comments and the insides of string literals blanked out, line breaks and the names of included files kept.
std::string code_of(const std::string &text) {
  std::string code;
  enum { plain, line, block, quote } state = plain;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i], next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (state == plain && c == '/' && (next == '/' || next == '*')) state = next == '/' ? line : block;
    if (state == line && c == '\n') state = plain;
    if (state == quote && c == '\\') {
      i++;
      continue;
    }
    const bool include = state == plain && code.compare(code.rfind('\n') + 1, 8, "#include") == 0;
    const bool edge = c == '"' && !include && (state == plain || state == quote);
    code += state == plain || edge || c == '\n' ? c : ' ';
    if (edge) state = state == plain ? quote : plain;
    if (state == block && c == '*' && next == '/') state = plain, i++;
  }
  return code;
}

std::vector<std::string> offences_in(const std::string &name, const std::string &text, const std::string &pattern) {
  const std::string code = code_of(text);
  const std::regex expression(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator at(code.begin(), code.end(), expression), end; at != end; ++at)
    found.push_back(fmt::format("{}:{}: {}", name, 1 + std::count(code.begin(), code.begin() + at->position(), '\n'), at->str()));
  return found;
}

std::vector<std::string> offences(const std::string &folder, const std::string &pattern, const std::string &but = "") {
  std::vector<std::string> found;
  int files = 0;
  for (auto &entry : fs::recursive_directory_iterator(std::string(CONVSMITH_SOURCE) + "/" + folder)) {
    const std::string path = entry.path().string(), extension = entry.path().extension().string();
    if (extension != ".cpp" && extension != ".h") continue;
    files++;
    if (!but.empty() && path.ends_with(but)) continue;
    for (auto &o : offences_in(path, read_file(path), pattern)) found.push_back(o);
  }
  EXPECT_GT(files, 3) << folder;
  return found;
}

const char *const scheduling =
    R"((\.|->)\s*(compute_at|compute_root|compute_inline|compute_with|store_at|store_root|store_in|vectorize|parallel|unroll|split|tile|fuse|reorder|reorder_storage|rfactor|bound_extent|bound_storage|align_storage|align_bounds|fold_storage|specialize|prefetch|hoist_storage|partition|async|atomic|serial|gpu_\w+|set_estimate\w*|in)\s*\()";
// A Func defined or updated, or something to define one with.
const char *const mathematics =
    R"((\)\s*(\+|-|\*|/)?=[^=])|\bBoundaryConditions\b|\bselect\s*\(|\bmux\s*\(|\bRDom\s+\w+\s*\(|\bcast\s*[<(]|\bsum\s*\(\s*\w+\s*\()";
const char *const outside =
    R"(\bgetenv\b|\bchrono\b|\bclock\b|\bgettimeofday\b|\btime\s*\(|\brandom_device\b|\bhardware_concurrency\b|\bget_host_target\b)";

TEST(Architecture, GeneratorsScheduleNothing) { EXPECT_EQ(offences("generators", scheduling), std::vector<std::string>()); }
TEST(Architecture, SchedulesDefineNoMathematics) { EXPECT_EQ(offences("schedules", mathematics), std::vector<std::string>()); }
TEST(Architecture, NeitherLooksOutside) {
  EXPECT_EQ(offences("generators", outside), std::vector<std::string>());
  EXPECT_EQ(offences("schedules", outside, "levels.cpp"), std::vector<std::string>());  // which names the host, when asked
}
TEST(Architecture, TheRuntimeHasNoCompiler) {
  EXPECT_EQ(offences("runtime", R"(#include\s*[<"]Halide\.h|\bHalide::(Func|Expr|Internal)\b)"), std::vector<std::string>());
  EXPECT_EQ(offences("runtime", R"(#include\s*[<"](fmt|nlohmann|CLI|generators|schedules|tools)\b)"), std::vector<std::string>());
}
TEST(Architecture, OneFileLooksInsideHalide) {
  for (const char *folder : {"generators", "schedules", "tools"})
    EXPECT_EQ(offences(folder, R"(\bInternal::)", "tools/emit/kernel_worker.cpp"), std::vector<std::string>());
}
TEST(Architecture, GeneratorsDoNotKnowSchedules) {
  EXPECT_EQ(offences("generators", R"(\bschedules/|\bKnobs\b|\bnatural_vector_size\b)"), std::vector<std::string>());
}

// A check that sees nothing would pass too.
TEST(Architecture, ChecksSeeWhatTheyLookFor) {
  for (const char *offence : {"f.vectorize(x, 8);", "f.compute_root ();", "acc.update(0).rfactor(r, u);", "p->parallel(y);", "f.gpu_tile(x, 8);", "w = f.in(g);"})
    EXPECT_EQ(offences_in("sample", offence, scheduling).size(), 1u) << offence;
  for (const char *offence : {"f(x, y) = g(x) + 1;", "f(x) += 2;", "auto e = select(x > 0, 1, 2);", "RDom r(0, 8);", "BoundaryConditions::repeat_edge(f);"})
    EXPECT_EQ(offences_in("sample", offence, mathematics).size(), 1u) << offence;
  for (const char *offence : {"std::getenv(\"X\")", "time(nullptr)", "std::chrono::steady_clock::now()"})
    EXPECT_GE(offences_in("sample", offence, outside).size(), 1u) << offence;
  EXPECT_TRUE(offences_in("sample", "// f.vectorize(x)\n/* f(x) = 1 */ const char *s = \"f.split(x)\";", scheduling).empty());
  EXPECT_EQ(offences_in("sample", "int i;\n#include \"Halide.h\"", R"(#include\s*[<"]Halide\.h)"), std::vector<std::string>{"sample:2: #include \"Halide.h"});
  EXPECT_TRUE(offences_in("sample", "if (f(x) == 3 || g(x) >= 2) {}", mathematics).empty());
}

}  // namespace
}  // namespace convsmith
