#include "tools/support/process.h"
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include "convsmith/error.h"
#include "tools/support/interrupt.h"
#include "tools/support/progress.h"

namespace convsmith {
namespace {

using Words = std::vector<std::string>;

ProcessResult shell(const std::string &script, const ProcessOptions &options = {}) {
  return run_process({"/bin/sh", "-c", script}, options);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator("/proc/self/fd")) count++;
  return count;
}

// Dead at last: the number is free, or a zombie that its new parent has yet to reap.
bool is_gone(const std::string &pid_text) {
  const pid_t pid = std::stoi(pid_text);
  for (int i = 0; i < 200; i++) {
    std::string state;
    if (FILE *file = std::fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r")) {
      char letter = 0;
      if (std::fscanf(file, "%*d (%*[^)]) %c", &letter) == 1) state = letter;
      std::fclose(file);
    }
    if (state.empty() || state == "Z") return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(Process, CapturesOutputErrorAndExitCode) {
  const ProcessResult result = shell("printf out; printf err >&2; exit 7");
  EXPECT_EQ(result.exit_code, 7);
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.out, "out");
  EXPECT_EQ(result.err, "err");
  EXPECT_FALSE(result.timed_out || result.output_exceeded);
}

TEST(Process, PassesArgumentsAsTheyAre) {
  EXPECT_EQ(run_process({"printf", "%s|", "a b", "", "$HOME \"'*"}).out, "a b||$HOME \"'*|");
}

TEST(Process, FeedsLargeInputAndReadsLargeOutput) {
  ProcessOptions options;
  for (int i = 0; options.input.size() < 10000000; i++) options.input += std::to_string(i) + "\n";
  EXPECT_EQ(run_process({"cat"}, options).out, options.input);
  const ProcessResult both = shell("cat >&2; head -c 10000000 /dev/zero", options);
  EXPECT_EQ(both.out.size(), 10000000u);
  EXPECT_EQ(both.err, options.input);
}

TEST(Process, InputMayBeLeftUnread) {
  ProcessOptions options;
  options.input.assign(1 << 20, 'x');
  EXPECT_EQ(shell("exit 3", options).exit_code, 3);
  EXPECT_EQ(run_process({"cat"}).out, "");
}

TEST(Process, ReportsASignal) {
  const ProcessResult result = shell("printf before; kill -SEGV $$");
  EXPECT_EQ(result.exit_code, -1);
  EXPECT_EQ(result.signal, SIGSEGV);
  EXPECT_EQ(result.out, "before");
}

TEST(Process, MissingProgramIsAnError) {
  const auto message = [](const std::vector<std::string> &argv) -> std::string {
    try {
      run_process(argv);
      return "";
    } catch (const Error &error) {
      return error.what();
    }
  };
  EXPECT_EQ(message({"no-such-program-anywhere"}),
            "no-such-program-anywhere: cannot run: no such program in the folders of PATH");
  EXPECT_EQ(message({"/no/such/program"}), "/no/such/program: cannot run: no such program");
  EXPECT_EQ(message({"/tmp"}), "/tmp: cannot run: Permission denied");
  EXPECT_EQ(message({}), "expected a program to run, got an empty name");
}

TEST(Process, TimeoutKillsTheWholeGroup) {
  const auto start = std::chrono::steady_clock::now();
  const ProcessResult result = shell("trap '' TERM INT; sleep 60 & echo $!; wait", {.timeout_s = 0.3});
  EXPECT_TRUE(result.timed_out);
  EXPECT_EQ(result.signal, SIGKILL);
  EXPECT_GE(seconds_since(start), 0.3);
  EXPECT_LT(seconds_since(start), 10);
  EXPECT_TRUE(is_gone(result.out));
}

TEST(Process, TimeoutHoldsForAProgramThatClosedItsOutputOrNeverStopsWriting) {
  EXPECT_TRUE(shell("exec >&- 2>&-; sleep 60", {.timeout_s = 0.2}).timed_out);
  const ProcessResult endless = run_process({"yes"}, {.timeout_s = 0.2, .max_output = std::size_t{1} << 36});
  EXPECT_TRUE(endless.timed_out);
  EXPECT_FALSE(endless.out.empty());
}

TEST(Process, DoesNotWaitForAGrandchildThatHoldsThePipe) {
  const auto start = std::chrono::steady_clock::now();
  const ProcessResult result = shell("sleep 60 & echo $!");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_LT(seconds_since(start), 10);
  EXPECT_TRUE(is_gone(result.out));
  // One that left the group lives on, and is not waited for.
  const ProcessResult escaped = shell("setsid sleep 61 & echo $!");
  EXPECT_EQ(escaped.exit_code, 0);
  EXPECT_LT(seconds_since(start), 10);
  kill(std::stoi(escaped.out), SIGKILL);
}

TEST(Process, EndlessOutputIsCutAndTheProgramKilled) {
  const ProcessResult result = run_process({"yes"}, {.max_output = 100000});
  EXPECT_TRUE(result.output_exceeded);
  EXPECT_EQ(result.signal, SIGKILL);
  EXPECT_EQ(result.out.size(), 100000u);
  const ProcessResult exact = shell("head -c 100000 /dev/zero", {.max_output = 100000});
  EXPECT_FALSE(exact.output_exceeded);
  EXPECT_EQ(exact.out.size(), 100000u);
  EXPECT_TRUE(shell("head -c 50001 /dev/zero; head -c 50000 /dev/zero >&2", {.max_output = 100000}).output_exceeded);
}

TEST(Process, LeavesNoDescriptorAndNoZombie) {
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 20; i++) {
    shell("true");
    EXPECT_THROW(run_process({"no-such-program-anywhere"}), Error);
    shell("sleep 60", {.timeout_s = 0.001});
  }
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(Process, TheProgramGetsOnlyTheStandardDescriptors) {
  // What this test was itself started with is not ours to answer for.
  for (int fd = 3; fd < 1024; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  ProcessOptions options;
  options.input = "text";
  EXPECT_EQ(run_process({"ls", "/proc/self/fd"}, options).out, "0\n1\n2\n3\n");  // 3 is the folder that ls reads
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(Process, TakesNoMoreMemoryThanItMay) {
  const auto take = [](int megabytes, std::size_t most) {
    ProcessOptions options;
    options.max_memory = most;
    const std::string script = "sleep 0.1; head -c " + std::to_string(megabytes) + "M /dev/zero | tail -n 1 | wc -c";
    return run_process({"/bin/sh", "-c", script}, options);
  };
  EXPECT_EQ(take(40, 0).out, "41943040\n");
  EXPECT_EQ(take(40, std::size_t{1} << 30).out, "41943040\n");
  EXPECT_NE(take(40, std::size_t{20} << 20).out, "41943040\n");
}
#endif

TEST(Process, RunsFromSeveralThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; t++)
    threads.emplace_back([t] {
      for (int i = 0; i < 10; i++) {
        ProcessOptions options;
        options.input = std::to_string(t * 100 + i);
        EXPECT_EQ(run_process({"cat"}, options).out, options.input);
      }
    });
  for (std::thread &thread : threads) thread.join();
}

TEST(Process, OwnExecutableIsThisTest) {
  EXPECT_TRUE(std::filesystem::equivalent(own_executable(), "/proc/self/exe"));
  EXPECT_NE(own_executable().find('/'), std::string::npos);
}

std::unique_ptr<Conversation> talk_to(const std::string &script) {
  return std::make_unique<Conversation>(Words{"/bin/sh", "-c", script});
}

// What is thrown, as text.
std::string refusal(const std::function<void()> &call) {
  try {
    call();
  } catch (const Error &error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Conversation, AnswersLineByLine) {
  const auto echo = talk_to("while read -r line; do echo \"you said $line\"; done");
  EXPECT_EQ(echo->ask("one", 10), "you said one");
  EXPECT_EQ(echo->ask("two  words \\ \"quoted\"", 10), "you said two  words \\ \"quoted\"");
  for (int i = 0; i < 1000; i++) ASSERT_EQ(echo->ask(std::to_string(i), 10), "you said " + std::to_string(i));
  const auto cat = Conversation({"cat"}).ask(std::string(30'000, 'x'), 10);
  EXPECT_EQ(cat, std::string(30'000, 'x'));
}

TEST(Conversation, MayBeginWithTheProgram) {
  const auto greeting = talk_to("echo ok one 1.0; read -r line; echo \"$line\"");
  EXPECT_EQ(greeting->ask("", 10), "ok one 1.0");
  EXPECT_EQ(greeting->ask("next", 10), "next");
}

TEST(Conversation, KeepsLinesThatCameTogether) {
  const auto talk = talk_to("printf 'a\\n\\nb\\nc'; sleep 0.2; printf 'd\\ne\\n'; read -r line; echo \"$line\"");
  for (const char *line : {"a", "", "b", "cd", "e"}) EXPECT_EQ(talk->ask("", 10), line);
  EXPECT_EQ(talk->ask("f", 10), "f");
  // Many of them, longer together than a line may be.
  const auto many = talk_to("seq 1 40000; read -r line; echo \"$line\"");
  for (int i = 1; i <= 40000; i++) ASSERT_EQ(many->ask("", 10), std::to_string(i));
  EXPECT_EQ(many->ask("end", 10), "end");
}

TEST(Conversation, AProgramThatEndsIsAnError) {
  for (const char *script : {"exit 0", "exit 3", "kill -SEGV $$", "read -r line; printf half"}) {
    const auto talk = talk_to(script);
    EXPECT_EQ(refusal([&] { talk->ask("anything", 10); }), "/bin/sh: ended before it answered \"anything\"") << script;
  }
  // Asked when it has ended, there is no SIGPIPE.
  const auto ended = talk_to("echo bye");
  EXPECT_EQ(ended->ask("", 10), "bye");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(refusal([&] { ended->ask("more", 10); }), "/bin/sh: ended before it answered \"more\"");
}

TEST(Conversation, SaysHowItEnded) {
  for (auto [script, how] : {std::pair("exit 0", "ended with exit status 0"), std::pair("exit 3", "ended with exit status 3"),
                             std::pair("kill -SEGV $$", "died of signal 11"), std::pair("echo on; sleep 5", "")}) {
    const auto talk = talk_to(script);
    EXPECT_EQ(talk->how_it_ended(), how) << script;
    EXPECT_EQ(talk->how_it_ended(), how) << "asked again: " << script;
  }
}

TEST(Conversation, MayBeQuiet) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(Conversation({"/bin/sh", "-c", "echo loud >&2; echo ok"}, {true, 0}).ask("", 10), "ok");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Conversation, AProgramThatSaysNothingIsAnError) {
  const auto start = std::chrono::steady_clock::now();
  const auto silent = talk_to("read -r line; sleep 60");
  EXPECT_EQ(refusal([&] { silent->ask("hello", 0.2); }), "/bin/sh: expected an answer within 0.2 s to \"hello\"");
  // Nor does it help to go on without ending a line.
  const auto slow = talk_to("while sleep 0.02; do printf .; done");
  EXPECT_EQ(refusal([&] { slow->ask("", 0.3); }), "/bin/sh: expected an answer within 0.3 s to \"\"");
  EXPECT_GE(seconds_since(start), 0.5);
  EXPECT_LT(seconds_since(start), 10);
}

TEST(Conversation, ALineWithoutEndIsAnError) {
  const auto endless = talk_to("exec yes x | tr -d '\\n'");
  EXPECT_EQ(refusal([&] { endless->ask("", 10); }), "/bin/sh: expected a line, got 64 KiB without an end");
  const auto long_line = talk_to("head -c 60000 /dev/zero | tr '\\0' x; echo");
  EXPECT_EQ(long_line->ask("", 10), std::string(60'000, 'x'));
}

TEST(Conversation, AMissingProgramIsAnError) {
  const auto start = [](const Words &argv) { return refusal([&] { Conversation talk(argv); }); };
  EXPECT_EQ(start({"/no/such/program"}), "/no/such/program: cannot run: no such program");
  EXPECT_EQ(start({"no-such-program-anywhere", "word"}),
            "no-such-program-anywhere: cannot run: no such program in the folders of PATH");
  EXPECT_EQ(start({"/tmp"}), "/tmp: cannot run: Permission denied");
  EXPECT_EQ(start({}), "expected a program to talk to, got an empty name");
  EXPECT_EQ(start({"", "word"}), "expected a program to talk to, got an empty name");
}

TEST(Conversation, EndsWithItsGroup) {
  const std::size_t descriptors = open_descriptors();
  std::string pids[3];
  {
    const auto talk = talk_to("trap '' TERM INT HUP; sleep 60 & echo $!; (sleep 61) & echo $!; echo $$; wait");
    for (auto &pid : pids) pid = talk->ask("", 10);
    EXPECT_EQ(kill(std::stoi(pids[0]), 0), 0);
  }
  for (auto &pid : pids) EXPECT_TRUE(is_gone(pid)) << pid;
  // Whoever outlives the program itself goes too.
  std::string left;
  {
    const auto talk = talk_to("sleep 60 & echo $!");
    left = talk->ask("", 10);
  }
  EXPECT_TRUE(is_gone(left));
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "no zombies";
}

TEST(Conversation, TheProgramGetsOnlyTheStandardDescriptors) {
  for (int fd = 3; fd < 1024; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  Conversation first({"cat"});
  EXPECT_EQ(first.ask("a", 10), "a");
  Conversation second({"sh", "-c", "echo $(ls /proc/self/fd)"});
  EXPECT_EQ(second.ask("", 10), "0 1 2 3");  // 1 is the substitution's, 3 is the folder that ls reads
}

// In a child process: the flag that a signal sets stays set.
void interrupted_while(const std::function<void()> &work) {
  install_interrupt_handlers();
  std::thread signaller([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    kill(getpid(), SIGINT);
  });
  int code = 1;
  try {
    work();
  } catch (const Interrupted &) {
    code = waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD ? 130 : 2;
  }
  signaller.join();
  std::_Exit(code);
}

TEST(InterruptDeathTest, EndsARunningProgram) {
  EXPECT_EXIT(interrupted_while([] { shell("sleep 60"); }), testing::ExitedWithCode(130), "");
}

TEST(InterruptDeathTest, EndsAConversation) {
  EXPECT_EXIT(interrupted_while([] { talk_to("read -r line; sleep 60")->ask("hello", 30); }), testing::ExitedWithCode(130), "");
}

TEST(InterruptDeathTest, IsThrownAtTheNextCheck) {
  EXPECT_FALSE(interrupted());
  EXPECT_NO_THROW(check_interrupt());
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        raise(SIGTERM);
        raise(SIGTERM);
        bool thrown = false;
        try {
          check_interrupt();
        } catch (const Interrupted &) {
          thrown = true;
        }
        std::_Exit(thrown && interrupted() ? 130 : 1);
      },
      testing::ExitedWithCode(130), "");
}

TEST(InterruptDeathTest, ASecondSignalLaterEndsAtOnce) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        raise(SIGINT);
        std::this_thread::sleep_for(std::chrono::milliseconds(1100));
        raise(SIGINT);
        std::_Exit(1);
      },
      testing::ExitedWithCode(130), "");
}

TEST(InterruptDeathTest, AnIgnoredSignalStaysIgnored) {
  EXPECT_EXIT(
      {
        std::signal(SIGINT, SIG_IGN);
        install_interrupt_handlers();
        raise(SIGINT);
        std::_Exit(interrupted() ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(ProgressBar, LineFitsItsColumns) {
  EXPECT_EQ(progress_line("learn", 0.5, "loss 0.23", 36), "learn [=====>     ]  50 %  loss 0.23");
  EXPECT_EQ(progress_line("", 1.0, "", 200), "[" + std::string(40, '=') + "] 100 %");
  EXPECT_EQ(progress_line("learn", 0.29, "", 12), "learn  29 %");
  EXPECT_EQ(progress_line("learn", -1, "", 6), "learn ");
  for (int columns = 0; columns < 100; columns++)
    EXPECT_LE(progress_line("label", 0.7, "loss 1", columns).size(), static_cast<std::size_t>(columns));
}

TEST(ProgressBar, IsSilentWhereStandardErrorIsNoTerminal) {
  testing::internal::CaptureStderr();
  {
    ProgressBar progress("learn", 10, false);
    for (int i = 0; i <= 10; i++) progress.update(i, "loss 1");
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace convsmith
