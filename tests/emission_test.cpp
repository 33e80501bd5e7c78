// From requests to files: the same bytes every time, constants in the code, and failures that leave things as they were.
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/npy.h"
#include "emitted.h"
#include "tools/verify/certificate.h"
#include "tools/verify/reference.h"
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convsmith {
namespace {

using testing::HasSubstr;

EmitOptions options(const std::string &folder) {
  EmitOptions o;
  o.name = "lib", o.folder = folder, o.targets = "x86-64,x86-64-avx2";
  return o;
}

std::string words_of(const std::vector<KernelRequest> &kernels, const EmitOptions &o) {
  try {
    emit_library(kernels, o);
  } catch (const Error &e) { return e.what(); }
  return "emitted";
}

TEST(Emission, GivesTheSameBytesWhereverAndWhoeverAsks) {
  const TestFolder one, other;
  const std::vector<KernelRequest> kernels = {kernel("edge", "all", "in=6x8 kernel=1x2"), kernel("layer", "forward", "ic=8 oc=16 in=9x9 kernel=3 pad=1")};
  emit_library(kernels, options(one.path()));
  setenv("HL_NUM_THREADS", "7", 1), setenv("HL_TARGET", "x86-64-linux", 1), setenv("LANG", "C", 1);
  emit_library(kernels, options(other / "deeper/folder"));
  unsetenv("HL_NUM_THREADS"), unsetenv("HL_TARGET");
  for (const char *file : {"liblib.a", "lib.h", "lib.c", "lib.json"}) EXPECT_EQ(read_file(one / file), read_file((other / "deeper/folder/") + file)) << file;
}

TEST(Emission, CompilesLearntWeightsIn) {
  const TestFolder folder;
  const Problem p = Problem::parse("ic=3 oc=5 in=9x7 kernel=3x2 pad=1");
  const Tensor weight(p.weight_shape());
  fill_integers(weight, 9);
  write_npy(folder / "w.npy", weight);
  KernelRequest constant = kernel("k", "forward,input_gradient", p.str());
  std::erase_if(constant.passes, [](PassKind pass) { return pass == PassKind::pack_weight || pass == PassKind::pack_weight_for_input_gradient; });
  const Library plain = emitted("plain", {kernel("k", "forward,input_gradient", p.str())}, "host").open();
  constant.weight = folder / "w.npy";
  const Library baked = emitted("baked", {constant}, "host").open();
  for (auto [pass, packer] : {std::pair("forward", "pack_weight"), std::pair("input_gradient", "pack_weight_for_input_gradient")}) {
    Call a(plain, "k", pass), b(baked, "k", pass), pack(plain, "k", packer);
    EXPECT_EQ(a.pass->arguments, b.pass->arguments + 1);
    pack.tensor("from").copy_from(weight);
    ASSERT_EQ(pack.run(), CONVSMITH_OK);
    a["weight"].data = pack.result().data<float>();
    const char *in = pass == std::string("forward") ? "x" : "dy";
    b.tensor(in).copy_from(a.tensor(in));
    ASSERT_EQ(a.run(), CONVSMITH_OK) << a.error.message;
    ASSERT_EQ(b.run(), CONVSMITH_OK) << b.error.message;
    EXPECT_EQ(a.results(), b.results()) << pass;
  }
}

TEST(Emission, ManifestTellsWhatIsInside) {
  const TestFolder folder;
  const nlohmann::json m = emit_library({kernel("layer", "all", "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1")}, options(folder.path()));
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "lib.json")), m);
  EXPECT_EQ(m["levels"], (std::vector<std::string>{"x86-64-avx2", "x86-64"}));
  EXPECT_EQ(m["archive_bytes"], read_file(folder / "liblib.a").size());
  EXPECT_EQ(m["halide"], "21.0.0");
  EXPECT_EQ(m["licences"].size(), 2u);
  const auto &forward = m["kernels"][0]["passes"][0];
  EXPECT_EQ(forward["function"], "lib_layer_forward");
  EXPECT_EQ(forward["arguments"][0]["extents"], (std::vector<int>{1, 5, 9, 11}));
  EXPECT_EQ(forward["arguments"][0]["strides"], (std::vector<int>{495, 1, 55, 5}));
  EXPECT_EQ(forward["levels"].size(), 2u);
  EXPECT_THAT(forward["levels"][0]["schedule"].get<std::string>(), HasSubstr("cpu_direct@"));
  EXPECT_GT(forward["levels"][0]["object_bytes"], 1000);
  EXPECT_TRUE(forward["levels"][0]["workspace_bytes"].contains("thread"));
  const auto &certificate = m["certificate"]["levels"];
  ASSERT_EQ(certificate.size(), 2u);
  EXPECT_EQ(certificate[1]["passes"].size(), m["kernels"][0]["passes"].size());
  EXPECT_GT(certificate[1]["passes"][0]["exact_elements"], 0);
  EXPECT_LE(certificate[1]["passes"][0]["worst_share_of_bound"], 1);
}

// A library with a fault in it gets no certificate.
TEST(Certificate, SeesOneWrongTap) {
  const Library library = emitted("wrong", {kernel("k", "forward", "in=9x9 kernel=3 pad=1")}, "host").open();
  KernelRequest other = kernel("k", "forward", "in=9x9 kernel=3 pad=1");
  EXPECT_NO_THROW(check_kernel(library, other, 1));
  other.problem = Problem::parse("op=convolution in=9x9 kernel=3 pad=1");  // the same extents, the taps backwards
  EXPECT_THROW(check_kernel(library, other, 1), CheckFailed);
}

TEST(Emission, FailuresAreOneLineAndLeaveThingsAlone) {
  const TestFolder folder;
  const std::vector<KernelRequest> kernels = {kernel("edge", "forward", "in=6x8 kernel=1x2")};
  EmitOptions o = options(folder.path());
  emit_library(kernels, o);
  const std::string before = read_file(folder / "liblib.a");

  o.cc = "no-such-compiler";
  EXPECT_THAT(words_of(kernels, o), HasSubstr("no-such-compiler"));
  o.cc = "false";
  EXPECT_THAT(words_of(kernels, o), HasSubstr("false"));
  o = options(folder.path());
  o.name = "9lib";
  EXPECT_EQ(words_of(kernels, o), "--name: expected letters, digits and _, got \"9lib\"");
  o = options(folder.path());
  o.targets = "vax";
  EXPECT_THAT(words_of(kernels, o), HasSubstr("target: expected"));
  o = options(folder / "lib.h");
  EXPECT_THAT(words_of(kernels, o), HasSubstr("expected a folder that can be written"));
  o = options(folder.path());
  auto broken = kernels;
  broken[0].schedule[PassKind::forward] = {"cpu_direct", "tile=1,2,3,4,5,6,7"};
  EXPECT_THAT(words_of(broken, o), HasSubstr("knob tile: expected at most 5 entries, got 7"));
  broken[0].schedule[PassKind::forward] = {"cpu_magic", ""};
  EXPECT_THAT(words_of(broken, o), HasSubstr("schedule: expected one of"));
  broken = kernels;
  broken[0].weight = folder / "missing.npy";
  std::erase(broken[0].passes, PassKind::pack_weight);
  EXPECT_THAT(words_of(broken, o), HasSubstr("missing.npy"));
  EXPECT_EQ(read_file(folder / "liblib.a"), before);
  for (auto &entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_THAT(entry.path().filename().string(), testing::Not(testing::StartsWith("."))) << "left behind";
}

TEST(Emission, CompilesWhatATargetAsksWhateverTheMachine) {
  const TestFolder folder;
  KernelJob job;
  job.problem = "ic=16 oc=32 in=14x14 kernel=3 pad=1", job.pass = "forward", job.cpu = "*", job.function = "k";
  for (const char *target : {"x86-64", "x86-64-avx2", "x86-64-avx512", "x86-64-avx512-vnni"}) {
    job.target = target, job.object = folder / target, job.assembly = folder / "k.s";
    compile_kernel(job);
    const std::string assembly = read_file(folder / "k.s");
    EXPECT_EQ(assembly.find("zmm") != std::string::npos, std::string(target).find("avx512") != std::string::npos) << target;
    EXPECT_EQ(assembly.find("vfmadd") != std::string::npos, std::string(target) != "x86-64") << target;
  }
}

}  // namespace
}  // namespace convsmith
