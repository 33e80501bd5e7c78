// Programs of other people's: a plain C compiler, the archive, the header and the C library are all they have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "convsmith/file.h"
#include "emitted.h"
#include "tools/emit/c_layer.h"

namespace convsmith {
namespace {

using testing::ElementsAre;

std::string compiled(const TestFolder &folder, const std::string &source, const std::vector<Emitted> &libraries,
                     const std::vector<std::string> &objects = {}) {
  std::vector<std::string> command = {"cc",         "-std=c99", "-O1",  "-Wall", "-Wextra",
                                      "-Wpedantic", "-Werror",  source, "-o",    folder / "program"};
  command.insert(command.end(), objects.begin(), objects.end());
  for (const Emitted &library : libraries) {
    command.push_back("-I" + library.folder.string());
    command.push_back(library.archive());
  }
  command.insert(command.end(), c_library.begin(), c_library.end());
  output_of(command);
  return folder / "program";
}

std::string compiles(const std::string &compiler, const std::string &standard, const std::string &language,
                     const std::string &text, const std::vector<Emitted> &libraries) {
  const TestFolder folder;
  write_file(folder / "source", text);
  std::vector<std::string> command = {compiler, standard, "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"};
  for (const Emitted &library : libraries) command.push_back("-I" + library.folder.string());
  command.insert(command.end(), {"-x", language, folder / "source"});
  return output_of(command);
}

// Whose name differs from the other library's in case alone.
Emitted capital_demo() { return emitted("Demo", {kernel("edge", "forward", "in=6x8 kernel=1x2")}, "x86-64"); }

TEST(EmittedHeader, IsCAndCxx) {
  const std::string text = "#include \"demo.h\"\ndemo_odd_train_step_args args;\n";
  compiles("cc", "-std=c99", "c", text, {demo()});
  compiles("c++", "-std=c++17", "c++", text, {demo()});
}

TEST(EmittedHeader, OfTwoLibrariesTogether) {
  const std::string text =
      "#include \"demo.h\"\n#include \"Demo.h\"\n#include \"demo.h\"\n"
      "demo_edge_forward_args one;\nDemo_edge_forward_args two;\n";
  compiles("cc", "-std=c99", "c", text, {demo(), capital_demo()});
  compiles("c++", "-std=c++17", "c++", text, {demo(), capital_demo()});
}

TEST(EmittedSource, CompilesWithoutWarnings) {
  const TestFolder folder;
  for (const char *optimise : {"-O0", "-O2", "-O3"})
    output_of({"cc", "-std=gnu99", optimise, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", demo().file(".c"), "-o",
               folder / "c_layer.o"});
}

// The worked example of the documentation, in C: the edges, the losses and the kernel to the printed digits.
TEST(Consumer, LearnsTheEdgeKernelInPlainC) {
  const TestFolder folder;
  const std::string edges = "0 1 0 0 0 -1 0";
  EXPECT_THAT(lines_of(output_of({compiled(folder, consumer_source("edge.c"), {demo()})})),
              ElementsAre(edges, edges, edges, edges, edges, edges, "step 2, loss 11.268", "step 4, loss 2.573",
                          "step 6, loss 0.712", "step 8, loss 0.234", "step 10, loss 0.086", "0.9558 -1.0140"));
}

TEST(Consumer, KeepsTensorsOnTheDevice) {
  const TestFolder folder;
  const Emitted photo = emitted("photo", {kernel("blur", "forward", "in=6x8 kernel=3 pad=1")}, "opencl,x86-64");
  output_of({"cc", "-std=gnu99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", photo.file(".c"), "-o", folder / "c_layer.o"});
  EXPECT_THAT(lines_of(output_of({compiled(folder, consumer_source("device.c"), {photo})})),
              ElementsAre("opencl", "420 bytes there, 192 back", "243 81"));
}

// A driver that stands in for CUDA's, and what it was asked for: "what address address" a line.
class CudaDriver {
 public:
  std::string output(const std::string &program, const std::vector<std::string> &settings = {}) {
    std::filesystem::remove(folder_ / "log");
    std::vector<std::string> command = {"env", "LD_LIBRARY_PATH=" CONVSMITH_STAND_IN_CUDA, "STAND_IN_CUDA_LOG=" + (folder_ / "log")};
    command.insert(command.end(), settings.begin(), settings.end());
    command.push_back(program);
    return output_of(command);
  }
  std::vector<std::string> asked_for(const std::string &what) const {
    std::vector<std::string> found;
    for (const std::string &line : lines_of(read_file(folder_ / "log")))
      if (line.starts_with(what + " ")) found.push_back(line);
    return found;
  }

 private:
  TestFolder folder_;
};

Emitted photo_for_cuda() {
  return emitted("photo", {kernel("blur", "forward", "in=6x8 kernel=3 pad=1"), kernel("mix", "forward", "ic=4 oc=4 in=6x8 kernel=1")}, "cuda-8.0,x86-64");
}

TEST(Consumer, CallsInItsOwnContextOfCudaAndOnItsStream) {
  const TestFolder folder;
  const Emitted photo = photo_for_cuda();
  output_of({"cc", "-std=gnu99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", photo.file(".c"), "-o", folder / "c_layer.o"});
  CudaDriver driver;
  const std::vector<std::string> said = lines_of(driver.output(compiled(folder, consumer_source("cuda.c"), {photo})));
  ASSERT_EQ(said.size(), 7u);
  EXPECT_THAT(said, ElementsAre(testing::StartsWith("at "), "cuda-8.0", "wrapped 1", "back 47", "from ours 3",
                                "wrap: expected memory aligned to 16 bytes, g",
                                "photo_mix_forward: x: axis 2: expected a stride that is a multiple of 4 with CUDA, got 33"));
  const std::string context = said[0].substr(3, said[0].rfind(' ') - 3), stream = said[0].substr(said[0].rfind(' ') + 1);
  EXPECT_THAT(driver.asked_for("create"), testing::IsEmpty());
  EXPECT_THAT(driver.asked_for("launch"), ElementsAre("launch " + stream + " " + context));
  EXPECT_THAT(driver.asked_for("load"), ElementsAre(testing::EndsWith(context)));
  EXPECT_THAT(driver.asked_for("alloc"), testing::Each(testing::EndsWith(context)));
  EXPECT_THAT(driver.asked_for("wait"), testing::Each("wait " + stream + " " + context));
  EXPECT_EQ(driver.asked_for("unload").size(), 1u);
  EXPECT_EQ(driver.asked_for("free").size(), driver.asked_for("alloc").size());
}

TEST(Consumer, KeepsTheDevicesMemoryAndGivesItBack) {
  const TestFolder folder;
  CudaDriver driver;
  const std::string program = compiled(folder, consumer_source("device.c"), {photo_for_cuda()});
  EXPECT_THAT(lines_of(driver.output(program)), ElementsAre("cuda-8.0", "420 bytes there, 192 back", testing::_));
  EXPECT_EQ(driver.asked_for("create").size(), 1u);
  EXPECT_EQ(driver.asked_for("destroy").size(), 1u);
  EXPECT_EQ(driver.asked_for("launch").size(), 2u);
  EXPECT_EQ(driver.asked_for("load").size(), driver.asked_for("unload").size());
  EXPECT_EQ(driver.asked_for("alloc").size(), driver.asked_for("free").size());
}

TEST(Consumer, SaysWhatTheDeviceLacks) {
  const TestFolder folder;
  CudaDriver driver;
  const std::string program = compiled(folder, consumer_source("device.c"), {photo_for_cuda()});
  EXPECT_THAT(driver.output(program, {"STAND_IN_CUDA_BYTES=600"}), testing::HasSubstr("to_device: out of memory on the device"));
  // An older device: the processor's level, which the program allows.
  EXPECT_EQ(lines_of(driver.output(program, {"STAND_IN_CUDA_CAPABILITY=75"}))[0], "x86-64");
}

// Errors, allocators and threads of one are not those of another.
TEST(Consumer, TwoLibrariesBesideTheHostsOwnHalide) {
  const TestFolder folder;
  compile_runtime("x86-64", folder / "runtime.o");
  const Emitted other = emitted("other", {kernel("layer", "forward", "ic=64 oc=64 in=28x28 kernel=3 pad=1 border=reflect")}, "host");
  EXPECT_THAT(
      lines_of(
          output_of({compiled(folder, consumer_source("two_libraries.c"), {demo(), other}, {folder / "runtime.o"})})),
      ElementsAre(
          "demo: 0, 15 10", "other: 0, 576 576", "other without memory: 2, asked, other_layer_forward: out of memory",
          "host after the libraries: 0 errors, 0 allocations", "host's own: 1 errors, 1 allocations, 3 threads"));
}

TEST(Archive, ShowsOnlyItsPublicSymbols) {
  EmittedLibrary lib{"demo", {}, {}};
  for (const KernelRequest &request : demo_kernels())
    for (const PassKind pass : request.passes) lib.passes.push_back({request.name, pass_name(pass), "", {}});
  std::vector<std::string> shown;
  for (const std::string &line : lines_of(output_of({"nm", "--defined-only", "--extern-only", "-P", demo().archive()})))
    if (line.find(' ') != std::string::npos) shown.push_back(line.substr(0, line.find(' ')));
  EXPECT_THAT(shown, testing::UnorderedElementsAreArray(public_symbols(lib)));
  EXPECT_THAT(shown, testing::Each(testing::Not(testing::HasSubstr("halide"))));
  EXPECT_THAT(shown, testing::IsSupersetOf({"demo_library", "demo_edge_forward", "demo_odd_train_step_init"}));
}

TEST(Archive, NeedsNothingButTheCLibrary) {
  const TestFolder folder;
  std::vector<std::string> command = {"cc", "-shared", "-nostdlib", "-Wl,-z,defs", "-o", folder / "library.so"};
  command.insert(command.end(), {"-Wl,--whole-archive", demo().archive(), "-Wl,--no-whole-archive"});
  command.insert(command.end(), c_library.begin(), c_library.end());
  command.push_back("-lc");
  output_of(command);
  for (const std::string &line : lines_of(output_of({"nm", "--undefined-only", "-P", demo().archive()})))
    EXPECT_THAT(line, testing::Not(testing::AnyOf(testing::StartsWith("printf "), testing::StartsWith("puts "),
                                                  testing::StartsWith("exit "))));
}

// One copy of a function that several levels share would run another level's instructions.
TEST(Archive, KernelsShareNoCode) {
  const TestFolder folder;
  for (const char *level : {"x86-64-avx512-vnni", "x86-64"}) {
    KernelJob job;
    job.problem = "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1", job.pass = "forward", job.target = level, job.cpu = "*";
    job.function = "k", job.object = folder / "k.o";
    compile_kernel(job);
    std::vector<std::string> defined;
    for (const std::string &line : lines_of(output_of({"nm", "--defined-only", "--extern-only", "-P", job.object})))
      defined.push_back(line.substr(0, line.find(' ')));
    EXPECT_THAT(defined, testing::UnorderedElementsAre("k", "k_argv")) << level;
  }
}

}  // namespace
}  // namespace convsmith
