#include "contestant.h"
#include <fmt/format.h>
#include <cmath>
#include "tools/support/process.h"

namespace convsmith {

Contestant::Contestant(const std::vector<std::string> &program, const ContestantJob &job, const ContestantLimits &limits)
    : limits_(limits), program_(std::make_unique<Conversation>(program, ConversationOptions{true, limits.memory})) {
  ask({{"what", "open"}, {"job", job}}, limits.seconds);
}

Contestant::~Contestant() = default;

nlohmann::json Contestant::ask(nlohmann::json question, double seconds) {
  question["number"] = ++number_;
  std::string line;
  try {
    line = program_->ask(question.dump(), seconds);
  } catch (const NoAnswer &e) {
    const std::string how = program_->how_it_ended();
    if (!how.empty()) throw Fault(how);
    throw Fault(e.reason == NoAnswer::Reason::silent     ? fmt::format("took more than {:g} s", seconds)
                : e.reason == NoAnswer::Reason::too_long ? "said too much"
                                                         : "closed its output");
  }
  const auto answer = nlohmann::json::parse(line, nullptr, false);
  if (!answer.is_object() || answer.value("number", nlohmann::json()) != question["number"]) throw Fault("answered nonsense");
  if (const auto fault = answer.find("fault"); fault != answer.end())
    throw Fault(fault->is_string() ? fault->get<std::string>() : "answered nonsense");
  return answer;
}

std::string Contestant::check() {
  const auto answer = ask({{"what", "check"}}, limits_.seconds);
  const auto digest = answer.find("digest");
  if (digest == answer.end() || !digest->is_string()) throw Fault("answered nonsense");
  return *digest;
}

Times Contestant::time(int threads, double seconds) {
  const auto answer = ask({{"what", "time"}, {"threads", threads}, {"seconds", seconds}}, seconds + limits_.seconds);
  const auto number = [&](const char *key) {
    const auto value = answer.find(key);
    return value != answer.end() && value->is_number() ? value->get<double>() : NAN;
  };
  const Times t{number("min_us"), number("median_us")};
  if (!(t.min_us > 0 && t.median_us >= t.min_us && std::isfinite(t.median_us))) throw Fault("answered nonsense");
  return t;
}

}  // namespace convsmith
