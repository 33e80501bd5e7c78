// What a problem holds and costs, and what would be compiled for it, without compiling it.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <algorithm>
#include <iostream>
#include <set>
#include "command.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "schedules/levels.h"
#include "schedules/schedule.h"
#include "tools/measure/cost.h"
#include "tools/measure/ptx.h"
#include "tools/support/temporary_folder.h"

namespace convsmith {
namespace {

struct ExplainArguments {
  std::string problem, passes = "all", tune_for, schedule, records, loop_nest, assembly;
};

// "3,600,000,000"
std::string readable(Count n) {
  std::string text;
  for (int digits = 0; n || !digits; n /= 10, digits++)
    text.insert(0, fmt::format("{}{}", int(n % 10), digits && digits % 3 == 0 ? "," : ""));
  return text;
}

// A number, or its digits where 64 bits do not hold it.
nlohmann::json json_number(Count n) {
  if (n <= UINT64_MAX) return std::uint64_t(n);
  std::string digits = readable(n);
  std::erase(digits, ',');
  return digits;
}

nlohmann::json json_shape(const Shape &shape) {
  nlohmann::json j = nlohmann::json::array();
  for (const std::int64_t extent : shape) j.push_back(extent == run_time ? nlohmann::json() : nlohmann::json(extent));
  return j;
}

std::vector<std::string> open_extents(const Problem &p) {
  std::vector<std::string> names;
  if (p.n == run_time) names.push_back(size_name(p, size_n));
  for (const int side : {size_in, size_out})
    for (int a = 0; a < p.rank; a++)
      if (p.in[a] == run_time) names.push_back(size_name(p, side + a));
  return names;
}

struct Rung {
  std::string op;
  Count weights;
};

// The weights of the same extents with all of them, with each position's own, and with shared ones. A dense problem
// names no window, and the extents of unshared weights must be known.
std::vector<Rung> ladder(const Problem &p) {
  const Shape x = p.input_shape(), y = p.output_shape();
  const bool open = std::count(p.in.begin(), p.in.end(), run_time) > 0;
  std::vector<Rung> rungs;
  if (!open) rungs.push_back({"dense", times(times(p.ic, positions(x)), times(p.oc, positions(y)))});
  if (p.op == Op::dense) return rungs;
  Count window = times(p.oc, p.ic / p.groups);
  for (int a = 0; a < p.rank; a++) window = times(window, p.kernel[a]);
  if (!open && p.op != Op::transposed) rungs.push_back({"local", times(window, positions(y))});
  const bool flipped = p.op == Op::convolution, swapped = p.op == Op::transposed;
  rungs.push_back({flipped ? "convolution" : swapped ? "transposed" : "correlation", window});
  return rungs;
}

std::string own_rung(const Problem &p) {
  return p.op == Op::dense ? "dense" : p.op == Op::local ? "local" : ladder(p).back().op;
}

std::vector<PassKind> asked_for(const std::string &text, const Problem &p) {
  if (text == "all") return passes_of(p);
  std::set<PassKind> passes;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    passes.insert(parse_pass(std::string_view(text).substr(at, comma - at)));
    at = comma + 1;
  }
  return {passes.begin(), passes.end()};
}

// Adds to each launch what NVIDIA's assembler, where there is one, says of its kernel at the level's capability and above.
void add_assembled(nlohmann::json &launches, const std::string &ptx, const std::string &level) {
  const auto ptxas = find_ptxas();
  const int least = std::stoi(level.substr(5, 1) + level.substr(7, 1));  // of "cuda-8.6"
  for (const int sm : {75, 80, 86, 90}) {
    if (!ptxas || sm < least) continue;
    for (auto &k : assemble_ptx(*ptxas, ptx, sm))
      for (auto &launch : launches)
        if (launch["kernel"] == k.name)
          launch["assembled"].push_back({{"sm", sm}, {"registers", k.registers}, {"spilled_bytes", k.spilled_bytes},
                                         {"occupancy", occupancy(sm, launch["threads"], k.registers, launch["shared_bytes"])}});
  }
}

// Compiles one pass as `emit` would, and keeps the texts asked for. Returns the kernels that it starts on a device, with what
// NVIDIA's assembler, where there is one, says of each.
nlohmann::json write_code(const ExplainArguments &a, KernelJob job) {
  nlohmann::json launches = nlohmann::json::array();
  const TemporaryFolder folder;
  if (job.pass.starts_with("pack_weight")) {  // in the order that its reader takes
    KernelJob reader = job;
    reader.pass = pass_name(job.pass == "pack_weight" ? PassKind::forward : PassKind::input_gradient);
    const Knobs knobs = Knobs::parse(kernel_choice(reader).knobs);
    job.panel = knobs.get("panel", 0), job.quad = knobs.get("quad", 0);
  }
  job.function = job.pass, job.object = folder / "kernel.o";
  if (!a.loop_nest.empty()) job.loop_nest = folder / "kernel.stmt";
  if (!a.assembly.empty()) job.assembly = folder / "kernel.s";
  const KernelResult made = compile_kernel(job);
  for (auto &launch : made.launches) launches.push_back({{"kernel", launch.kernel}, {"threads", launch.threads}, {"shared_bytes", launch.shared_bytes}});
  if (job.target.starts_with("cuda-") && !a.assembly.empty()) add_assembled(launches, job.assembly, job.target);
  if (!a.loop_nest.empty()) write_file(a.loop_nest, read_file(job.loop_nest));
  if (!a.assembly.empty()) write_file(a.assembly, read_file(job.assembly));
  return launches;
}

void print_launches(const nlohmann::json &launches) {
  for (auto &l : launches) {
    const auto number = [](int n) { return n < 0 ? std::string("?") : fmt::format("{}", n); };
    std::cout << fmt::format("{}{}: {} threads a block, {} bytes of shared memory\n", &l == &launches[0] ? "on the device\n  " : "  ",
                             std::string(l["kernel"]), number(l["threads"]), number(l["shared_bytes"]));
    for (auto &x : l.value("assembled", nlohmann::json::array()))
      std::cout << fmt::format("    sm_{}: {} registers, {} bytes spilled, {:.0f} % of the warps busy\n", int(x["sm"]), int(x["registers"]),
                               int(x["spilled_bytes"]), 100 * double(x["occupancy"]));
  }
}

nlohmann::json json_problem(const Problem &p) {
  const Count weights = elements(p.weight_shape()), biases = p.bias ? Count(p.oc) : 0;
  nlohmann::json j = {
      {"problem", p.str()},
      {"input", json_shape(p.input_shape())},
      {"output", json_shape(p.output_shape())},
      {"parameters",
       {{"weights", json_number(weights)}, {"biases", json_number(biases)}, {"total", json_number(weights + biases)}}},
      {"weights_by_op", nlohmann::json::object()},
      {"counted_as_one", open_extents(p)},
      {"passes", nlohmann::json::array()}};
  for (auto &r : ladder(p)) j["weights_by_op"][r.op] = json_number(r.weights);
  return j;
}

// Passes by what is said of them, in the order in which it was said first.
using Said = std::vector<std::pair<std::string, std::vector<std::string>>>;

void say(Said &said, const std::string &what, const std::string &pass) {
  auto same = std::find_if(said.begin(), said.end(), [&](auto &s) { return s.first == what; });
  if (same == said.end()) same = said.insert(same, {what, {}});
  same->second.push_back(pass);
}

constexpr const char row[] = "  {:<30} {:>22} {:>18} {:>18} {:>17}\n";

void print_problem(const Problem &p, const std::string &costs) {
  const auto open = open_extents(p);
  const Shape w = p.weight_shape();
  std::cout << p.str() << "\n";
  std::cout << fmt::format("  {:<11} {}\n  {:<11} {}\n", "input", shape_text(p.input_shape()), "output",
                           shape_text(p.output_shape()));
  std::cout << fmt::format("  {:<11} {}, {}\n", "weights", readable(elements(w)), shape_text(w));
  std::cout << fmt::format("  {:<11} {}\n", "biases", readable(p.bias ? Count(p.oc) : 0));
  std::cout << "weights at these extents\n";
  for (auto &r : ladder(p))
    std::cout << fmt::format("  {:<11} {}{}\n", r.op, readable(r.weights), r.op == own_rung(p) ? ", this problem" : "");
  if (costs.empty()) return;
  std::cout << (open.empty() ? "each pass\n" : fmt::format("each pass, for one {}\n", fmt::join(open, ", ")));
  std::cout << fmt::format(row, "", "multiply-adds", "bytes read", "bytes written", "operations a byte") << costs;
}

void explain(const ExplainArguments &a, const Settings &s) {
  const Problem p = Problem::parse(a.problem);
  const std::vector<PassKind> passes = asked_for(a.passes, p), fitting = passes_of(p);
  for (auto [option, file] : {std::pair("--loop-nest", &a.loop_nest), std::pair("--assembly", &a.assembly)}) {
    if (file->empty()) continue;
    if (a.passes == "all" || passes.size() != 1)
      throw Error(fmt::format("{}: expected one pass, by --passes, got \"{}\"", option, a.passes));
    require_writable(option, *file);
    require_available(p, passes[0]);
  }
  refuse_same_file("--loop-nest", a.loop_nest, "--assembly", a.assembly);
  parse_targets(s.target);
  KernelJob job;
  job.target = level_name(parse_targets(s.target.substr(0, s.target.find(','))).at(0));
  job.problem = p.str(), job.records = a.records, job.cpu = a.tune_for;
  if (job.cpu.empty()) job.cpu = job.target == level_name(host_target()) ? this_cpu() : "*";

  const Candidate asked = candidate_of(a.schedule);
  if (!asked.schedule.empty() && asked.schedule != "presets") (void)find_schedule(asked.schedule);  // throws where there is none
  nlohmann::json j = json_problem(p);
  j["target"] = job.target, j["tune_for"] = job.cpu;
  std::string costs, choices;
  Said reasons, refusals;
  for (const PassKind pass : passes) {
    job.pass = pass_name(pass);
    nlohmann::json &one = j["passes"].emplace_back(nlohmann::json{{"pass", job.pass}});
    if (std::count(fitting.begin(), fitting.end(), pass)) {
      const Cost c = cost(p, pass);
      costs += fmt::format(row, job.pass, readable(c.multiply_adds), readable(c.bytes_read), readable(c.bytes_written),
                           fmt::format("{:.2f}", c.intensity()));
      one["multiply_adds"] = json_number(c.multiply_adds), one["operations"] = json_number(c.operations);
      one["bytes_read"] = json_number(c.bytes_read), one["bytes_written"] = json_number(c.bytes_written);
      one["operations_a_byte"] = c.intensity();
    }
    std::string reason;
    try {
      require_available(p, pass);
    } catch (const Error &e) {
      reason = e.what();
    }
    one["available"] = reason.empty();
    if (!reason.empty()) {
      one["reason"] = reason;
      say(refusals, reason, job.pass);
      continue;
    }
    const bool another = is_packing(pass) && passes.size() > 1;  // packing is never the pass that a schedule is asked for
    job.schedule = another ? "" : asked.schedule, job.knobs = another ? "" : asked.knobs;
    const KernelChoice c = kernel_choice(job);
    one["schedule"] = fmt::format("{}@{}", c.schedule, c.version), one["knobs"] = c.knobs, one["why"] = c.why;
    choices += fmt::format("  {:<30} {}@{} {}\n", job.pass, c.schedule, c.version, c.knobs);
    say(reasons, c.why, job.pass);
  }
  nlohmann::json launches = nlohmann::json::array();
  if (!a.loop_nest.empty() || !a.assembly.empty()) launches = write_code(a, job);
  if (!launches.empty()) j["launches"] = launches;
  if (!a.loop_nest.empty()) j["loop_nest"] = a.loop_nest;
  if (!a.assembly.empty()) j["assembly"] = a.assembly;
  if (s.json) return print_json(j);
  if (s.quiet) return;
  print_problem(p, costs);
  if (!choices.empty()) std::cout << fmt::format("chosen at {}, tuned for {}\n", job.target, job.cpu) << choices;
  for (auto &[why, names] : reasons) std::cout << fmt::format("why: {}\n  {}\n", fmt::join(names, ", "), why);
  for (auto &[why, names] : refusals)
    std::cout << fmt::format("not available: {}\n  {}\n", fmt::join(names, ", "), why);
  print_launches(launches);
}

}  // namespace

void add_explain(CLI::App &app, Settings &s) {
  auto *sub = app.add_subcommand(
      "explain", "what a problem holds and costs, and what would be chosen for it, and why, at the first of --target");
  auto a = std::make_shared<ExplainArguments>();
  sub->add_option("PROBLEM", a->problem, "problem text; past 2^31 elements too")->required();
  sub->add_option("--passes", a->passes, "names separated by commas, or all")->capture_default_str();
  sub->add_option("--tune-for", a->tune_for, "CPU whose records to use (default: this one where the code is for it)");
  sub->add_option("--schedule", a->schedule, "NAME knob=...: instead of the records and rules; knobs left out keep their presets");
  sub->add_option("--records", a->records, "folder of *.rec files to use instead of the built-in records");
  sub->add_option("--loop-nest", a->loop_nest, "file for the compiler's lowered loops of one pass");
  sub->add_option("--assembly,--asm", a->assembly, "file for the assembly of one pass; for a GPU its PTX, OpenCL C or SPIR-V");
  add_settings(*sub, s);
  sub->callback([a, &s] { explain(*a, s); });
}

}  // namespace convsmith
