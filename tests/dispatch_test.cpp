// Instruction levels: which one a processor gets, that each is right, and that none uses what its check does not ask
// for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fstream>
#include <future>
#include <map>
#include <set>
#include <sstream>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "emitted.h"
#include "tools/support/process.h"
#include "tools/verify/certificate.h"

namespace convsmith {
namespace {

const std::vector<std::string> all_levels = {"x86-64-avx512-fp16", "x86-64-avx512-vnni", "x86-64-avx512", "x86-64-avx2", "x86-64"};

#if defined(__x86_64__)

// What the system says, by its own names: another source than the library's CPUID.
std::set<std::string> system_levels() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; flags.empty() && std::getline(file, line);)
    if (line.starts_with("flags")) {
      std::istringstream words(line.substr(line.find(':') + 1));
      for (std::string word; words >> word;) flags.insert(word);
    }
  std::set<std::string> levels = {"x86-64"};
  const auto has = [&](const std::vector<const char *> &names) { return std::all_of(names.begin(), names.end(), [&](auto name) { return flags.count(name); }); };
  const std::pair<const char *, std::vector<const char *>> needs[] = {
      {"x86-64-avx2", {"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "popcnt", "ssse3", "sse4_1", "sse4_2"}},
      {"x86-64-avx512", {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}}};
  for (const auto &[level, names] : needs) {
    if (!has(names)) return levels;
    levels.insert(level);
  }
  if (has({"avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq", "avx512_bf16", "gfni"})) {
    if (has({"sse4a"})) levels.insert("x86-64-avx512-vnni");
    if (has({"avx512_fp16", "avx_vnni", "vaes", "vpclmulqdq", "sha_ni"})) levels.insert("x86-64-avx512-fp16");
  }
  return levels;
}

std::string best_of(const std::set<std::string> &levels) {
  for (const std::string &level : all_levels)
    if (levels.count(level)) return level;
  return "none";
}

// What levels.c must print on a processor with these levels.
std::vector<std::string> right_answers(const std::set<std::string> &levels) {
  std::vector<std::string> lines = {"chosen: " + best_of(levels), best_of(levels) + ": 0 wrong"};
  std::string now = best_of(levels);
  for (const std::string &level : all_levels)
    lines.push_back(levels.count(level) ? (now = level) + ": 0 wrong"
                                        : level + ": status 3, stays so: level " + level +
                                              ": this processor lacks some of its instructions");
  return lines;
}

class Dispatch : public testing::Test {
 protected:
  Dispatch() : program_(folder_ / "levels") {
    std::vector<std::string> command = {"cc", "-std=c99", "-O0", consumer_source("levels.c"), "-o", program_};
    command.insert(command.end(), {"-I" + demo().folder.string(), demo().archive()});
    command.insert(command.end(), c_library.begin(), c_library.end());
    output_of(command);
  }
  TestFolder folder_;
  std::string program_;
};

TEST_F(Dispatch, TakesTheBestLevelOfThisProcessor) {
  EXPECT_THAT(lines_of(output_of({program_})), testing::ElementsAreArray(right_answers(system_levels())));
  for (const std::string &level : all_levels)
    if (!system_levels().count(level)) std::cout << level << " cannot run on this processor\n";
}

// Emulated processors, also such as lack one feature of a level.
TEST_F(Dispatch, TakesTheBestLevelOfOtherProcessors) {
  if (!has_command("qemu-x86_64")) GTEST_SKIP() << "needs qemu-x86_64";
  const std::set<std::string> base = {"x86-64"}, haswell = {"x86-64", "x86-64-avx2"};
  EXPECT_THAT(lines_of(output_of({"qemu-x86_64", "-cpu", "Nehalem", program_})),
              testing::ElementsAreArray(right_answers(base)));
  const ProcessResult r = run_process({"qemu-x86_64", "-cpu", "Haswell", program_});
  if (r.out.starts_with("chosen: x86-64\n")) GTEST_SKIP() << "this qemu emulates no AVX2";
  EXPECT_THAT(lines_of(r.out), testing::ElementsAreArray(right_answers(haswell)));
  for (const char *lacking :
       {"fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "popcnt", "avx", "avx2", "xsave", "ssse3", "sse4.1"})
    EXPECT_THAT(lines_of(output_of({"qemu-x86_64", "-cpu", std::string("Haswell,-") + lacking, program_})),
                testing::ElementsAreArray(right_answers(base)))
        << "without " << lacking;
}

TEST(Levels, EveryOneIsExactOnIntegers) {
  const Library library = demo().open();
  EXPECT_EQ(library.levels(), all_levels);
  EXPECT_EQ(library.level(), best_of(system_levels()));
  for (const std::string &level : library.levels()) {
    if (!system_levels().count(level)) {
      std::cout << level << " cannot run on this processor\n";
      const std::string before = library.level();
      EXPECT_THROW(library.set_level(level), Error);
      EXPECT_EQ(library.level(), before);
      continue;
    }
    library.set_level(level);
    EXPECT_EQ(library.level(), level);
    for (const KernelRequest &request : demo_kernels()) {
      std::int64_t exact = 0;
      for (const PassFigures &figures : check_kernel(library, request, 3)) exact += figures.exact_elements;
      EXPECT_GT(exact, 0) << level;
    }
  }
}

TEST(Levels, RefusesWhatIsNoLevel) {
  const Library library = demo().open();
  convsmith_error error{};
  const std::int32_t levels = std::int32_t(all_levels.size());
  for (const std::int32_t level : {-2, levels, INT32_MAX}) {
    EXPECT_EQ(library.table().set_level(level, &error), CONVSMITH_BAD_ARGUMENT);
    EXPECT_EQ(error.message, "level: expected 0 to " + std::to_string(levels - 1) + ", got " + std::to_string(level));
    EXPECT_EQ(library.table().set_level(level, nullptr), CONVSMITH_BAD_ARGUMENT);
  }
}

TEST(Levels, AnyIsTheFirstThatTheProcessorHas) {
  const Library library = demo().open();
  const std::string best = library.level();
  library.set_level("x86-64");
  EXPECT_EQ(library.level(), "x86-64");
  library.set_level("any");
  EXPECT_EQ(library.level(), best);
}

#endif

// The assembler's names for exactly what `supports_level` of the C layer asks CPUID for, level by level.
const std::map<std::string, std::string> checked_features = [] {
  const std::string base = "generic64", avx2 = base + "+sse4.2+avx2+fma+f16c+bmi+bmi2+lzcnt+movbe+popcnt",
                    avx512 = avx2 + "+avx512f+avx512cd+avx512dq+avx512bw+avx512vl",
                    both = avx512 +
                           "+avx512ifma+avx512vbmi+avx512_vbmi2+avx512_vnni+avx512_bitalg+avx512_vpopcntdq"
                           "+avx512_bf16+gfni",
                    vnni = both + "+sse4a", fp16 = both + "+avx512_fp16+avx_vnni+vaes+vpclmulqdq+sha";
  return std::map<std::string, std::string>{
      {"x86-64", base}, {"x86-64-avx2", avx2}, {"x86-64-avx512", avx512}, {"x86-64-avx512-vnni", vnni}, {"x86-64-avx512-fp16", fp16}};
}();

// The instructions of an object as an assembler reads them again; targets of jumps and padding say nothing here, and
// `rep bsf`, which every processor runs, is disassembled as the tzcnt that it is on newer ones.
std::string instructions_of(const std::string &object) {
  std::string source;
  for (std::string line : lines_of(output_of({"objdump", "-d", "--no-show-raw-insn", "--no-addresses", object}))) {
    if (!line.starts_with("\t") || line.find("nop") != std::string::npos) continue;
    line = line.substr(0, line.find('#'));
    if (const std::size_t symbol = line.find('<'); symbol != std::string::npos)
      line.replace(symbol, line.find('>') + 1 - symbol, "0");
    if (line.starts_with("\ttzcnt")) line.replace(1, 5, "bsf");
    source += line + "\n";
  }
  return source;
}

// The assembler's complaints, one for each instruction that needs more than these features.
std::string foreign_instructions(const std::string &source, const std::string &features) {
  const TestFolder folder;
  write_file(folder / "source.s", source);
  const ProcessResult r = run_process({"as", "-march=" + features, "-o", folder / "object.o", folder / "source.s"});
  return r.exit_code == 0 ? "" : r.err.substr(0, 2000);
}

// Each also lacks what AMD or Intel alone has, or what came later; a check that could not see it would be none.
TEST(Instructions, ForeignOnesAreSeen) {
  const std::vector<std::pair<std::string, std::vector<const char *>>> foreign = {
      {"x86-64", {"vaddps %xmm0,%xmm1,%xmm2", "pshufb %xmm0,%xmm1", "popcnt %eax,%eax", "shlx %eax,%ebx,%ecx"}},
      {"x86-64-avx2",
       {"vaddps %zmm0,%zmm1,%zmm2", "vaddps %ymm0,%ymm1,%ymm2{%k1}", "kmovw %k0,%eax", "adcx %eax,%ebx"}},
      {"x86-64-avx512", {"vpdpbusd %zmm0,%zmm1,%zmm2", "vpermb %zmm0,%zmm1,%zmm2", "vdpbf16ps %zmm0,%zmm1,%zmm2",
        "extrq $1,$2,%xmm1", "insertq %xmm0,%xmm1", "movntss %xmm0,(%rax)", "vgf2p8affineqb $1,%zmm0,%zmm1,%zmm2"}},
      {"x86-64-avx512-vnni",
       {"clzero", "monitorx", "mwaitx", "vfmaddps %xmm0,%xmm1,%xmm2,%xmm3", "vpcomb $1,%xmm0,%xmm1,%xmm2",
        "vaesenc %zmm0,%zmm1,%zmm2", "vpclmulqdq $1,%zmm0,%zmm1,%zmm2", "tdpbssd %tmm0,%tmm1,%tmm2",
        "vaddph %zmm0,%zmm1,%zmm2", "vp2intersectd %zmm0,%zmm1,%k0", "sha1msg1 %xmm0,%xmm1", "prefetchw (%rax)",
        "{vex} vpdpbusd %ymm0,%ymm1,%ymm2", "blcs %eax,%ebx"}},
      {"x86-64-avx512-fp16",
       {"extrq $1,$2,%xmm1", "insertq %xmm0,%xmm1", "movntss %xmm0,(%rax)", "tdpbssd %tmm0,%tmm1,%tmm2", "vp2intersectd %zmm0,%zmm1,%k0",
        "movdiri %eax,(%rbx)", "movdir64b (%rax),%rbx", "serialize", "tpause %eax", "cldemote (%rax)", "prefetchw (%rax)", "adcx %eax,%ebx",
        "{vex} vpdpbssd %ymm0,%ymm1,%ymm2", "vcvtneobf162ps (%rax),%ymm0"}}};
  const std::map<std::string, const char *> own = {{"x86-64", "addps %xmm0,%xmm1"},
                                                   {"x86-64-avx2", "vfmadd231ps %ymm0,%ymm1,%ymm2"},
                                                   {"x86-64-avx512", "vaddps %zmm0,%zmm1,%zmm2{%k1}{z}"},
                                                   {"x86-64-avx512-vnni", "vpdpbusd %zmm0,%zmm1,%zmm2"},
                                                   {"x86-64-avx512-fp16", "vcvtph2psx %ymm0,%zmm1"}};
  for (const auto &[level, instruction] : own)
    EXPECT_EQ(foreign_instructions(std::string("\t") + instruction + "\n", checked_features.at(level)), "") << level;
  for (const auto &[level, list] : foreign)
    for (const char *instruction : list)
      EXPECT_NE(foreign_instructions(std::string("\t") + instruction + "\n", checked_features.at(level)), "")
          << instruction << " at " << level;
}

// Every pass of a small layer, and the contractions of two whose borders, strides and groups take other loops.
std::string instructions_at(const std::string &level) {
  const TestFolder folder;
  std::vector<KernelJob> jobs;
  const auto add = [&](const char *passes, const char *problem) {
    for (const PassKind pass : parse_passes(passes, Problem::parse(problem))) {
      KernelJob job;
      job.problem = problem, job.pass = pass_name(pass), job.target = level, job.cpu = "*";
      job.function = "kernel" + std::to_string(jobs.size()), job.object = folder / (job.function + ".o");
      jobs.push_back(job);
    }
  };
  add("all", "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1 activation=relu");
  add("forward,weight_gradient", "ic=3 oc=64 in=29x29 kernel=7 stride=2 pad=3");
  add("forward,input_gradient", "ic=16 oc=16 groups=16 in=30x30 kernel=3 pad=1 layout=channels_first");
  add("forward,input_gradient,weight_gradient", "ic=8 oc=16 in=12x12 kernel=3 pad=1 type=f16 activation=gelu bias=1");
  add("forward,input_gradient,weight_gradient", "ic=8 oc=16 in=12x12 kernel=3 pad=1 type=bf16 activation=tanh bias=1");
  add("forward", "ic=8 oc=16 in=12x12 kernel=3 pad=1 type=u8s8 out_type=u8");
  compile_kernels_in_one_child(jobs);
  std::string all;
  for (const KernelJob &job : jobs) all += instructions_of(job.object);
  return all;
}

TEST(Instructions, KernelsUseWhatIsCheckedAndNoMore) {
  if (!has_command("objdump")) GTEST_SKIP() << "needs objdump and as";
  std::map<std::string, std::future<std::string>> levels;
  for (const auto &[level, features] : checked_features)
    levels[level] = std::async(std::launch::async, instructions_at, level);
  for (const auto &[level, features] : checked_features) {
    const std::string all = levels[level].get();
    EXPECT_EQ(foreign_instructions(all, features), "") << level;
    // And each level is more than the one below.
    EXPECT_EQ(all.find("%zmm") != std::string::npos, level.find("avx512") != std::string::npos) << level;
    EXPECT_EQ(all.find("%ymm") != std::string::npos, level != "x86-64") << level;
  }
}

// The C layer and the run-time, which run before and beside every level.
TEST(Instructions, TheRestOfALibraryIsBaseline) {
  if (!has_command("objdump")) GTEST_SKIP() << "needs objdump and as";
  const Emitted base = emitted("base", {kernel("edge", "forward", "in=6x8 kernel=1x2")}, "x86-64");
  // xgetbv, behind its CPUID bit.
  EXPECT_EQ(foreign_instructions(instructions_of(base.archive()), "generic64+xsave"), "");
}

}  // namespace
}  // namespace convsmith
