#include "tools/support/process.h"
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include "convsmith/error.h"
#include "tools/support/interrupt.h"
#include "tools/support/progress.h"

namespace convsmith {
namespace {

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

// In a child process: the flag that a signal sets stays set.
void interrupted_while_running() {
  install_interrupt_handlers();
  std::thread signaller([] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    kill(getpid(), SIGINT);
  });
  int code = 1;
  try {
    shell("sleep 60");
  } catch (const Interrupted &) {
    code = waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD ? 130 : 2;
  }
  signaller.join();
  std::_Exit(code);
}

TEST(InterruptDeathTest, EndsARunningProgram) {
  EXPECT_EXIT(interrupted_while_running(), testing::ExitedWithCode(130), "");
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
