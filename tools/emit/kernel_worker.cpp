// The child: the only place where Halide's compiler runs.
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/npy.h"
#include "device_code.h"
#include "generators/kernel_generator.h"
#include "kernel_job.h"
#include "library.h"
#include "schedules/gpu_loops.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include "spirv.h"
#include "tools/support/process.h"
#include "tools/tune/space.h"
#include "workspace.h"
#include <algorithm>
#include <cctype>
#include <dlfcn.h>
#include <filesystem>
#include <fmt/format.h>
#include <iostream>
#include <iterator>
#include <thread>
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

const char *type_of(const Halide::Type &t) {
  if (t.is_bfloat()) return "bf16";
  if (t.is_float()) return t.bits() == 16 ? "f16" : "f32";
  if (t.is_uint()) return "u8";
  return t.bits() == 8 ? "s8" : "i32";
}

// `empty_batch` turns an n that the kernel takes when run into 0.
KernelArgument described(const BufferSpec &spec, bool empty_batch) {
  KernelArgument a{spec.name, type_of(spec.type), spec.shape, std::vector<std::int64_t>(spec.shape.size()), spec.memory,
                   spec.sizes, spec.fixed, {}};
  a.sizes.resize(a.shape.size(), -1);
  for (size_t axis = 0; axis < a.shape.size(); axis++) {
    if (a.shape[axis] != run_time && !(empty_batch && a.sizes[axis] == size_n)) a.sizes[axis] = -1;
    if (empty_batch && a.sizes[axis] == size_n) a.shape[axis] = 0;
  }
  // Where an extent is known only when run the strides are a stand-in's, which says the order in memory.
  std::int64_t stride = 1;
  for (const int axis : spec.memory) {
    a.strides[size_t(axis)] = stride;
    stride *= a.shape[size_t(axis)] == run_time ? 2 : std::max<std::int64_t>(1, a.shape[size_t(axis)]);
  }
  for (auto &d : spec.dims) a.dims.push_back({d.axis, d.extent, d.multiple, d.interleaved});
  return a;
}

// A file's weights, in the type and order of the kernel's argument: packed by the pass that would.
Buffer<> constant_weight(Workload w, const std::string &file) {
  const Problem &p = w.problem;
  const Tensor from = read_npy(file, p.type == Type::u8s8 ? CONVSMITH_S8 : CONVSMITH_F32);
  if (from.shape() != p.weight_shape())
    throw Error(fmt::format("{}: expected weights {}, got {}", file, shape_text(p.weight_shape()), shape_text(from.shape())));
  w.pass = w.pass == PassKind::input_gradient ? PassKind::pack_weight_for_input_gradient : PassKind::pack_weight;
  std::vector<int> extents;
  const Shape shape = from.shape();
  for (size_t a = shape.size(); a-- > 0;) extents.push_back(int(shape[a]));
  const Buffer<> file_order(p.type == Type::u8s8 ? Halide::Type(Int(8)) : Float(32), from.data<void>(), extents);
  ImageParam input = described_inputs(w).at(0);
  input.set(file_order);
  const BufferSpec spec = find_operator(w).buffers(w).at(1);
  Stages s = find_operator(w).build(w, {input});
  std::vector<int> size;
  for (auto &d : spec.dims) size.push_back(d.extent);
  Buffer<> constant = s.out.realize(size, get_jit_target_from_environment());
  constant.set_name("weight_constant");
  return constant;
}

RecordBook book_of(const std::string &folder) { return folder.empty() ? RecordBook::built_in() : RecordBook::load(folder); }

// An empty batch, fixed, is a kernel for any batch that is run with none.
Workload workload_of(const KernelJob &job) {
  Workload w{Problem::parse(job.problem), parse_pass(job.pass), parse_targets(job.target).at(0)};
  require_available(w.problem, w.pass);
  if (w.problem.n == 0) w.problem.n = run_time;
  return w;
}

Choice chosen(const KernelJob &job, const Workload &w) {
  if (job.schedule.empty()) return choose(w, book_of(job.records), job.cpu);
  if (job.schedule == "presets") return choose(w, RecordBook(), job.cpu);
  Choice choice{&find_schedule(job.schedule), {}, "asked for"};
  const Knobs asked = Knobs::parse(job.knobs);
  const Stages s = outline(with_knobs(w, asked));
  if (!choice.schedule->supports(s, w))
    throw Error(fmt::format("schedule {} does not support {} of \"{}\"", job.schedule, job.pass, job.problem));
  choice.knobs = presets(*choice.schedule, s, w);  // where nothing else is asked for
  for (auto &[name, values] : asked.values()) choice.knobs.set(name, values);
  check_knobs(*choice.schedule, choice.knobs, s, w);
  return choice;
}

// Halide's own schedulers, to compare with: they come as plug-ins beside its library. "" where it is none of them.
AutoschedulerParams autoscheduler(const std::string &name) {
  if (name != "Mullapudi2016" && name != "Adams2019") return {};
  Dl_info halide{};
  if (dladdr(reinterpret_cast<const void *>(&Halide::load_plugin), &halide) == 0 || !halide.dli_fname) throw Error("schedule " + name + ": expected Halide's library as a file");
  std::string file = "libautoschedule_" + name + ".so";
  std::transform(file.begin(), file.end(), file.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  const std::filesystem::path path = std::filesystem::path(halide.dli_fname).parent_path() / file;
  if (!std::filesystem::exists(path)) throw Error(fmt::format("schedule {}: expected {} beside Halide's library", name, file));
  load_plugin(path.string());
  AutoschedulerParams params(name, {{"parallelism", std::to_string(std::max(1u, std::thread::hardware_concurrency()))}});
  if (name == "Adams2019") params.extra["beam_size"] = "2";  // its own 32 takes minutes for a layer
  return params;
}

// What such a scheduler wants to know of every result.
void estimate(Func f, const BufferSpec &spec) {
  Region region;
  for (auto &d : spec.dims) region.push_back({0, d.extent});
  f.set_estimates(region);
}

// A kernel before code is made of it, and what of its result is known by then.
struct Lowered {
  Module module;
  KernelResult result;
};

Lowered lower(const KernelJob &job) {
  Workload w = workload_of(job);
  const bool empty_batch = Problem::parse(job.problem).n == 0;
  w.target = w.target.with_feature(Target::UserContext).with_feature(Target::NoRuntime).with_feature(Target::NoBoundsQuery);
  const bool packs = is_packing(w.pass);
  const AutoschedulerParams scheduler = autoscheduler(job.schedule);
  const Choice choice = scheduler.name.empty() ? chosen(job, w) : Choice{&find_schedule("reference"), {}, "Halide's own scheduler"};
  w = with_knobs(w, choice.knobs);
  if (packs) w.panel = job.panel, w.quad = job.quad;

  const Buffer<> weight = job.weight.empty() ? Buffer<>() : constant_weight(w, job.weight);
  std::function<void(Pipeline &)> mend;
  if (w.target.has_gpu_feature()) mend = [&](Pipeline &p) { mend_device_code(p, floats_as_bits(w)); };
  const auto module_for = [&](const Workload &workload) {
    return build_kernel(workload, job.function, [&](Stages &s, const Workload &sized) {
      if (!scheduler.name.empty()) {
        const auto specs = find_operator(sized).buffers(sized);
        const size_t first = specs.size() - size_t(output_count(sized));
        estimate(s.result(), specs[first]);
        for (size_t i = 0; i < s.results.size(); i++) estimate(s.results[i], specs[first + 1 + i]);
        return;
      }
      choice.schedule->apply(s, choice.knobs, sized);
      schedule_rest(s, sized);
    }, weight, scheduler, mend);
  };
  Module module = module_for(w);
  KernelResult r;
  r.sizes = run_time_sizes(w);
  // A device's memory is not the allocator's.
  const bool on_device = w.target.has_gpu_feature();
  const Workspace workspace = on_device ? Workspace{"0", "0"} : workspace_of(module, w.problem, r.sizes);
  // The C layer has checked what the generated assertions would, all but one: that memory was to be had. A kernel that
  // asks for none goes without them, at a third of the size. On a device they tell that it failed.
  if (!job.assertions && !on_device && workspace.serial == "0" && workspace.task == "0") {
    w.target = w.target.with_feature(Target::NoAsserts);
    module = module_for(w);
  }
  for (auto &f : module.functions())
    if (f.linkage == LinkageType::ExternalPlusMetadata) f.linkage = LinkageType::ExternalPlusArgv;
  for (auto &spec : kernel_buffers(w, weight.defined())) r.arguments.push_back(described(spec, empty_batch));
  r.schedule = choice.schedule->name, r.version = choice.schedule->version, r.why = choice.why;
  if (!scheduler.name.empty()) r.schedule = scheduler.name, r.version = 0;
  r.knobs = choice.knobs.str(), r.panel = w.panel, r.quad = w.quad;
  r.outputs = output_count(w);
  if (on_device) r.launches = launches_of(module);
  for (auto &launch : r.launches)
    if (launch.shared_bytes > device(w.target).shared)
      throw Error(fmt::format("schedule {}: {}: {} bytes of shared memory: expected at most {}", r.schedule, r.knobs, launch.shared_bytes, device(w.target).shared));
  r.serial_bytes = workspace.serial, r.task_bytes = workspace.task;
  return {module, r};
}

void write_files(const KernelJob &job, Lowered &l) {
  const Target &target = l.module.target();
  const bool on_device = target.has_gpu_feature();
  std::map<OutputFileType, std::string> files = {{OutputFileType::object, job.object}};
  if (!job.assembly.empty()) files[on_device ? OutputFileType::device_code : OutputFileType::assembly] = job.assembly;
  if (!job.loop_nest.empty()) files[OutputFileType::stmt] = job.loop_nest;
  if (target.has_feature(Target::Vulkan)) {
    Buffer<> code = l.module.get_device_code_buffer();
    if (code.defined()) mend_spirv(static_cast<std::uint8_t *>(code.data()), code.size_in_bytes());
  }
  l.module.compile(files);
  if (on_device && !job.assembly.empty()) {  // a text that ends in a zero
    std::string text = read_file(job.assembly);
    while (!text.empty() && text.back() == '\0') text.pop_back();
    write_file(job.assembly, text);
  }
  l.result.object_bytes = std::int64_t(std::filesystem::file_size(job.object));
}

void join(Lowered &to, const Lowered &from, const std::string &object) {
  const Target &one = to.module.target(), &other = from.module.target();
  if (one != other) throw InternalError(fmt::format("{}: kernels for {} and {}", object, one.to_string(), other.to_string()));
  for (auto &f : from.module.functions()) to.module.append(f);
  for (auto &b : from.module.buffers()) to.module.append(b);
}

// Jobs that name the same object become one module.
std::vector<KernelResult> compile(const std::vector<KernelJob> &jobs) {
  std::vector<Lowered> kernels;
  std::map<std::string, size_t> objects;  // and the first job of each
  for (size_t i = 0; i < jobs.size(); i++) {
    kernels.push_back(lower(jobs[i]));
    const auto [object, first] = objects.emplace(jobs[i].object, i);
    if (!first) join(kernels[object->second], kernels[i], object->first);
  }
  for (auto &[object, first] : objects) write_files(jobs[first], kernels[first]);
  std::vector<KernelResult> results;
  for (auto &k : kernels) results.push_back(k.result);
  return results;
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
    return compile(request.at("jobs").get<std::vector<KernelJob>>());
  }
  if (what == "choice") {
    const KernelJob job = request.at("job").get<KernelJob>();
    const Choice c = chosen(job, workload_of(job));
    return KernelChoice{c.schedule->name, c.knobs.str(), c.why, c.schedule->version};
  }
  if (what == "proposals") {
    const ProposalRequest r = request.at("request").get<ProposalRequest>();
    KernelJob job;
    job.problem = r.problem, job.pass = r.pass, job.target = r.target;
    return proposals(r, workload_of(job));
  }
  if (what == "runtime") {
    const Target t = target_for_all(parse_targets(std::string(request.at("target"))));
    compile_standalone_runtime(std::string(request.at("object")), t.with_feature(Target::UserContext));
    return nlohmann::json::object();
  }
  std::vector<std::vector<Candidate>> all;
  for (const std::string pass : request.at("passes")) {
    KernelJob job;
    job.problem = request.at("problem"), job.pass = pass, job.target = request.at("target");
    const Workload w = workload_of(job);
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
  end_with_parent();
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
