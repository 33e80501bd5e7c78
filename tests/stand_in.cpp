// Stands in for a kernel that is measured: answers the questions of the tuner's protocol as its first argument says,
// KIND, and claims to take its second, US.
#include <sys/prctl.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string kind = argc > 1 ? argv[1] : "", us = argc > 2 ? argv[2] : "100";
  int questions = 0;
  for (std::string line; std::getline(std::cin, line);) {
    const size_t at = line.find("\"number\":");
    const std::string number = line.substr(at + 9, line.find_first_of(",}", at) - at - 9);
    const bool last = ++questions == 3;  // the first turn, after it was opened and checked
    if (kind == "exits" && last) return 0;
    if (kind == "dies" && last) raise(SIGSEGV);
    if (kind == "garbage" && last) std::cout << "\x01\x02 no JSON [}" << std::endl;
    else if (kind == "other_number" && last) std::cout << "{\"number\":1,\"min_us\":1,\"median_us\":1}" << std::endl;
    else if (kind == "no_times" && last) std::cout << "{\"number\":" << number << ",\"min_us\":\"fast\"}" << std::endl;
    else if (kind == "negative" && last) std::cout << "{\"number\":" << number << ",\"min_us\":-1,\"median_us\":1}" << std::endl;
    else if (kind == "half_a_frame" && last) {
      std::cout << "{\"number\":" << number << ",\"min_" << std::flush;
      return 0;
    } else if (kind == "hangs" && last) {
      std::signal(SIGTERM, SIG_IGN);
      for (;;) pause();
    } else if (kind == "grandchild" && last) {
      if (fork() == 0) {
        std::signal(SIGTERM, SIG_IGN);
        sleep(3);
        _exit(0);
      }
      return 1;
    } else if (kind == "closes" && last) {
      close(STDIN_FILENO), close(STDOUT_FILENO);
      sleep(30);
    } else if (kind == "floods" && last) {
      const std::string text(1 << 16, 'x');
      for (int i = 0; i < 1 << 14; i++)
        if (write(STDOUT_FILENO, text.data(), text.size()) < 0) return 1;
    } else if (kind == "wrong" && last) std::cout << "{\"number\":" << number << ",\"fault\":\"differs at element 3\"}" << std::endl;
    else
      std::cout << "{\"number\":" << number << ",\"digest\":\"" << (kind == "other_result" ? "other" : "same") << "\",\"min_us\":" << us << ",\"median_us\":" << us << "}" << std::endl;
  }
  return 0;
}
