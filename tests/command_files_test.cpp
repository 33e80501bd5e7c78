// Files that cannot be read or written, checks that fail and signals: the exit status, one line that says what was
// wrong, and files that stay as they were.
#include <fmt/format.h>
#include <sys/mount.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include "command.h"

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

namespace convsmith {
namespace {

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
  write("@grey.pgm", "P2 2 2 255 1 2 3 4\n");
  fail(2, {"learn", "--from", "@a.ppm", "--to", "@grey.pgm", "--kernel", "3"}, "--to @grey.pgm: expected 3 channels as in --from, got 1");
  fail(2, {"learn", "--from", "@a.ppm", "--to", "@a.ppm", "--kernel", "1x2x3"}, "--kernel 1x2x3: expected K or KHxKW for pictures, got 3 axes");
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

TEST_F(CommandErrorTest, OutputsThatCannotBeWritten) {
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

TEST_F(CommandErrorTest, WhatIsReadIsNotWrittenOver) {
  const std::string spec = "a : forward : in=6x8 kernel=1x2\n";
  write("@a.spec", spec);
  for (const char *option : {"--json", "--html"}) {
    fail(2, {"bench", "@a.spec", "--seconds", "0", option, "@a.spec"}, fmt::format("{} @a.spec: expected another file than SPEC @a.spec", option));
    fail(2, {"tune", "@a.spec", "--time", "0s", "--log", "@log", option, "@log"}, fmt::format("{} @log: expected another file than --log @log", option));
    fail(2, {"tune", "@a.spec", "--time", "0s", "--log", "@log", option, "@a.spec"}, fmt::format("{} @a.spec: expected another file than PROBLEM-or-SPEC @a.spec", option));
  }
  EXPECT_EQ(read("@a.spec"), spec);
  fail(2, learn({"--init", "@start.npy", "--plot", "@start.npy"}), "--plot @start.npy: expected another file than --init @start.npy");
  fail(2, learn({"--compare", "@kernel.npy", "--out", "@kernel.npy"}), "--out @kernel.npy: expected another file than --compare @kernel.npy");
  fail(2, learn({"--compare", "@kernel.npy", "--plot", "@kernel.npy"}), "--plot @kernel.npy: expected another file than --compare @kernel.npy");
}

// An unset variable of a shell.
TEST_F(CommandErrorTest, EmptyNames) {
  fail(2, {"emit", edge, "-o", ""}, "--output: expected a name, got \"\"; see convsmith emit --help");
  fail(2, {"verify", edge, "-o", ""}, "--output: expected a name, got \"\"; see convsmith verify --help");
  fail(2, {"apply", "edge-x", "@a.ppm", "-o", ""}, "--output: expected a name, got \"\"; see convsmith apply --help");
  fail(2, learn({"--out", ""}), "--out: expected a name, got \"\"; see convsmith learn --help");
  fail(2, learn({"--plot", ""}), "--plot: expected a name, got \"\"; see convsmith learn --help");
  fail(2, forward(edge, {"--out", ""}), "--out: expected a name, got \"\"; see convsmith run --help");
  fail(2, {"bench", "@a.spec", "--json", ""}, "--json: expected a name, got \"\"; see convsmith bench --help");
  fail(2, {"tune", edge, "--export", ""}, "--export: expected a name, got \"\"; see convsmith tune --help");
}

TEST_F(CommandErrorTest, ReviewedRecordsStayAndAreReadBeforeTheSearch) {
  write("@log", "");
  fail(2, {"tune", edge, "--time", "1h", "--log", "@log", "--export", "@log/x"}, HasSubstr("@log/x"));
  succeed({"tune", edge, "--passes", "forward", "--threads", "1", "--time", "0s", "--log", "@log", "--export", "@records", "--quiet"});
  EXPECT_EQ(listing("@records"), Words{});
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

}  // namespace
}  // namespace convsmith
