// Peers of `bench`: the protocol of tools/measure/peer.h, against shell scripts that keep it or do not.
#include "tools/measure/peer.h"
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <functional>
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "tools/support/temporary_folder.h"

using testing::HasSubstr;

namespace convsmith {
namespace {

class PeerTest : public testing::Test {
 protected:
  // Says `first`, then to each line what the cases of the script do; `$line` is the line.
  std::string script(const std::string &first, const std::string &cases = "") const {
    write_file(folder_ / "peer.sh",
               fmt::format("echo '{}'\nwhile read -r line; do\n  case $line in\n{}\n  *) echo ok;;\n  esac\ndone\n",
                           first, cases));
    return "theirs=/bin/sh " + (folder_ / "peer.sh");
  }
  static std::string refusal(const std::function<void()> &call) {
    try {
      call();
    } catch (const Error &error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  const TemporaryFolder folder_;
  const Problem problem_ = Problem::parse("ic=3 oc=8 in=9x9 kernel=3 pad=1");
};

TEST_F(PeerTest, PreparesTimesAndDrops) {
  const std::string said = folder_ / "said";
  Peer peer(script("ok Their Library 1.2", fmt::format("  time*) echo \"$line\" >> {0}; echo ok 12.5 13.75;;\n"
                                                       "  *) echo \"$line\" >> {0}; echo ok;;",
                                                       said)));
  EXPECT_EQ(peer.name(), "theirs");
  EXPECT_EQ(peer.version(), "Their Library 1.2");
  EXPECT_EQ(peer.reason(), "");
  EXPECT_EQ(peer.prepare(PassKind::weight_gradient, 4, "/in", "/out/result.npy", problem_), std::nullopt);
  const Times t = peer.time(0.04);
  EXPECT_EQ(t.min_us, 12.5);
  EXPECT_EQ(t.median_us, 13.75);
  peer.drop();
  EXPECT_EQ(peer.prepare(PassKind::forward, 1, "/in", "/out/result.npy", problem_), std::nullopt);
  EXPECT_EQ(peer.time(0).min_us, 12.5);
  EXPECT_EQ(read_file(said), fmt::format("prepare weight_gradient 4 /in /out/result.npy {0}\ntime 0.04\ndrop\n"
                                         "prepare forward 1 /in /out/result.npy {0}\ntime 0\n",
                                         problem_.str()));
}

TEST_F(PeerTest, MayNotRunHere) {
  const Peer peer(script("no AMX on this machine"));
  EXPECT_EQ(peer.name(), "theirs");
  EXPECT_EQ(peer.version(), "");
  EXPECT_EQ(peer.reason(), "AMX on this machine");
}

TEST_F(PeerTest, MayRefuseAPass) {
  Peer peer(script("ok", "  *forward*) echo no border=wrap;;\n  prepare*) echo ok;;\n  *) echo no idea;;"));
  EXPECT_EQ(peer.prepare(PassKind::forward, 1, "/in", "/out", problem_), "border=wrap");
  EXPECT_EQ(peer.prepare(PassKind::input_gradient, 1, "/in", "/out", problem_), std::nullopt);
  EXPECT_EQ(peer.prepare(PassKind::forward, 1, "/in", "/out", problem_), "border=wrap");
}

TEST_F(PeerTest, OtherAnswersAreErrors) {
  const auto expected = [](const std::string &line, const std::string &answer) {
    return fmt::format("peer theirs: expected \"ok\" or \"no REASON\" to \"{}\", got \"{}\"", line, answer);
  };
  for (const char *answer : {"hello", "okay", "OK", "no", "nope", "", " ok"})
    EXPECT_EQ(refusal([&] { Peer peer(script(answer)); }), expected("", answer));
  Peer peer(script("ok x", "  prepare*) echo Segmentation fault;;\n  drop) echo;;"));
  EXPECT_EQ(refusal([&] { peer.prepare(PassKind::forward, 1, "/in", "/out", problem_); }),
            expected("prepare forward 1 /in /out " + problem_.str(), "Segmentation fault"));
  EXPECT_EQ(refusal([&] { peer.drop(); }), expected("drop", ""));
}

TEST_F(PeerTest, TimesThatAreNoneAreErrors) {
  for (const char *answer : {"ok", "ok 1", "ok x y", "ok 1 y", "ok nan nan", "ok 0 0", "ok -1 2", "ok 5 -1", "ok 2 1",
                             "ok 1e999 1e999", "no time"}) {
    Peer peer(script("ok x", fmt::format("  time*) echo {};;", answer)));
    const std::string text = answer;
    EXPECT_EQ(refusal([&] { peer.time(0.5); }),
              fmt::format("peer theirs: expected two times to \"time 0.5\", got \"{}\"",
                          text.size() > 3 ? text.substr(3) : ""))
        << answer;
  }
}

TEST_F(PeerTest, AProgramThatEndsIsAnError) {
  Peer peer(script("ok x", "  time*) exit 0;;"));
  EXPECT_EQ(refusal([&] { peer.time(1); }), "/bin/sh: ended before it answered \"time 1\"");
  EXPECT_EQ(refusal([] { Peer none("theirs=true"); }), "true: ended before it answered \"\"");
}

TEST_F(PeerTest, TheOptionIsANameAndAProgram) {
  for (const char *option : {"", "theirs", "theirs=", "theirs=  ", "=program", "="})
    EXPECT_EQ(refusal([&] { Peer peer(option); }),
              fmt::format("--peer: expected NAME=PROGRAM ARGUMENT..., got \"{}\"", option));
  EXPECT_EQ(refusal([] { Peer peer("theirs=/no/such/program word"); }),
            "/no/such/program: cannot run: no such program");
  EXPECT_EQ(refusal([] { Peer peer("theirs=no-such-program-anywhere"); }),
            "no-such-program-anywhere: cannot run: no such program in the folders of PATH");
  // Words are separated by spaces, and only the first = is ours.
  write_file(folder_ / "words.sh", "echo ok $# \"$1\" \"$2\"; read -r line\n");
  EXPECT_EQ(Peer("a=/bin/sh   " + (folder_ / "words.sh") + "  x=1  'y").version(), "2 x=1 'y");
}

}  // namespace
}  // namespace convsmith
