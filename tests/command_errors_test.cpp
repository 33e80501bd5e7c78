// Words, problems and spec files that mean nothing, or nothing yet: one line that says what was wrong, where, what was
// expected and what came.
#include <fmt/format.h>
#include <cstdlib>
#include <filesystem>
#include "command.h"

namespace convsmith {
namespace {

TEST_F(CommandErrorTest, Usage) {
  const std::string subcommands = "expected a subcommand, one of learn, apply, emit, run, verify, bench, tune, explain, list, cache, got ";
  fail(2, {}, subcommands + "none");
  fail(2, {"train"}, subcommands + "\"train\"");
  fail(2, {"two\nlines"}, subcommands + "\"two\\nlines\"");
  fail(2, {"--bogus"}, "expected a subcommand or an option of convsmith, got \"--bogus\"; see convsmith --help");
  fail(2, {"learn"}, "--from is required; see convsmith learn --help");
  fail(2, {"learn", "--bogus"}, "expected an option of learn, got \"--bogus\"; see convsmith learn --help");
  fail(2, {"cache", "--bogus"}, "expected an option of cache, got \"--bogus\"; see convsmith cache --help");
  fail(2, {"run", edge, "more", "--pass", "forward"},
       "expected no more arguments to run, got \"more\"; see convsmith run --help");
  fail(2, {"list", "everything"},
       "WHAT: expected one of operators, passes, schedules, targets, records, got \"everything\"; see convsmith list "
       "--help");
  fail(2, {"verify", edge, "--schedules", "cpu_direkt"},
       "--schedules: expected one of chosen, all, extremes, got \"cpu_direkt\"; see convsmith verify --help");
  fail(2, learn({"--from"}), HasSubstr("--from"));
  for (const char *threads : {"-1", "1025", "2.5", "many", ""})
    fail(2, {"list", "--threads", threads},
         fmt::format("--threads: expected a whole number from 0 to 1024, got \"{}\"; see convsmith list --help",
                     threads));
}

TEST_F(CommandErrorTest, OptionsOfLearn) {
  for (const char *steps : {"-1", "1e3", "100000001"})
    fail(2, learn({"--steps", steps}),
         fmt::format("--steps: expected a whole number from 0 to 100000000, got \"{}\"; see convsmith learn --help",
                     steps));
  for (const char *rate : {"-1", "0", "nan", "inf", "0.03x", "fast"})
    fail(2, learn({"--lr", rate}), fmt::format("--lr: expected auto or a number above 0, got \"{}\"", rate));
  for (const char *tolerance : {"-1", "nan", "inf", "x"})
    fail(
        2, learn({"--tolerance", tolerance}),
        fmt::format("--tolerance: expected a number of at least 0, got \"{}\"; see convsmith learn --help", tolerance));
  fail(2, learn({"--compare", "edge-x", "--within", "nan"}),
       "--within: expected a number of at least 0, got \"nan\"; see convsmith learn --help");
  fail(2, learn({"--within", "1"}), "--within requires --compare; see convsmith learn --help");
  fail(2, learn({"--seed", "-1"}),
       "--seed: expected a whole number from 0 to 18446744073709551615, got \"-1\"; see convsmith learn --help");
  fail(2, learn({"--loss", "absolute"}), "loss: expected sum_squared or mean_squared, got absolute");
  for (const char *optimizer : {"adam", "momentum:1", "momentum:nan", "momentum:"})
    fail(2, learn({"--optimizer", optimizer}),
         fmt::format("--optimizer: expected sgd, momentum or momentum:B with 0 <= B < 1, got \"{}\"", optimizer));
  fail(2, learn({"--op", "dense"}),
       "--op: expected one of correlation, convolution, got \"dense\"; see convsmith learn --help");
  fail(2, learn({"--pad", "x"}), HasSubstr("pad=x: expected a number or LO:HI"));
  fail(2, learn({"--border", "mirror"}),
       HasSubstr("border=mirror: expected zero, replicate, reflect or wrap, got \"mirror\""));
  fail(2, learn({"--stride", "0"}), HasSubstr("stride=0: expected a number of at least 1"));
  fail(2, learn({"--compare", "blur"}),
       "kernel: expected a .npy file, edge-x, edge-y, sharpen, laplacian, gaussian:SIGMA or box:N, got \"blur\"");
  fail(2, learn({"--compare", "sharpen"}), "--compare sharpen: expected at most 1x2, got 3x3");
  fail(2, learn({}, "a"), HasSubstr("kernel=a: expected a number of at least 1"));
  fail(2, learn({}, "1x2x3"), "@x.npy: expected 3 axes (one sample of one channel) or 5 (N, C and those), got 6x8");
  fail(2, learn({"--out", "@x.npy"}), "--out @x.npy: expected another file than --from @x.npy");
  fail(2, learn({"--out", "@k.npy", "--plot", "@./k.npy"}), "--plot @./k.npy: expected another file than --out @k.npy");
  EXPECT_EQ(listing(), (Words{"a.ppm", "kernel.npy", "start.npy", "x.npy", "y.npy"}));
}

TEST_F(CommandErrorTest, TensorsOfRun) {
  fail(2, {"run", edge, "--pass", "forward", "--x", "@x.npy"},
       "pass forward reads weight: expected --weight FILE, got none");
  fail(2, {"run", edge, "--pass", "train_step", "--x", "@x.npy", "--weight", "@kernel.npy"},
       "pass train_step reads target: expected --tensor target=FILE, got none");
  fail(2, forward(edge, {"--dy", "@y.npy"}), "--dy @y.npy: pass forward does not read it");
  fail(2, forward(edge, {"--tensor", "mask=@y.npy"}), "--tensor mask=@y.npy: pass forward does not read it");
  fail(2, forward(edge, {"--tensor", "x=@y.npy"}), "--tensor x=@y.npy: x is given already, as @x.npy");
  for (const char *word : {"mask", "=", "mask=", "=@y.npy"})
    fail(2, forward(edge, {"--tensor", word}), "--tensor: expected NAME=FILE, got \"" + std::string(word) + "\"");
  fail(2, forward(edge, {"--output", "loss=@l.npy"}), "--output loss=@l.npy: pass forward does not write it");
  fail(2, forward(edge, {"--output", "y=@a.npy", "--output", "y=@b.npy"}),
       "--output y=@b.npy: y is given already, as @a.npy");
  fail(2, forward(edge, {"--output", "y=@a.npy", "--out", "@b.npy"}),
       "--output y=@a.npy: expected it once, got --out @b.npy too");
  write_array("@rate.npy", {1}, {0.03f});
  fail(2,
       {"run", edge, "--pass", "train_step", "--x", "@x.npy", "--weight", "@kernel.npy", "--tensor", "target=@y.npy",
        "--tensor", "rate=@rate.npy", "--output", "weight_out=@o.npy", "--output", "loss=@o.npy"},
       "--output weight_out @o.npy: expected another file than --output loss @o.npy");
  const std::string passes =
      "pass: expected one of forward, input_gradient, weight_gradient, bias_gradient, activation_gradient, "
      "pack_weight, pack_weight_for_input_gradient, train_step, got ";
  for (const char *pass : {"backward", "all", "", "forward,forward"})
    fail(2, {"run", edge, "--pass", pass}, passes + "\"" + pass + "\"");
  fail(2, {"verify", edge, "--passes", "forward,backward"}, passes + "\"backward\"");
  fail(2, {"run", edge, "--pass", "bias_gradient"}, "pass bias_gradient expects bias=1, in \"in=6x8 kernel=1x2\"");
  fail(2, {"run", edge, "--pass", "activation_gradient"},
       "pass activation_gradient expects an activation, in \"in=6x8 kernel=1x2\"");
  EXPECT_FALSE(fs::exists(path("@a.npy")) || fs::exists(path("@b.npy")) || fs::exists(path("@o.npy")));
}

TEST_F(CommandErrorTest, WhatIsNotBuiltYetIsNamed) {
  const std::string problem = edge + " precision=fast", message = fmt::format("precision=fast is not available yet, in \"{}\"", problem);
  fail(2, forward(problem, {"--out", "@out.npy"}), message);
  fail(2, {"verify", problem}, message);
  fail(2, {"emit", problem, "-o", "@out"}, message);
  EXPECT_FALSE(fs::exists(path("@out")) || fs::exists(path("@out.npy")));
}

// Words that make no sense together, and passes that a problem does not have.
TEST_F(CommandErrorTest, PassesThatDoNotFit) {
  const auto run = [&](const std::string &problem, const char *pass, const std::string &message) {
    fail(2, {"run", problem, "--pass", pass}, fmt::format("{}, in \"{}\"", message, problem));
  };
  run("in=6x8 kernel=1x2", "bias_gradient", "pass bias_gradient expects bias=1");
  run("in=6x8 kernel=1x2", "activation_gradient", "pass activation_gradient expects an activation");
  for (const char *activation : {"silu", "gelu", "leaky_relu:-0.5"})
    run(fmt::format("in=6x8 kernel=1x2 activation={}", activation), "activation_gradient",
        "pass activation_gradient expects save=pre with this activation");
  for (const char *pass : {"input_gradient", "weight_gradient", "train_step"})
    run("in=6x8 kernel=1x2 type=u8s8", pass, fmt::format("pass {} expects a type with gradients, got type=u8s8", pass));
  run("in=6x8 kernel=1x2 type=u8s8 activation=relu save=pre", "forward",
      "save=pre: expected none for type=u8s8, which has no gradients");
  run("in=6x8 kernel=1x2 type=u8s8 out_type=i32 activation=gelu", "forward",
      "activation: expected none or relu for out_type=i32, a result of whole numbers");
  run("ic=8000 in=6x8 kernel=3 type=u8s8", "forward",
      "type=u8s8: 72000 products a sum may pass 32 bits; more than 33024 is not available yet");
}

TEST_F(CommandErrorTest, ExtentsThatAreOpen) {
  const Words given = {"--x", "@x.npy", "--weight", "@kernel.npy"};
  const auto run = [&](const std::string &problem, const Words &more) { return Words{"run", problem, "--pass", "forward"} + given + more; };
  fail(2, run("in=?x8 kernel=1x2", {"--size", "in_h"}), "--size: expected NAME=NUMBER, got \"in_h\"");
  fail(2, run("in=?x8 kernel=1x2", {"--size", "in_h=-2"}), "--size: expected NAME=NUMBER, got \"in_h=-2\"");
  fail(2, run("in=?x8 kernel=1x2", {"--size", "in_w=3"}), "--size in_w=3: expected one of in_h");
  fail(2, run("in=6x8 kernel=1x2", {"--size", "n=1"}), "--size n=1: expected one of none: no extent is open");
  fail(2, run("in=?x8 kernel=1x2", {"--size", "in_h=5"}), HasSubstr("--x @x.npy: expected 1x1x5x8, got 6x8"));
  fail(2, {"run", "in=? kernel=2 stride=2", "--pass", "input_gradient", "--dy", "@x.npy", "--weight", "@kernel.npy"},
       "--size: expected in_w=NUMBER, as no tensor that the pass reads tells it");
}

TEST_F(CommandErrorTest, ExtentsTooSmallOrTooLarge) {
  fail(2, forward("n=-1 " + edge), HasSubstr("n=-1: expected a number of at least 0"));
  fail(2, forward("in=0 kernel=1"), HasSubstr("in=0: expected W, HxW or DxHxW, numbers of at least 1"));
  fail(2, forward("in=3000000000 kernel=9"),
       "problem: input 1x1x3000000000: 3000000000 elements; more than 2^31-1 in a tensor is not available yet, in "
       "\"in=3000000000 kernel=9\"");
  fail(2, forward("in=3000000000x3000000000x3000000000 kernel=9"),
       HasSubstr("expected at most 2^63-1 elements, got more"));
  fail(2, forward("in=99999999999999999999 kernel=9"),
       HasSubstr("in=99999999999999999999: expected numbers that fit 64 bits"));
  const std::pair<const char *, const char *> far[] = {
      {"in=2147483647 kernel=1", "2147483650"},
      {"in=1 kernel=1 pad=0:2147483646", "2147483650"},
      {"in=8 kernel=1 stride=9223372036854775807", "9223372036854775808"},
      {"in=8 kernel=2 dilation=4294967297 pad=0:4294967297", "8589934604"},
      {"in=8 kernel=1 dilation=4294967297", "4294967307"}};
  for (auto &[problem, reach] : far)
    fail(2, forward(problem),
         fmt::format("axis W: padded input, window and stride of {} elements together; more than 2^30 is not available "
                     "yet, in \"{}\"",
                     reach, problem));
}

TEST_F(CommandErrorTest, Targets) {
  const std::string levels = "cuda-8.6, cuda-8.0, cuda-7.5, opencl, vulkan, x86-64-avx512-fp16, x86-64-avx512-vnni, x86-64-avx512, x86-64-avx2, x86-64, arm-64-dotprod, arm-64, all";
  for (const char *target : {"commodore-64", "", "host,"})
    fail(2, {"emit", edge, "-o", "@out", "--target", target},
         AllOf(StartsWith("target: expected " + levels + ", host or a Halide target, got "), EndsWith("\"")));
  fail(2, forward(edge, {"--target", "arm-32-linux"}),
       "target arm-32-linux is not available yet: expected " + levels + " or host");
  for (const char *command : {"run", "verify"}) {
    const Words words = command == std::string("run") ? forward(edge) : Words{"verify", edge};
    fail(2, words + Words{"--target", "arm-64"}, "target arm-64: expected one that this machine can run");
  }
  fail(2, {"emit", edge, "-o", "@out", "--target", "arm-64,x86-64"},
       "target arm-64,x86-64: expected targets of one machine, got x86-64 and arm-64");
  EXPECT_FALSE(fs::exists(path("@out")));
}

TEST_F(CommandErrorTest, CompilersAndRecords) {
  fail(2, {"emit", edge, "-o", "@out", "--cc", "/nonexistent"}, "/nonexistent: cannot run: no such program");
  fail(2, {"emit", edge, "-o", "@out", "--cc", "no-such-cc"},
       "no-such-cc: cannot run: no such program in the folders of PATH");
  fail(2, {"emit", edge, "-o", "@out", "--cc", ""}, "--cc: expected a C compiler, got \"\"; see convsmith emit --help");
  fail(2, {"emit", edge, "-o", "@out", "--cc", "false"}, StartsWith("the C layer: \"false\" failed with exit status 1: it said nothing"));
  fail(2, {"emit", edge, "-o", "@out", "--records", "@none"},
       "records: expected a folder of *.rec files, got \"@none\": No such file or directory");
  fs::create_directory(path("@records"));
  const auto record = [&](const std::string &schedule, const Text &message) {
    write("@records/x86-64.rec",
          fmt::format("# a record\nin=6x8 kernel=1x2 | forward | * | {} | halide=21.0.0\n", schedule));
    fail(2, {"emit", edge, "-o", "@out", "--target", "x86-64", "--records", "@records"}, message);
  };
  record("cpu_fast@1", AllOf(StartsWith("@records/x86-64.rec:2: schedule: expected one of cpu_"), HasSubstr(", cpu_direct, "),
                             EndsWith(", reference, got \"cpu_fast\"")));
  record("reference", "@records/x86-64.rec:2: expected SCHEDULE@VERSION, got \"reference\"");
  // Nothing is left behind but the folder.
  EXPECT_TRUE(listing("@out").empty());
}

TEST_F(CommandErrorTest, SpecFiles) {
  const auto spec = [&](std::string_view text, const Text &message) {
    write("@lib.spec", text);
    fail(2, {"emit", "@lib.spec", "-o", "@out"}, message);
  };
  const std::string good = "a : forward : in=6x8 kernel=1x2\n";
  fail(2, {"emit", "@missing.spec", "-o", "@out"}, "@missing.spec: cannot read: No such file or directory");
  spec("", "@lib.spec: expected at least one line NAME : PASSES : PROBLEM");
  spec("# nothing\n\n", "@lib.spec: expected at least one line NAME : PASSES : PROBLEM");
  spec(good + "b\n", "@lib.spec:2: expected NAME : PASSES : PROBLEM, got \"b\"");
  spec(good + "\nb : forward\n", "@lib.spec:3: expected NAME : PASSES : PROBLEM, got \"b : forward\"");
  spec(good + "3b : forward : in=5 kernel=2\n", "@lib.spec:2: name: expected letters, digits and _, got \"3b\"");
  spec(good + "b c : forward : in=5 kernel=2\n", "@lib.spec:2: name: expected letters, digits and _, got \"b c\"");
  spec(good + "b : forwards : in=5 kernel=2\n",
       AllOf(StartsWith("@lib.spec:2: pass: expected one of forward, "), EndsWith("got \"forwards\"")));
  spec(good + "b : forward : in=5\n", AllOf(StartsWith("@lib.spec:2: problem: kernel: expected a number of at least 1"),
                                            EndsWith("got nothing in \"in=5\"")));
  spec(good + "b : forward : in=5 kernel=2 krenel=2\n",
       HasSubstr("@lib.spec:2: problem: krenel=2: expected a key, perhaps \"kernel\""));
  spec(good + "b : forward : in=5 kernel=2 precision=fast\n",
       "@lib.spec:2: precision=fast is not available yet, in \"in=5 kernel=2 precision=fast\"");
  spec(good + "# again\n" + good, "@lib.spec:3: kernel a is there already");
  spec(std::string_view("\x7f\x01\0\n", 4),
       StartsWith("@lib.spec:1: expected NAME : PASSES : PROBLEM, got \"\\x7f\\x01"));
  fail(2, {"emit", "@x.npy", "-o", "@out"}, StartsWith("@x.npy:1: expected NAME : PASSES : PROBLEM, got "));
  fail(2, {"emit", "@.", "-o", "@out"}, "@.: cannot read: Is a directory");
  write("@lib.spec", good);
  fail(2, {"emit", "@lib.spec", "-o", "@out", "--passes", "weight_gradient"},
       "--passes weight_gradient: @lib.spec names the passes of its kernels: expected a problem");
  for (const char *name : {"a-b", "3", "a b"})
    fail(2, {"emit", edge, "-o", "@out", "--name", name},
         fmt::format("--name: expected letters, digits and _, got \"{}\"", name));
  fail(2, {"emit", edge, "-o", "@out", "--name", "convsmith"},
       "--name: expected another than that of the run-time's own functions, got \"convsmith\"");
  // What is made does not replace what it is made from.
  write("@own.c", good);
  fail(2, {"emit", "@own.c", "-o", "@.", "--name", "own", "--no-verify"}, "--output @./own.c: expected another file than the spec @own.c");
  fs::copy_file(path("@kernel.npy"), path("@own.json"));
  fail(2, {"emit", edge, "-o", "@.", "--name", "own", "--no-verify", "--weights", "kernel=@own.json"},
       "--output @./own.json: expected another file than --weights @own.json");
  EXPECT_FALSE(fs::exists(path("@out")));
}

TEST_F(CommandErrorTest, SpecFilesByAnyName) {
  // What is there is a spec file, though its name holds a =; and one may begin with a mark of UTF-8.
  write("@run=1.spec", "\xef\xbb\xbf" "a : forward : in=6x8 kernel=1x2\n");
  succeed({"emit", "@run=1.spec", "-o", "@out", "--name", "k", "--no-verify", "--quiet"});
  EXPECT_TRUE(fs::exists(path("@out/libk.a")));
  // An option that may be repeated takes one word.
  succeed({"emit", "--weights", "a=@kernel.npy", "@run=1.spec", "-o", "@out", "--name", "k", "--no-verify", "--quiet"});
}

TEST_F(CommandErrorTest, ConstantWeights) {
  const auto emit = [&](const Words &more, const Text &message) {
    Words words = {"emit", edge, "-o", "@out"};
    words.insert(words.end(), more.begin(), more.end());
    fail(2, words, message);
  };
  write_array("@nan.npy", {1, 1, 1, 2}, {1, NAN});
  emit({"--weights", "kernel=@missing.npy"}, "@missing.npy: cannot read: No such file or directory");
  emit({"--weights", "kernel=@x.npy"}, "--weights kernel=@x.npy: expected 1x1x1x2, got 6x8");
  emit({"--weights", "kernel=@nan.npy"}, "@nan.npy: expected finite numbers, got a NaN or an infinity at element 1");
  emit({"--weights", "kernel=@kernel.npy", "--weights", "kernel=@start.npy"},
       "--weights kernel=@start.npy: kernel kernel has the weights @kernel.npy already");
  for (const char *word : {"blur=@kernel.npy", "kernel", "kernel=", "@kernel.npy"})
    emit({"--weights", word},
         fmt::format("--weights: expected KERNEL=FILE with a kernel of this library, got \"{}\"", word));
  emit({"--weights", "kernel=@kernel.npy", "--passes", "weight_gradient"},
       "--weights kernel=@kernel.npy: the kernel has no pass that takes constant weights");
  EXPECT_FALSE(fs::exists(path("@out")));
}

TEST_F(CommandErrorTest, Cache) {
  setenv("CONVSMITH_CACHE", path("@x.npy").c_str(), 1);
  fail(2, forward(edge),
       "@x.npy: cannot write the cache folder: Not a directory; make it writable, or set CONVSMITH_CACHE to another "
       "folder");
  setenv("CONVSMITH_CACHE_LIMIT", "lots", 1);
  fail(2, {"cache"}, "CONVSMITH_CACHE_LIMIT: expected a number of bytes, or a number with K, M or G, got 'lots'");
  const ProcessResult r = run_process({"env", "-i", CONVSMITH_COMMAND, "cache"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_EQ(r.err,
            "convsmith: cache: expected a folder in CONVSMITH_CACHE, XDG_CACHE_HOME or HOME, got none; set "
            "CONVSMITH_CACHE\n");
}

}  // namespace
}  // namespace convsmith
