// From requests to files: the same bytes every time, constants in the code, and failures that leave things as they
// were.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cstdlib>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/npy.h"
#include "emitted.h"
#include "tools/verify/certificate.h"
#include "tools/verify/reference.h"

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
  } catch (const Error &e) {
    return e.what();
  }
  return "emitted";
}

TEST(Emission, GivesTheSameBytesWhereverAndWhoeverAsks) {
  const TestFolder one, other;
  const std::vector<KernelRequest> kernels = {kernel("edge", "all", "in=6x8 kernel=1x2"),
                                              kernel("layer", "forward", "ic=8 oc=16 in=9x9 kernel=3 pad=1")};
  emit_library(kernels, options(one.path()));
  setenv("HL_NUM_THREADS", "7", 1), setenv("HL_TARGET", "x86-64-linux", 1), setenv("HL_JIT_TARGET", "x86-64-linux", 1);
  setenv("LANG", "tr_TR.UTF-8", 1), setenv("LC_ALL", "de_DE.UTF-8", 1), setenv("TZ", "Asia/Tokyo", 1);
  setenv("CONVSMITH_CACHE", (other / "cache").c_str(), 1);
  emit_library(kernels, options(other / "deeper/folder"));
  for (const char *file : {"liblib.a", "lib.h", "lib.c", "lib.json"})
    EXPECT_EQ(read_file(one / file), read_file((other / "deeper/folder/") + file)) << file;
}

TEST(Emission, CompilesLearntWeightsIn) {
  const TestFolder folder;
  const Problem p = Problem::parse("ic=3 oc=5 in=9x7 kernel=3x2 pad=1");
  const Tensor weight(p.weight_shape());
  fill_integers(weight, 9);
  write_npy(folder / "w.npy", weight);
  KernelRequest constant = kernel("k", "forward,input_gradient", p.str());
  std::erase_if(constant.passes, [](PassKind pass) {
    return pass == PassKind::pack_weight || pass == PassKind::pack_weight_for_input_gradient;
  });
  const Library plain = emitted("plain", {kernel("k", "forward,input_gradient", p.str())}, "host").open();
  constant.weight = folder / "w.npy";
  const Library baked = emitted("baked", {constant}, "host").open();
  for (auto [pass, packer] :
       {std::pair("forward", "pack_weight"), std::pair("input_gradient", "pack_weight_for_input_gradient")}) {
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

// Plain, in panels and in fours, rounded to 16 bits and flattened: the certificate holds each against the file.
TEST(Emission, CompilesTheWeightsOfEveryOperatorIn) {
  const TestFolder folder;
  std::vector<KernelRequest> kernels;
  for (const char *problem :
       {"n=? in=?x? kernel=5 pad=2 border=replicate", "ic=160 oc=128 in=7x7 kernel=3 pad=1",
        "ic=8 oc=16 in=9x9 kernel=3 pad=1 type=u8s8 out_type=u8 scale=channel bias=1", "ic=3 oc=5 in=9x9 kernel=3 type=bf16",
        "op=transposed ic=160 oc=128 in=4x4 kernel=3 stride=2", "op=local ic=3 oc=10 in=7x8 kernel=3 pad=1",
        "op=dense ic=3 oc=5 in=4x6 out=3x2 n=3 layout=channels_first", "op=dense ic=3 oc=5 in=4x6 out=3x2 n=3"}) {
    const std::string name = "k" + std::to_string(kernels.size());
    const Problem p = Problem::parse(problem);
    KernelRequest k{name, {PassKind::forward}, p, folder / (name + ".npy"), {}};
    if (p.type != Type::u8s8) k.passes.push_back(PassKind::input_gradient);
    const Tensor weight(p.weight_shape());
    fill_integers(weight, kernels.size());
    if (p.type != Type::u8s8) weight.scale(0.3f);
    write_npy(k.weight, p.type == Type::u8s8 ? weight.as(CONVSMITH_S8) : weight);
    kernels.push_back(k);
  }
  const nlohmann::json m = emit_library(kernels, options(folder.path()));
  for (auto &level : m["certificate"]["levels"]) {
    EXPECT_EQ(level["passes"].size(), 2 * kernels.size() - 1);
    for (auto &pass : level["passes"])
      EXPECT_GT(pass["exact_elements"].get<int>() + pass["real_elements"].get<int>(), 0) << pass;
  }
}

TEST(Emission, CertificateTellsWhatItLeavesOut) {
  const TestFolder folder;
  EmitOptions o = options(folder.path());
  o.targets = "x86-64";
  const nlohmann::json m = emit_library({kernel("large", "forward,train_step", "ic=64 oc=64 in=160x160 kernel=3 pad=1")}, o);
  const auto &passes = m["certificate"]["levels"][0]["passes"];
  ASSERT_EQ(passes.size(), 3u);  // the weights' packing among them
  for (auto &pass : passes) EXPECT_EQ(pass.contains("not_run"), pass["pass"] == "train_step") << pass;
}

TEST(Emission, ManifestTellsWhatIsInside) {
  const TestFolder folder;
  const nlohmann::json m =
      emit_library({kernel("layer", "all", "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1")}, options(folder.path()));
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "lib.json")), m);
  EXPECT_EQ(m["name"], "lib");
  EXPECT_EQ(m["abi"], CONVSMITH_ABI);
  EXPECT_THAT(m["convsmith"].get<std::string>(), testing::MatchesRegex("[0-9]+[.][0-9]+[.][0-9]+"));
  EXPECT_EQ(m["levels"], (std::vector<std::string>{"x86-64-avx2", "x86-64"}));
  EXPECT_EQ(m["archive_bytes"], read_file(folder / "liblib.a").size());
  EXPECT_EQ(m["halide"], "21.0.0");
  ASSERT_EQ(m["licences"].size(), 2u);
  for (const auto &licence : m["licences"]) EXPECT_THAT(licence["notice"].get<std::string>(), HasSubstr("MIT"));
  EXPECT_EQ(m["kernels"][0]["name"], "layer");
  EXPECT_EQ(m["kernels"][0]["problem"], "ic=5 oc=7 in=9x11 kernel=3 pad=1 bias=1");
  EXPECT_EQ(m["kernels"][0]["constant_weights"], false);
  std::vector<std::string> passes;
  for (const auto &pass : m["kernels"][0]["passes"]) passes.push_back(pass["pass"]);
  EXPECT_THAT(passes, testing::ElementsAre("forward", "input_gradient", "weight_gradient", "bias_gradient",
                                           "pack_weight", "pack_weight_for_input_gradient", "train_step"));
  const auto &forward = m["kernels"][0]["passes"][0];
  EXPECT_EQ(forward["function"], "lib_layer_forward");
  std::vector<std::string> arguments;
  for (const auto &argument : forward["arguments"]) arguments.push_back(argument["name"]);
  EXPECT_THAT(arguments, testing::ElementsAre("x", "weight", "bias", "y"));
  EXPECT_EQ(forward["arguments"][0]["extents"], (std::vector<int>{1, 5, 9, 11}));
  EXPECT_EQ(forward["arguments"][0]["strides"], (std::vector<int>{495, 1, 55, 5}));
  EXPECT_EQ(forward["levels"].size(), 2u);
  EXPECT_THAT(forward["levels"][0]["schedule"].get<std::string>(), HasSubstr("cpu_direct@"));
  EXPECT_GT(forward["levels"][0]["object_bytes"], 1000);
  EXPECT_EQ(forward["levels"][0]["level"], "x86-64-avx2");
  EXPECT_THAT(forward["levels"][0]["knobs"].get<std::string>(), HasSubstr("tile="));
  EXPECT_THAT(forward["levels"][0]["why"].get<std::string>(), HasSubstr("no record"));
  EXPECT_TRUE(forward["levels"][0]["workspace_bytes"]["call"].is_number());
  EXPECT_TRUE(forward["levels"][0]["workspace_bytes"]["thread"].is_number());
  const auto &certificate = m["certificate"]["levels"];
  ASSERT_EQ(certificate.size(), 2u);
  EXPECT_EQ(certificate[1]["passes"].size(), m["kernels"][0]["passes"].size());
  EXPECT_GT(certificate[1]["passes"][0]["exact_elements"], 0);
  EXPECT_LE(certificate[1]["passes"][0]["worst_share_of_bound"], 1);
}

TEST(Emission, RefusesConstantWeightsThatDoNotFit) {
  const TestFolder folder;
  write_npy(folder / "w.npy", Tensor({1, 1, 2, 1}));
  KernelRequest k = kernel("edge", "forward", "in=6x8 kernel=1x2");
  k.weight = folder / "w.npy";
  EXPECT_EQ(words_of({k}, options(folder.path())), (folder / "w.npy") + ": expected weights 1x1x1x2, got 1x1x2x1");
  k.passes = {PassKind::weight_gradient};
  EXPECT_EQ(words_of({k}, options(folder.path())),
            "kernel edge: pass weight_gradient makes no sense with constant weights");
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

// Stands for a fault of the compiler: a library that is loaded into the child ends it by a signal before it begins.
TEST(Emission, ACompilerThatDiesIsAnError) {
  const TestFolder folder;
  write_file(folder / "die.c",
             "#include <signal.h>\n__attribute__((constructor)) static void die(void) { raise(SIGKILL); }\n");
  output_of({"cc", "-shared", "-fPIC", folder / "die.c", "-o", folder / "die.so"});
  KernelJob job;
  job.problem = "in=6x8 kernel=1x2", job.pass = "forward", job.target = "x86-64", job.cpu = "*";
  job.function = "k", job.object = folder / "k.o";
  std::string message = "compiled";
  setenv("LD_PRELOAD", (folder / "die.so").c_str(), 1);
  try {
    compile_kernel(job);
  } catch (const InternalError &e) {
    message = e.what();
  }
  unsetenv("LD_PRELOAD");
  EXPECT_EQ(message, "forward of \"in=6x8 kernel=1x2\": the compiler died of signal 9");
  compile_kernel(job);
}

TEST(Emission, CompilesWhatATargetAsksWhateverTheMachine) {
  const TestFolder folder;
  KernelJob job;
  job.problem = "ic=16 oc=32 in=14x14 kernel=3 pad=1", job.pass = "forward", job.cpu = "*", job.function = "k";
  for (const char *target : {"x86-64", "x86-64-avx2", "x86-64-avx512", "x86-64-avx512-vnni", "x86-64-avx512-fp16"}) {
    job.target = target, job.object = folder / target, job.assembly = folder / "k.s";
    compile_kernel(job);
    const std::string assembly = read_file(folder / "k.s");
    EXPECT_EQ(assembly.find("zmm") != std::string::npos, std::string(target).find("avx512") != std::string::npos)
        << target;
    EXPECT_EQ(assembly.find("vfmadd") != std::string::npos, std::string(target) != "x86-64") << target;
  }
}

}  // namespace
}  // namespace convsmith
