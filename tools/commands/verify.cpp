#include <fmt/format.h>
#include <iostream>
#include "command.h"
#include "convsmith/file.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include "tools/verify/gate.h"

namespace convsmith {
namespace {

struct VerifyArguments {
  std::string problem, passes = "all", schedules = "chosen", out;
  std::uint64_t seed = 1;
};

void verify(const VerifyArguments &a, const Settings &s) {
  require_writable("--output", a.out);
  const Problem p = Problem::parse(a.problem);
  GateOptions o;
  o.passes = parse_passes(a.passes, p);
  o.every_schedule = a.schedules != "chosen", o.extremes = a.schedules == "extremes";
  o.seed = a.seed, o.cc = s.cc;
  nlohmann::json j = {
      {"problem", p.str()}, {"seed", a.seed}, {"halide", halide_version()}, {"passes", nlohmann::json::array()}};
  for (auto &target : parse_targets(s.target)) {
    o.target = level_name(target);
    for (auto &g : gate(p, o)) {
      j["passes"].push_back({{"level", o.target},
                             {"pass", g.figures.pass},
                             {"schedule", g.schedule},
                             {"knobs", g.knobs},
                             {"exact_elements", g.figures.exact_elements},
                             {"real_elements", g.figures.real_elements},
                             {"worst_error", g.figures.worst_error},
                             {"worst_share_of_bound", g.figures.worst_share},
                             {"adjoint_identity", g.figures.adjoint}});
      if (!s.json && !s.quiet)
        std::cout << fmt::format("{:<32} {:<19} {:>8} exact {:>8} real, worst {:5.1f} % of the bound{}  {}\n",
                                 g.figures.pass, o.target, g.figures.exact_elements, g.figures.real_elements,
                                 100 * g.figures.worst_share, g.figures.adjoint ? ", adjoint" : "", g.schedule);
    }
  }
  if (!a.out.empty()) write_file(a.out, json_text(j));
  if (s.json) print_json(j);
}

}  // namespace

void add_verify(CLI::App &app, Settings &s) {
  auto *sub =
      app.add_subcommand("verify", "hold every pass of a problem against the reference, and write the certificate");
  auto a = std::make_shared<VerifyArguments>();
  sub->add_option("PROBLEM", a->problem, "problem text")->required();
  sub->add_option("--passes", a->passes, "names separated by commas, or all")->capture_default_str();
  sub->add_option("--schedules", a->schedules, "chosen, all, or extremes: all, with each knob at its ends too")
      ->check(one_of({"chosen", "all", "extremes"}))
      ->capture_default_str();
  sub->add_option("--seed", a->seed, "of the data")->check(whole_number(0, UINT64_MAX))->capture_default_str();
  sub->add_option("-o,--output", a->out, "the certificate (.json)")->check(a_name());
  add_settings(*sub, s);
  sub->callback([a, &s] { verify(*a, s); });
}

}  // namespace convsmith
