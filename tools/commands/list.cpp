#include <fmt/format.h>
#include <iostream>
#include "command.h"
#include "schedules/levels.h"
#include "schedules/records.h"

namespace convsmith {
namespace {

nlohmann::json everything() {
  nlohmann::json j;
  j["operators"] = {"correlation", "convolution", "transposed", "local", "dense"};
  for (const char *pass : {"forward", "input_gradient", "weight_gradient", "bias_gradient", "activation_gradient",
                           "pack_weight", "pack_weight_for_input_gradient", "train_step"})
    j["passes"].push_back(pass);
  for (const Schedule *s : schedules()) j["schedules"].push_back(fmt::format("{}@{}", s->name, s->version));
  const std::string own = level_name(host_target());
  for (const char *machine : {"all", "arm-64-dotprod,arm-64", "cuda-8.6,cuda-8.0,cuda-7.5,opencl,vulkan"})
    for (auto &t : parse_targets(machine))
      j["targets"].push_back(level_name(t) + (level_name(t) == own ? " (this machine)" : ""));
  j["records"] = nlohmann::json::array();
  const RecordBook book = RecordBook::built_in();
  for (auto &r : book.records())
    j["records"].push_back(fmt::format("{} | {} | {} | {} | {}@{} {}", r.target, r.problem.str(), pass_name(r.pass),
                                       r.cpu, r.schedule, r.version, r.knobs.str()));
  return j;
}

void list(const std::string &what, const Settings &s) {
  const nlohmann::json all = everything();
  if (s.json) {
    print_json(what.empty() ? all : all.at(what));
    return;
  }
  if (s.quiet) return;
  for (auto &[kind, entries] : all.items()) {
    if (!what.empty() && kind != what) continue;
    if (what.empty()) std::cout << kind << "\n";
    for (auto &e : entries) std::cout << (what.empty() ? "  " : "") << e.get<std::string>() << "\n";
    if (entries.empty()) std::cout << (what.empty() ? "  " : "") << "none\n";
  }
}

}  // namespace

void add_list(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand("list", "operators, passes, schedules, targets and records");
  auto what = std::make_shared<std::string>();
  sub->add_option("WHAT", *what, "one of them alone: operators, passes, schedules, targets or records")
      ->check(one_of({"operators", "passes", "schedules", "targets", "records"}));
  add_settings(*sub, s);
  sub->callback([what, &s] { list(*what, s); });
}

}  // namespace convsmith
