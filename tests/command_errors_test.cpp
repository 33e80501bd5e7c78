// Bad usage, bad input and full disks: the exit status, one line that says what was wrong, where, what was expected and
// what came, and files that stay as they were.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include "command.h"
#include "convsmith/file.h"
#include "tools/support/image.h"

namespace fs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

namespace convsmith {
namespace {

const std::string edge = "in=6x8 kernel=1x2";

// A header of any element type and shape, then this many bytes.
std::string npy(const std::string &type, const std::string &shape, size_t bytes) {
  std::string header = fmt::format("{{'descr': {}, 'fortran_order': False, 'shape': {}, }}", type, shape);
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += char(header.size());
  file += '\0';
  return file + header + std::string(bytes, '\0');
}

Words learn(const Words &more, const std::string &kernel = "1x2") {
  Words words = {"learn", "--from", "@x.npy", "--to", "@y.npy", "--kernel", kernel};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

Words forward(const std::string &problem, const Words &more = {}) {
  Words words = {"run", problem, "--pass", "forward", "--x", "@x.npy", "--weight", "@kernel.npy"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

class CommandErrorTest : public CommandTest {
 protected:
  CommandErrorTest() {
    write_edge_example();
    write("@a.ppm", "P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11 12\n");
  }
};

TEST_F(CommandErrorTest, Usage) {
  const std::string subcommands = "expected a subcommand, one of learn, apply, emit, run, verify, list, cache, got ";
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

TEST_F(CommandErrorTest, Arrays) {
  const std::string
      whole = read("@x.npy"),
      types = ": byte 20: expected an element type of f2, f4, f8, i1 to i8, u1 to u8 or b1 after '<', '>' or '|', got ";
  write("@cut.npy", std::string_view(whole).substr(0, whole.size() - 4));
  write("@header.npy", std::string_view(whole).substr(0, 100));
  write("@empty.npy", "");
  write("@text.npy", "0 1 2\n");
  write("@complex.npy", npy("'<c8'", "(6, 8)", 384));
  write("@object.npy", npy("'|O'", "(6, 8)", 384));
  write("@string.npy", npy("'<U1'", "(6, 8)", 192));
  write("@fields.npy", npy("[('a', '<f4')]", "(6, 8)", 192));
  write("@none.npy", npy("'<f4'", "(0, 8)", 0));
  write("@scalar.npy", npy("'<f4'", "()", 4));
  write("@giant.npy", npy("'<f4'", "(9223372036854775807, 9223372036854775807)", 4));
  write("@rank5.npy", npy("'<f4'", "(1, 1, 1, 6, 8)", 192));
  write("@rank9.npy", npy("'<f4'", "(1, 1, 1, 1, 1, 1, 1, 6, 8)", 192));
  std::vector<float> x = edge_x();
  x[5] = NAN;
  write_array("@nan.npy", {6, 8}, x);
  x[5] = -INFINITY;
  write_array("@infinite.npy", {1, 1, 6, 8}, x);
  fs::create_directory(path("@folder.npy"));
  const std::pair<const char *, Text> bad[] = {
      {"missing.npy", ": cannot read: No such file or directory"},
      {"folder.npy", ": cannot read: Is a directory"},
      {"x.npy/x.npy", ": cannot read: Not a directory"},
      {"empty.npy", ": byte 0: expected the bytes \\x93NUMPY, got the end of the file"},
      {"text.npy", ": byte 0: expected the bytes \\x93NUMPY, got '0 1 2\\x0a'"},
      {"header.npy", MatchesRegex(": byte 8: expected a header within the file's 100 bytes, got a header of [0-9]+")},
      {"cut.npy", MatchesRegex(": byte [0-9]+: expected 192 bytes of elements for a shape of 6x8, got 188")},
      {"giant.npy", HasSubstr(": expected fewer than 2^64 bytes of elements, got a shape of 9223372036854775807x")},
      {"complex.npy", AllOf(StartsWith(types), HasSubstr("<c8"))},
      {"object.npy", AllOf(StartsWith(types), HasSubstr("|O"))},
      {"string.npy", AllOf(StartsWith(types), HasSubstr("<U1"))},
      {"fields.npy", HasSubstr("expected an element type such as '<f4', got '['")},
      {"none.npy", ": expected at least one element, got 0x8"},
      {"scalar.npy", ": expected 2 axes (one sample of one channel) or 4 (N, C and those), got a single number"},
      {"rank5.npy", ": expected 2 axes (one sample of one channel) or 4 (N, C and those), got 1x1x1x6x8"},
      {"rank9.npy", StartsWith(":")},
      {"nan.npy", ": expected finite numbers, got a NaN or an infinity at element 5"},
      {"infinite.npy", ": expected finite numbers, got a NaN or an infinity at element 5"}};
  for (auto &[name, message] : bad) {
    const std::string file = std::string("@") + name;
    const Text after = testing::ResultOf(
        [=](const std::string &text) { return text.substr(std::min(text.size(), file.size())); }, message);
    const Text line = AllOf(StartsWith(file), after);
    fail(2, {"learn", "--from", file, "--to", "@y.npy", "--kernel", "1x2", "--out", "@out.npy"}, line);
    fail(2, {"learn", "--from", "@x.npy", "--to", file, "--kernel", "1x2", "--out", "@out.npy"}, line);
    // `run` and `apply` put other words to a wrong shape.
    fail(2, {"run", edge, "--pass", "forward", "--x", file, "--weight", "@kernel.npy", "--out", "@out.npy"},
         HasSubstr(file));
    fail(2, {"apply", file, "@a.ppm", "-o", "@out.ppm"}, StartsWith(file));
  }
  fail(2, {"learn", "--from", "@scalar.npy", "--to", "@y.npy", "--kernel", "2"},
       StartsWith("@scalar.npy: expected 1 axes"));
  EXPECT_FALSE(fs::exists(path("@out.npy")) || fs::exists(path("@out.ppm")));
}

TEST_F(CommandErrorTest, Shapes) {
  write_array("@short.npy", {5, 7}, std::vector<float>(35));
  write_array("@tall.npy", {8, 6}, std::vector<float>(48));
  write_array("@column.npy", {1, 1, 2, 1}, {1, -1});
  write_array("@two.npy", {2, 1, 6, 7}, std::vector<float>(84));
  fail(2, {"learn", "--from", "@x.npy", "--to", "@short.npy", "--kernel", "1x2"},
       "--to @short.npy: expected 1x1x6x7 with pad=0 or 1x1x6x8 with pad=0:0x0:1, got 1x1x5x7");
  fail(2, {"learn", "--from", "@x.npy", "--to", "@two.npy", "--kernel", "1x2"},
       "--to @two.npy: expected 1 samples as in --from, got 2");
  fail(2, {"learn", "--from", "@x.npy", "--to", "@a.ppm", "--kernel", "1x2"},
       "--to @a.ppm: expected a .npy file like --from");
  fail(2, {"learn", "--from", "@a.ppm", "--to", "@y.npy", "--kernel", "1x2"},
       "--to @y.npy: expected a picture like --from");
  fail(2, learn({"--init", "@column.npy"}), "--init @column.npy: expected 1x1x1x2, got 1x1x2x1");
  // As many elements in another shape are another tensor.
  fail(2, {"run", edge, "--pass", "forward", "--x", "@tall.npy", "--weight", "@kernel.npy"},
       "--x @tall.npy: expected 1x1x6x8, got 8x6");
  fail(2, {"run", edge, "--pass", "forward", "--x", "@x.npy", "--weight", "@column.npy"},
       "--weight @column.npy: expected 1x1x1x2, got 1x1x2x1");
  fail(2, {"apply", "@two.npy", "@a.ppm", "-o", "@out.png"},
       "@two.npy: expected one kernel, KHxKW or 1x1xKHxKW, got 2x1x6x7");
  // A kernel larger than the padded input.
  fail(2, learn({"--pad", "0"}, "9x9"),
       HasSubstr("kernel=9x9: expected a window no larger than the padded input, got a window of 9 over an extent of 6 "
                 "padded by 0 on axis H"));
  fail(2, learn({}, "9x9"), "--to @y.npy: expected 1x1x6x8 with pad=4:4x4:4, got 1x1x6x7");
  fail(2, forward("in=8 kernel=9"),
       "problem: kernel=9: expected a window no larger than the padded input, got a window of 9 over an extent of 8 "
       "padded by 0 on axis W in \"in=8 kernel=9\"");
}

TEST_F(CommandErrorTest, Pictures) {
  succeed({"apply", "box:1", "@a.ppm", "-o", "@whole.png"});
  const std::string whole = read("@whole.png");
  write("@cut.png", std::string_view(whole).substr(0, whole.size() / 2));
  write("@cut.ppm", "P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11\n");
  write("@empty.png", "");
  const std::pair<const char *, const char *> bad[] = {
      {"@missing.png", "@missing.png: cannot read: No such file or directory"},
      {"@empty.png", "@empty.png: expected a PNG, JPEG, PGM (P2, P5) or PPM (P3, P6) image, got an empty file"},
      {"@cut.ppm", "@cut.ppm: expected a sample from 0 to 255 at byte 35, got the end of the file"},
      {"@.", "@.: cannot read: Is a directory"}};
  for (auto &[file, message] : bad) fail(2, {"apply", "edge-x", file, "-o", "@out.png"}, message);
  fail(2, {"apply", "edge-x", "@cut.png", "-o", "@out.png"}, StartsWith("@cut.png: expected a whole PNG image, got "));
  fail(2, {"learn", "--from", "@cut.png", "--to", "@whole.png", "--kernel", "3"},
       StartsWith("@cut.png: expected a whole PNG image, got "));
  fail(2, {"apply", "edge-x", "@x.npy", "-o", "@out.png"},
       StartsWith("@x.npy: expected a PNG, JPEG, PGM (P2, P5) or PPM (P3, P6) image"));
  fail(2, {"apply", "edge-x", "@a.ppm", "-o", "@out.gif"},
       "@out.gif: expected a file name that ends in .png, .ppm or .pgm, got '.gif'");
  fail(2, {"apply", "edge-x", "@a.ppm", "-o", "@out.pgm"}, "@out.pgm: expected 1 channels for this format, got 3");
  for (const char *sigma : {"0", "61", "nan", "x", ""})
    fail(2, {"apply", fmt::format("gaussian:{}", sigma), "@a.ppm", "-o", "@out.png"},
         fmt::format("kernel gaussian:{}: expected a number of 0.1 to 60 after the colon", sigma));
  fail(2, {"apply", "box:2.5", "@a.ppm", "-o", "@out.png"}, "kernel box:2.5: expected a whole number after the colon");
  EXPECT_FALSE(fs::exists(path("@out.png")));
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
  const std::pair<std::string, const char *> words[] = {{"op=local " + edge, "op=local"},
                                                        {"op=transposed " + edge, "op=transposed"},
                                                        {"op=dense in=6x8", "op=dense"},
                                                        {"n=? " + edge, "n=?"},
                                                        {"in=? kernel=2", "in=?"},
                                                        {edge + " type=f16", "type=f16"},
                                                        {edge + " type=bf16", "type=bf16"},
                                                        {edge + " type=u8s8", "type=u8s8"},
                                                        {edge + " activation=relu6", "activation=relu6"},
                                                        {edge + " activation=leaky_relu:0.1", "activation=leaky_relu"},
                                                        {edge + " activation=sigmoid", "activation=sigmoid"},
                                                        {edge + " activation=tanh", "activation=tanh"},
                                                        {edge + " activation=silu", "activation=silu"},
                                                        {edge + " activation=gelu", "activation=gelu"},
                                                        {edge + " activation=clamp:0:1", "activation=clamp"},
                                                        {edge + " residual=1", "residual=1"},
                                                        {edge + " activation=relu save=pre", "save=pre"},
                                                        {edge + " precision=fast", "precision=fast"}};
  for (auto &[problem, word] : words) {
    const std::string message = fmt::format("{} is not available yet, in \"{}\"", word, problem);
    fail(2, forward(problem, {"--out", "@out.npy"}), message);
    fail(2, {"verify", problem}, message);
    fail(2, {"emit", problem, "-o", "@out"}, message);
  }
  fail(2, {"run", edge + " border=wrap", "--pass", "input_gradient"},
       "pass input_gradient of a problem whose border is not zero is not available yet, in \"in=6x8 kernel=1x2 "
       "border=wrap\"");
  EXPECT_FALSE(fs::exists(path("@out")) || fs::exists(path("@out.npy")));
}

TEST_F(CommandErrorTest, ExtentsTooSmallOrTooLarge) {
  const std::string empty =
      "n=0: expected at least 1 (an empty batch comes with n=?, which is not available yet), in \"n=0 in=6x8 "
      "kernel=1x2\"";
  fail(2, forward("n=0 " + edge), empty);
  fail(2, {"verify", "n=0 " + edge}, empty);
  fail(2, {"emit", "n=0 " + edge, "-o", "@out"}, empty);
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
  const std::string levels = "x86-64-avx512-vnni, x86-64-avx512, x86-64-avx2, x86-64, all";
  for (const char *target : {"commodore-64", "", "host,"})
    fail(2, {"emit", edge, "-o", "@out", "--target", target},
         AllOf(StartsWith("target: expected " + levels + ", host or a Halide target, got "), EndsWith("\"")));
  fail(2, forward(edge, {"--target", "arm-64-linux"}),
       "target arm-64-linux is not available yet: expected " + levels + " or host");
  EXPECT_FALSE(fs::exists(path("@out")));
}

TEST_F(CommandErrorTest, CompilersAndRecords) {
  fail(2, {"emit", edge, "-o", "@out", "--cc", "/nonexistent"}, "/nonexistent: cannot run: no such program");
  fail(2, {"emit", edge, "-o", "@out", "--cc", "no-such-cc"},
       "no-such-cc: cannot run: no such program in the folders of PATH");
  fail(2, {"emit", edge, "-o", "@out", "--cc", ""}, "--cc: expected a C compiler, got \"\"; see convsmith emit --help");
  fail(2, {"emit", edge, "-o", "@out", "--cc", "false"}, StartsWith("the C layer: \"false\" failed: "));
  fail(2, {"emit", edge, "-o", "@out", "--records", "@none"},
       "records: expected a folder of *.rec files, got \"@none\": No such file or directory");
  fs::create_directory(path("@records"));
  const auto record = [&](const std::string &schedule, const std::string &message) {
    write("@records/x86-64.rec",
          fmt::format("# a record\nin=6x8 kernel=1x2 | forward | * | {} | halide=21.0.0\n", schedule));
    fail(2, {"emit", edge, "-o", "@out", "--target", "x86-64", "--records", "@records"}, message);
  };
  record("cpu_fast@1",
         "@records/x86-64.rec:2: schedule: expected one of cpu_partial_sums, cpu_direct, cpu_pointwise, reference, got "
         "\"cpu_fast\"");
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
  spec(good + "b : forward : op=local in=5 kernel=2\n",
       "@lib.spec:2: op=local is not available yet, in \"op=local in=5 kernel=2\"");
  spec(good + "b : forward : n=0 in=5 kernel=2\n", StartsWith("@lib.spec:2: n=0: expected at least 1"));
  spec(good + "# again\n" + good, "@lib.spec:3: kernel a is there already");
  spec(std::string_view("\x7f\x01\0\n", 4),
       StartsWith("@lib.spec:1: expected NAME : PASSES : PROBLEM, got \"\\x7f\\x01"));
  fail(2, {"emit", "@x.npy", "-o", "@out"}, StartsWith("@x.npy:1: expected NAME : PASSES : PROBLEM, got "));
  fail(2, {"emit", "@.", "-o", "@out"}, "@.: cannot read: Is a directory");
  for (const char *name : {"a-b", "3", "a b"})
    fail(2, {"emit", edge, "-o", "@out", "--name", name},
         fmt::format("--name: expected letters, digits and _, got \"{}\"", name));
  EXPECT_FALSE(fs::exists(path("@out")));
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

TEST_F(CommandErrorTest, OutputsThatCannotBeWritten) {
  const std::string before = listing().back() + read("@kernel.npy");
  fs::create_directory(path("@folder.npy"));
  const std::pair<const char *, const char *> bad[] = {
      {"@folder.npy", "expected a file, got a folder"},
      {"@none/k.npy", "expected a file in a folder, but @none is none"},
      {"@x.npy/k.npy", "expected a file in a folder, but @x.npy is none"}};
  for (auto &[file, message] : bad) {
    fail(2, learn({"--out", file}), fmt::format("--out {}: {}", file, message));
    fail(2, learn({"--plot", file}), fmt::format("--plot {}: {}", file, message));
    fail(2, forward(edge, {"--out", file}), fmt::format("--out {}: {}", file, message));
    fail(2, forward(edge, {"--output", std::string("y=") + file}), fmt::format("--output {}: {}", file, message));
    fail(2, {"apply", "edge-x", "@a.ppm", "-o", file}, fmt::format("--output {}: {}", file, message));
    fail(2, {"verify", edge, "-o", file}, fmt::format("--output {}: {}", file, message));
  }
  fail(2, {"emit", edge, "-o", "@x.npy"}, "@x.npy: expected a folder that can be written, got: Not a directory");
  fail(2, {"emit", edge, "-o", "@x.npy/lib"}, StartsWith("@x.npy/lib: expected a folder that can be written, got: "));

  const std::string full = "/dev/full: cannot write: No space left on device";
  fail(2, learn({"--lr", "0.03", "--out", "/dev/full"}), full);
  fail(2, learn({"--lr", "0.03", "--plot", "/dev/full"}), full);
  fail(2, forward(edge, {"--out", "/dev/full"}), full);
  fail(2, {"verify", edge, "--passes", "forward", "--json", "-o", "/dev/full"}, full);
  EXPECT_EQ(read_array("@x.npy", {6, 8}), edge_x());
  EXPECT_EQ(listing(), (Words{"a.ppm", "folder.npy", "kernel.npy", "start.npy", "x.npy", "y.npy"}));
}

TEST_F(CommandErrorTest, StandardOutputThatCannotBeWritten) {
  for (const char *words : {"list", "list --json", "cache", "--help", "learn --help", "--version"}) {
    const ProcessResult r =
        run_process({"/bin/sh", "-c", fmt::format("exec {} {} >/dev/full", CONVSMITH_COMMAND, words)});
    EXPECT_EQ(r.exit_code, 2) << words;
    EXPECT_EQ(r.err, "convsmith: standard output: could not be written\n") << words;
  }
}

TEST_F(CommandErrorTest, FilesGivenEarlierStayAsTheyWere) {
  write("@k.npy", "kept");
  write("@loss.svg", "kept");
  write("@out.png", "kept");
  fail(1, learn({"--lr", "0.04", "--steps", "500", "--out", "@k.npy", "--plot", "@loss.svg"}),
       StartsWith("train: diverged at step "));
  fail(2, forward(edge, {"--dy", "@y.npy", "--out", "@k.npy"}), HasSubstr("does not read it"));
  fail(2, {"apply", "edge-x", "@missing.png", "-o", "@out.png"}, HasSubstr("cannot read"));
  for (const char *file : {"@k.npy", "@loss.svg", "@out.png"}) EXPECT_EQ(read(file), "kept") << file;

  succeed({"emit", edge, "-o", "@lib", "--passes", "forward"});
  const std::string archive = read("@lib/libkernels.a"), manifest = read("@lib/kernels.json");
  fail(2, {"emit", "in=9x9 kernel=3", "-o", "@lib", "--cc", "/nonexistent"}, HasSubstr("cannot run"));
  EXPECT_EQ(read("@lib/libkernels.a"), archive);
  EXPECT_EQ(read("@lib/kernels.json"), manifest);
  EXPECT_EQ(listing("@lib"), (Words{"kernels.c", "kernels.h", "kernels.json", "libkernels.a"}));
}

// A file system of its own, of a few kilobytes.
TEST_F(CommandErrorTest, FullDisk) {
  const std::string disk = path("@disk");
  fs::create_directory(disk);
  if (mount("none", disk.c_str(), "tmpfs", 0, "size=64k") != 0) GTEST_SKIP() << "mounting is not permitted here";
  struct Unmounted {
    std::string folder;
    ~Unmounted() { umount2(folder.c_str(), MNT_DETACH); }
  } const unmounted{disk};
  std::string ppm = "P6 200 200 255\n" + std::string(120000, '\x40');
  write("@large.ppm", ppm);
  write("@disk/out.ppm", "kept");
  fail(2, {"apply", "box:1", "@large.ppm", "-o", "@disk/out.ppm"},
       "@disk/out.ppm: cannot write: No space left on device");
  EXPECT_EQ(read("@disk/out.ppm"), "kept");
  fail(2, {"emit", edge, "-o", "@disk"}, HasSubstr("No space left on device"));
  EXPECT_EQ(listing("@disk"), (Words{"out.ppm"}));
}

TEST_F(CommandErrorTest, ChecksThatFailExitWithOne) {
  fail(1, learn({"--lr", "0.04", "--steps", "500", "--init", "@start.npy"}),
       MatchesRegex("train: diverged at step [0-9]+: loss [0-9.e+]+, at step 1 25\\.0272, rate 0\\.04; the largest "
                    "stable rate is 0\\.0333333 \\(problem: in=6x8 kernel=1x2\\)"));
  // The result is there to be looked at, on standard output too.
  const ProcessResult r =
      run(learn({"--lr", "0.03", "--steps", "3", "--init", "@start.npy", "--compare", "edge-x", "--within", "0.01"}));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, MatchesRegex("convsmith: the learnt kernel: expected within 0\\.01 of edge-x, got 0\\.[0-9]+\n"));
  EXPECT_THAT(r.out, HasSubstr("largest difference"));
}

// SIGINT after some seconds, as Ctrl-C sends it.
ProcessResult interrupted(const std::string &seconds, const std::string &signal, Words command) {
  command.insert(command.begin(),
                 {"timeout", "--foreground", "--preserve-status", "-s", signal, seconds, CONVSMITH_COMMAND});
  ProcessOptions options;
  options.timeout_s = 60;
  return run_process(command, options);
}

TEST_F(CommandErrorTest, InterruptedTrainingLeavesNoFile) {
  succeed(learn({"--steps", "0", "--lr", "0.03"}));  // compiled by now
  write("@k.npy", "kept");
  for (const char *signal : {"INT", "TERM"}) {
    Words words;
    for (auto &w : learn({"--lr", "0.03", "--steps", "100000000", "--out", "@k.npy", "--plot", "@loss.svg"}))
      words.push_back(path(w));
    const ProcessResult r = interrupted("1", signal, words);
    EXPECT_EQ(r.exit_code, 130);
    EXPECT_EQ(r.err, "convsmith: interrupted\n");
    EXPECT_EQ(r.out, "");
  }
  EXPECT_EQ(read("@k.npy"), "kept");
  EXPECT_EQ(listing(), (Words{"a.ppm", "k.npy", "kernel.npy", "start.npy", "x.npy", "y.npy"}));
}

TEST_F(CommandErrorTest, InterruptedEmissionLeavesNoFile) {
  const ProcessResult r = interrupted(
      "0.3", "INT", {"emit", "ic=64 oc=64 in=56x56 kernel=5 pad=2 stride=3", "-o", path("@lib"), "--target", "all"});
  EXPECT_EQ(r.exit_code, 130);
  EXPECT_EQ(r.err, "convsmith: interrupted\n");
  EXPECT_TRUE(!fs::exists(path("@lib")) || listing("@lib").empty());
}

TEST_F(CommandErrorTest, Cache) {
  setenv("CONVSMITH_CACHE", path("@x.npy").c_str(), 1);
  fail(2, forward(edge),
       "@x.npy: cannot write the cache folder: Not a directory; make it writable, or set CONVSMITH_CACHE to another "
       "folder");
  setenv("CONVSMITH_CACHE_LIMIT", "lots", 1);
  fail(2, {"cache"}, "CONVSMITH_CACHE_LIMIT: expected a number of bytes, or a number with K, M or G, got 'lots'");
  for (const char *variable : {"CONVSMITH_CACHE_LIMIT", "CONVSMITH_CACHE", "XDG_CACHE_HOME", "HOME"})
    unsetenv(variable);
  fail(2, {"cache"},
       "cache: expected a folder in CONVSMITH_CACHE, XDG_CACHE_HOME or HOME, got none; set CONVSMITH_CACHE");
}

}  // namespace
}  // namespace convsmith
