// The child: the only place where Halide's compiler runs, and the one that looks inside it.
#include "convsmith/error.h"
#include "convsmith/npy.h"
#include "generators/kernel_generator.h"
#include "kernel_job.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <iostream>
#include <iterator>
#include <unistd.h>

using namespace Halide;

namespace convsmith {
namespace {

// An exception of Halide's library does not unwind into this program: report and end.
struct Reporter : CompileTimeErrorReporter {
  void warning(const char *) override {}
  void error(const char *message) override {
    std::string line(message);
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::cerr << "the compiler refused the kernel: " << line << std::endl;
    _exit(3);
  }
};

// Bytes that a function asks of the allocator: an upper bound, by the sizes of its heap allocations. Those that live
// at the same time add up; those inside a parallel loop, whose body is a function of its own by now, are asked for once
// a thread.
class Workspace : public Internal::IRVisitor {
 public:
  std::int64_t serial = 0, task = 0;

  explicit Workspace(const Module &module) {
    // A loop's bounds are where it is started, so that its body comes after.
    const auto is_body = [](const Internal::LoweredFunc &f) { return f.linkage == LinkageType::Internal; };
    for (const Internal::LoweredFunc &f : module.functions())
      if (!is_body(f)) f.body.accept(this);
    in_task_ = true;
    for (const Internal::LoweredFunc &f : module.functions()) {
      if (!is_body(f)) continue;
      const auto loop = parallel_loops_.find(f.name);
      if (loop == parallel_loops_.end()) throw std::logic_error("workspace: no loop has the body " + f.name);
      Internal::ScopedBinding<Internal::Interval> bind(bounds_, f.args.at(1).name, loop->second);
      f.body.accept(this);
    }
  }

 private:
  using IRVisitor::visit;
  static constexpr std::int64_t slack = 256;  // alignment and the margin that vectors may touch
  static constexpr std::int64_t on_stack = 16 * 1024;

  void visit(const Internal::Allocate *op) override {
    std::int64_t bytes = op->type.bytes();
    bool constant = true;
    for (const Expr &e : op->extents) {
      const Expr upper = Internal::find_constant_bound(e, Internal::Direction::Upper, bounds_);
      const auto value = upper.defined() ? Internal::as_const_int(upper) : std::nullopt;
      constant &= Internal::is_const(e);
      if (!value) throw std::logic_error("workspace: no bound on the extents of " + op->name);
      bytes *= *value;
    }
    const bool heap = op->memory_type == MemoryType::Heap ||
                      (op->memory_type == MemoryType::Auto && (!constant || bytes > on_stack));
    std::int64_t &total = in_task_ ? task_now_ : serial_now_;
    if (heap) total += bytes + slack;
    serial = std::max(serial, serial_now_), task = std::max(task, task_now_);
    IRVisitor::visit(op);
    if (heap) total -= bytes + slack;
  }

  void visit(const Internal::For *op) override {
    Internal::ScopedBinding<Internal::Interval> bind(bounds_, op->name, between(op->min, op->min + op->extent - 1));
    IRVisitor::visit(op);
  }

  void visit(const Internal::LetStmt *op) override {
    op->value.accept(this);
    Internal::ScopedBinding<Internal::Interval> bind(bounds_, op->name, between(op->value, op->value));
    op->body.accept(this);
  }

  // halide_do_par_for(::body, min, extent, closure)
  void visit(const Internal::Call *op) override {
    IRVisitor::visit(op);
    if (op->name != "halide_do_par_for") return;
    const Internal::Variable *body = op->args.at(0).as<Internal::Variable>();
    if (!body || body->name.substr(0, 2) != "::") throw std::logic_error("workspace: a parallel loop without a body");
    parallel_loops_[body->name.substr(2)] = between(op->args[1], op->args[1] + op->args[2] - 1);
  }

  Internal::Interval between(const Expr &first, const Expr &last) const {
    Internal::Interval i = Internal::Interval::everything();
    const Expr lo = Internal::find_constant_bound(first, Internal::Direction::Lower, bounds_);
    const Expr hi = Internal::find_constant_bound(Internal::simplify(last), Internal::Direction::Upper, bounds_);
    if (lo.defined()) i.min = lo;
    if (hi.defined()) i.max = hi;
    return i;
  }

  Internal::Scope<Internal::Interval> bounds_;
  std::map<std::string, Internal::Interval> parallel_loops_;
  std::int64_t serial_now_ = 0, task_now_ = 0;
  bool in_task_ = false;
};

KernelArgument described(const BufferSpec &spec) {
  KernelArgument a{spec.name, spec.shape, std::vector<std::int64_t>(spec.shape.size()), spec.memory, spec.fixed, {}};
  std::int64_t stride = 1;
  for (int axis : spec.memory) a.strides[axis] = stride, stride *= spec.shape[axis];
  for (auto &d : spec.dims) a.dims.push_back({d.axis, d.extent, d.multiple});
  return a;
}

// A file's weights, in the order and memory of the kernel's argument.
Buffer<float> constant_weight(const Workload &w, const std::string &file) {
  const Tensor from = read_npy(file);
  Workload plain = w;
  plain.pass = PassKind::pack_weight;
  const BufferSpec spec = find_operator(plain).buffers(plain)[1];
  if (from.shape() != w.problem.weight_shape())
    throw Error(fmt::format("{}: expected weights {}, got {}", file, shape_text(w.problem.weight_shape()), shape_text(from.shape())));
  if (w.panel) throw Error(fmt::format("{}: constant weights come plain, not in panels", file));
  std::vector<int> extents;
  for (auto &d : spec.dims) extents.push_back(d.extent);
  Buffer<float> constant(extents);
  constant.set_name("weight_constant");
  constant.for_each_element([&](const int *at) {
    Shape index(from.rank(), 0);
    for (size_t d = 0; d < spec.dims.size(); d++) index[spec.dims[d].axis] += std::int64_t(at[d]) * spec.dims[d].multiple;
    constant(at) = from.at(index);
  });
  return constant;
}

RecordBook book_of(const std::string &folder) { return folder.empty() ? RecordBook::built_in() : RecordBook::load(folder); }

KernelResult compile(const KernelJob &job) {
  Workload w{Problem::parse(job.problem), parse_pass(job.pass), parse_targets(job.target).at(0)};
  require_available(w.problem, w.pass);
  w.target = w.target.with_feature(Target::UserContext).with_feature(Target::NoRuntime).with_feature(Target::NoBoundsQuery);
  const bool packs = w.pass == PassKind::pack_weight || w.pass == PassKind::pack_weight_for_input_gradient;

  Choice choice;
  if (job.schedule.empty()) {
    choice = choose(w, book_of(job.records), job.cpu);
  } else {
    choice = {&find_schedule(job.schedule), Knobs::parse(job.knobs), "asked for"};
    const Stages s = outline(with_knobs(w, choice.knobs));
    if (!choice.schedule->supports(s, w))
      throw Error(fmt::format("schedule {} does not support {} of \"{}\"", job.schedule, job.pass, job.problem));
    check_knobs(*choice.schedule, choice.knobs, s, w);
  }
  if (!job.weight.empty()) choice.knobs.set("panel", {0});
  w = with_knobs(w, choice.knobs);
  if (packs) w.panel = job.panel;

  const Buffer<float> weight = job.weight.empty() ? Buffer<float>() : constant_weight(w, job.weight);
  const auto module_for = [&](const Workload &workload) {
    return build_kernel(workload, job.function, [&](Stages &s) {
      choice.schedule->apply(s, choice.knobs, workload);
      schedule_small(s, workload.target);
    }, weight);
  };
  Module module = module_for(w);
  KernelResult r;
  const Workspace workspace(module);
  // The C layer has checked what the generated assertions would, all but one: that memory was to be had. A kernel that
  // asks for none goes without them, at a third of the size.
  if (!job.assertions && workspace.serial + workspace.task == 0) {
    w.target = w.target.with_feature(Target::NoAsserts);
    module = module_for(w);
  }
  for (Internal::LoweredFunc &f : module.functions())
    if (f.linkage == LinkageType::ExternalPlusMetadata) f.linkage = LinkageType::ExternalPlusArgv;
  std::map<OutputFileType, std::string> files = {{OutputFileType::object, job.object}};
  if (!job.assembly.empty()) files[OutputFileType::assembly] = job.assembly;
  if (!job.loop_nest.empty()) files[OutputFileType::stmt] = job.loop_nest;
  module.compile(files);

  for (auto &spec : kernel_buffers(w, weight.defined())) r.arguments.push_back(described(spec));
  r.schedule = choice.schedule->name, r.version = choice.schedule->version, r.why = choice.why;
  r.knobs = choice.knobs.str(), r.panel = w.panel;
  r.outputs = output_count(w);
  r.serial_bytes = workspace.serial, r.task_bytes = workspace.task;
  r.object_bytes = std::int64_t(std::filesystem::file_size(job.object));
  return r;
}

// A schedule at its presets, and with one knob at a time at each end of its range.
std::vector<Candidate> settings(const Schedule &schedule, const Stages &s, const Workload &w, bool extremes) {
  std::vector<Candidate> found;
  const Knobs base = presets(schedule, s, w);
  auto add = [&](const Knobs &k) {
    if (schedule.conflict(s, k, w).empty()) found.push_back({schedule.name, k.str()});
  };
  add(base);
  if (!extremes) return found;
  for (auto &knob : all_knobs(schedule, s, w)) {
    if (knob.permutation) {
      Knobs k = base;
      auto reversed = knob.preset;
      std::reverse(reversed.begin(), reversed.end());
      if (reversed != knob.preset) k.set(knob.name, reversed), add(k);
      continue;
    }
    for (size_t i = 0; i < knob.preset.size(); i++)
      for (int value : {knob.low[i], knob.high[i]}) {
        if (value == knob.preset[i]) continue;
        auto values = knob.preset;
        values[i] = value;
        Knobs k = base;
        k.set(knob.name, values), add(k);
      }
  }
  return found;
}

nlohmann::json answer(const nlohmann::json &request) {
  const std::string what = request.at("what");
  if (what == "kernels") {
    std::vector<KernelResult> results;
    for (auto &job : request.at("jobs")) results.push_back(compile(job.get<KernelJob>()));
    return results;
  }
  if (what == "runtime") {
    const Target t = parse_targets(std::string(request.at("target"))).at(0);
    compile_standalone_runtime(std::string(request.at("object")), t.with_feature(Target::UserContext));
    return nlohmann::json::object();
  }
  std::vector<std::vector<Candidate>> all;
  for (const std::string pass : request.at("passes")) {
    const Workload w{Problem::parse(std::string(request.at("problem"))), parse_pass(pass), parse_targets(std::string(request.at("target"))).at(0)};
    require_available(w.problem, w.pass);
    const Stages s = outline(w);
    all.emplace_back();
    for (const Schedule *schedule : schedules())
      if (schedule->supports(s, w))
        for (auto &c : settings(*schedule, s, w, request.at("extremes"))) all.back().push_back(c);
  }
  return all;
}

}  // namespace

int kernel_worker() {
  static Reporter reporter;
  set_custom_compile_time_error_reporter(&reporter);
  try {
    const std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    std::cout << answer(nlohmann::json::parse(text)).dump() << std::flush;
    return 0;
  } catch (const Error &e) {
    std::cerr << e.what() << std::endl;
    return 2;
  } catch (const std::exception &e) {
    std::cerr << e.what() << std::endl;
    return 3;
  }
}

}  // namespace convsmith
