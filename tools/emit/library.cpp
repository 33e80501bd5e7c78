#include "library.h"
#include "c_layer.h"
#include "convsmith/error.h"
#include "convsmith/file.h"
#include "convsmith/library.h"
#include "schedules/levels.h"
#include "schedules/records.h"
#include "tools/support/cache.h"
#include "tools/support/hash.h"
#include "tools/support/interrupt.h"
#include "tools/support/parallel.h"
#include "tools/support/process.h"
#include "tools/support/temporary_folder.h"
#include "tools/verify/certificate.h"
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mutex>
#include <set>

namespace fs = std::filesystem;

namespace convsmith {

extern const char *const version_text;

namespace {

void run_tool(const std::vector<std::string> &command, const std::string &what) {
  ProcessOptions options;
  options.timeout_s = 300;
  const ProcessResult r = run_process(command, options);
  if (r.timed_out || r.signal || r.exit_code)
    throw Error(fmt::format("{}: \"{}\" failed{}: {}", what, command[0], r.timed_out ? " to end in time" : r.signal ? fmt::format(" by signal {}", r.signal) : fmt::format(" with exit status {}", r.exit_code),
                            r.err.empty() ? "it said nothing" : r.err.substr(0, r.err.find('\n'))));
}

// What a compiler answers to an option, asked once.
const ProcessResult &told_by(const std::string &cc, const std::string &option) {
  static std::map<std::pair<std::string, std::string>, ProcessResult> answers;
  static std::mutex lock;
  const std::lock_guard held(lock);
  const auto known = answers.find({cc, option});
  return known != answers.end() ? known->second : answers.emplace(std::pair(cc, option), run_process({cc, option}, {})).first->second;
}

// The linker or objcopy that belongs to a compiler.
std::string tool_of(const std::string &cc, const std::string &tool) {
  const ProcessResult &r = told_by(cc, "-print-prog-name=" + tool);
  if (r.exit_code) throw Error(fmt::format("--cc {}: expected a C compiler, got: {}", cc, r.err.substr(0, r.err.find('\n'))));
  const std::string found = r.out.substr(0, r.out.find('\n'));
  return found.empty() ? tool : found;
}

// The C layer is for the machine that the kernels are for.
void check_compiler(const std::string &cc, const Halide::Target &target) {
  const ProcessResult &r = told_by(cc, "-dumpmachine");
  const std::string made_for = r.out.substr(0, r.out.find('\n')), wanted = target.arch == Halide::Target::ARM ? "aarch64" : "x86_64";
  if (r.exit_code || made_for.empty() || made_for.starts_with(wanted)) return;
  throw Error(fmt::format("--cc {}: expected a C compiler for {}, got one for {}", cc, baseline(target), made_for));
}

// The C layer as an object. Its text hangs on what the kernels take, not on how they do it: it is often the same.
std::string c_layer_object(const EmitOptions &o, const std::string &header, const std::string &source) {
  const std::string &version = told_by(o.cc, "--version").out;
  const std::string key = fmt::format("C layer {} | {} {} | {}\n{}\n{}", o.name, o.cc, o.layer_level, version, header, source);
  const auto make = [&](const fs::path &folder) {
    write_file(folder / (o.name + ".h"), header);
    write_file(folder / (o.name + ".c"), source);
    run_tool({o.cc, "-std=gnu99", o.layer_level, "-fPIC", "-c", folder / (o.name + ".c"), "-o", folder / "layer.o"}, "the C layer");
  };
  return (Cache::of_user().get(key, make) / "layer.o").string();
}

// Of this program's own bytes: whatever it makes may change when it does.
std::string tool_fingerprint() {
  static const std::string fingerprint = [] {
    return fmt::format("convsmith {} {:016x}", version_text, fnv1a(read_file(own_executable())));
  }();
  return fingerprint;
}

// Halide's run-time as an object: the same for every library of a machine, so it is made once. Where it serves devices, what it
// asks of the environment it asks of the C layer.
std::string runtime_object(const std::string &target, bool devices, const std::string &cc) {
  const std::string key = fmt::format("run-time | {} | halide {} | {}", target, halide_version(), tool_fingerprint());
  const auto make = [&](const fs::path &folder) {
    const std::string object = (folder / "runtime.o").string();
    compile_runtime(target, object);
    if (devices) run_tool({tool_of(cc, "objcopy"), "--redefine-sym", "getenv=convsmith_getenv", "--redefine-sym", "dlopen=convsmith_dlopen", object}, "the run-time of the devices");
  };
  return (Cache::of_user().get(key, make) / "runtime.o").string();
}

struct Job {
  size_t pass, level;
  KernelJob job;
};

// A number, or an expression of the extents known only when run.
nlohmann::json bytes(const std::string &text) {
  if (std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); })) return std::stoll(text);
  return text;
}

nlohmann::json manifest_of(const EmittedLibrary &lib, const std::vector<KernelRequest> &requests, std::uintmax_t archive_bytes) {
  nlohmann::json m;
  m["name"] = lib.name, m["convsmith"] = version_text, m["abi"] = CONVSMITH_ABI, m["halide"] = halide_version();
  m["levels"] = lib.levels, m["archive_bytes"] = archive_bytes;
  m["licences"] = {{{"part", "kernels and C layer"}, {"notice", "MIT, the convsmith authors"}},
                   {{"part", "Halide's run-time"}, {"notice", "MIT, the Halide contributors"}}};
  for (auto &r : requests) {
    nlohmann::json k = {{"name", r.name}, {"problem", r.problem.str()}, {"constant_weights", !r.weight.empty()}};
    for (auto &p : lib.passes) {
      if (p.kernel != r.name) continue;
      nlohmann::json pass = {{"pass", p.pass}, {"function", function_name(lib, p)}};
      for (auto &a : p.levels[0].arguments)
        pass["arguments"].push_back({{"name", a.name}, {"type", a.type}, {"extents", a.shape}, {"strides", a.strides}, {"fixed_axes", a.fixed}});
      for (size_t l = 0; l < lib.levels.size(); l++) {
        const KernelResult &x = p.levels[l];
        pass["levels"].push_back({{"level", lib.levels[l]},
                                  {"schedule", fmt::format("{}@{}", x.schedule, x.version)},
                                  {"knobs", x.knobs},
                                  {"why", x.why},
                                  {"object_bytes", x.object_bytes},
                                  {"workspace_bytes", {{"call", bytes(x.serial_bytes)}, {"thread", bytes(x.task_bytes)}}}});
      }
      k["passes"].push_back(pass);
    }
    m["kernels"].push_back(k);
  }
  return m;
}

void check_identifier(const std::string &name) {
  const auto word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) || !std::all_of(name.begin(), name.end(), word))
    throw Error(fmt::format("--name: expected letters, digits and _, got \"{}\"", name));
  if (name == "convsmith" || name == "halide")
    throw Error(fmt::format("--name: expected another than that of the run-time's own functions, got \"{}\"", name));
}

}  // namespace

nlohmann::json emit_library(const std::vector<KernelRequest> &requests, const EmitOptions &o) {
  check_identifier(o.name);
  const auto targets = parse_targets(o.targets);
  EmittedLibrary lib{o.name, {}, {}};
  for (auto &t : targets) lib.levels.push_back(level_name(t));
  const std::string own_level = level_name(host_target());
  check_compiler(o.cc, targets[0]);
  const TemporaryFolder staging(o.folder);  // beside the result, so that publishing is a rename

  // Packing comes after the pass it packs for, whose panel it takes.
  std::vector<Job> jobs, packing;
  for (auto &r : requests)
    for (PassKind pass : r.passes) {
      const bool packs = is_packing(pass);
      if (packs && !r.weight.empty()) continue;
      if (!r.weight.empty() && pass != PassKind::forward && pass != PassKind::input_gradient && pass != PassKind::activation_gradient)
        throw Error(fmt::format("kernel {}: pass {} makes no sense with constant weights", r.name, pass_name(pass)));
      lib.passes.push_back({r.name, pass_name(pass), r.problem.str(), std::vector<KernelResult>(targets.size())});
      for (size_t l = 0; l < targets.size(); l++) {
        KernelJob job;
        job.problem = r.problem.str(), job.pass = pass_name(pass), job.target = lib.levels[l];
        job.cpu = o.tune_for, job.records = o.records, job.assertions = o.assertions;
        if (job.cpu.empty()) job.cpu = lib.levels[l] == own_level ? this_cpu() : "*";
        if (const auto forced = r.schedule.find(pass); forced != r.schedule.end())
          job.schedule = forced->second.schedule, job.knobs = forced->second.knobs;
        job.weight = r.weight;
        job.function = kernel_symbol(function_name(lib, lib.passes.back()), l);
        // Kernels that go without assertions have a target of their own, those of a device code beside their module.
        const bool together = o.one_child && o.assertions && !targets[l].has_gpu_feature();
        job.object = staging / (together ? fmt::format("{}_{}.o", packs ? "packing" : "kernels", lib.levels[l]) : job.function + ".o");
        (packs ? packing : jobs).push_back({lib.passes.size() - 1, l, job});
      }
    }
  if (lib.passes.empty()) throw Error("emit: expected at least one pass");
  std::set<std::string> symbols_seen;
  for (const std::string &symbol : public_symbols(lib))
    if (!symbols_seen.insert(symbol).second) throw Error(fmt::format("two kernels would both be called {}: rename one", symbol));

  std::atomic<int> done = 0;
  const int all = int(jobs.size() + packing.size());
  std::mutex lock;
  auto compile_all = [&](std::vector<Job> &list) {
    if (o.one_child) {
      std::vector<KernelJob> plain;
      for (auto &j : list) plain.push_back(j.job);
      const auto results = compile_kernels_in_one_child(plain, o.limits);
      for (size_t i = 0; i < list.size(); i++) lib.passes[list[i].pass].levels[list[i].level] = results[i];
      return;
    }
    in_parallel(list.size(), [&](size_t i) {
      check_interrupt();
      lib.passes[list[i].pass].levels[list[i].level] = compile_kernel(list[i].job, o.limits);
      std::lock_guard held(lock);
      if (o.progress) o.progress(++done, all, list[i].job.function);
    });
  };
  compile_all(jobs);
  for (auto &j : packing) {
    const char *packs_for = lib.passes[j.pass].pass == pass_name(PassKind::pack_weight) ? "forward" : "input_gradient";
    for (auto &p : lib.passes)
      if (p.kernel == lib.passes[j.pass].kernel && p.pass == packs_for) j.job.panel = p.levels[j.level].panel, j.job.quad = p.levels[j.level].quad;
  }
  compile_all(packing);
  // A caller sees one order of weights whatever level is chosen, so the levels must agree on the packing.
  for (auto &p : lib.passes)
    for (auto &level : p.levels)
      if (level.panel != p.levels[0].panel || level.quad != p.levels[0].quad)
        throw Error(fmt::format("kernel {}: the records of its levels ask for panels of {} and {}, fours {} and {}", p.kernel,
                                p.levels[0].panel, level.panel, p.levels[0].quad, level.quad));

  const std::string header = c_header(lib), source = c_source(lib), base = "lib" + o.name + ".a";
  write_file(staging / (o.name + ".h"), header);
  write_file(staging / (o.name + ".c"), source);
  std::string symbols;
  for (auto &s : public_symbols(lib)) symbols += s + "\n";
  write_file(staging / "symbols", symbols);
  const auto at = [&](const std::string &file) { return staging / file; };
  const std::string layer = c_layer_object(o, header, source);
  std::vector<std::string> link = {tool_of(o.cc, "ld"), "-r", "--force-group-allocation", "-o", at(o.name + ".o"), layer};
  for (auto *list : {&jobs, &packing})
    for (auto &j : *list) {
      if (is_device(lib.levels[j.level]))
        run_tool({tool_of(o.cc, "objcopy"), "--redefine-sym", "halide_device_malloc=convsmith_device_malloc", j.job.object}, "a kernel for a device");
      if (!std::count(link.begin(), link.end(), j.job.object)) link.push_back(j.job.object);
    }
  std::string served = baseline(targets[0]);
  for (auto &level : lib.levels)
    if (is_device(level)) served += "," + level;
  link.push_back(runtime_object(served, served != baseline(targets[0]), o.cc));
  run_tool(link, "joining the objects");
  run_tool({tool_of(o.cc, "objcopy"), "--keep-global-symbols=" + at("symbols"), "--strip-unneeded", at(o.name + ".o")}, "hiding symbols");
  run_tool({tool_of(o.cc, "ar"), "rcsD", at(base), at(o.name + ".o")}, "the archive");

  nlohmann::json manifest = manifest_of(lib, requests, fs::file_size(staging / base));
  manifest["certificate"] = nullptr;
  if (o.verify && targets[0].arch == host_target().arch) {
    link_shared(o.cc, staging / base, staging / "library.so");
    manifest["certificate"] = certify(Library::open(staging / "library.so", o.name), requests);
  }
  write_file(staging / (o.name + ".json"), manifest.dump(2) + "\n");
  const std::vector<std::string> files = emitted_files(o.name);
  for (const std::string &file : files)  // all or none: a folder in the way is the one thing that a rename would refuse
    if (fs::is_directory(o.folder + "/" + file)) throw Error(fmt::format("{}/{}: expected to write it, got a folder", o.folder, file));
  for (const std::string &file : files) {
    std::error_code error;
    fs::rename(staging / file, o.folder + "/" + file, error);
    if (error) throw Error(fmt::format("{}/{}: expected to write it, got: {}", o.folder, file, error.message()));
  }
  return manifest;
}

std::vector<std::string> emitted_files(const std::string &name) { return {name + ".h", name + ".c", "lib" + name + ".a", name + ".json"}; }

void link_shared(const std::string &cc, const std::string &archive, const std::string &to) {
  run_tool({cc, "-shared", "-o", to, "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive", "-lm", "-lpthread", "-ldl"},
           "the shared object");
}

std::string cached_library(const std::vector<KernelRequest> &requests, const EmitOptions &o) {
  std::string key = fmt::format("library {} | {} | {} | {} | {} | {} | halide {} | {}\n", o.name, o.targets == "host" ? level_name(host_target()) : o.targets,
                                o.tune_for.empty() ? this_cpu() : o.tune_for, o.records, o.cc, o.one_child, halide_version(), tool_fingerprint());
  const RecordBook book = o.records.empty() ? RecordBook() : RecordBook::load(o.records);
  for (auto &r : book.records())
    key += fmt::format("record {} | {} | {} | {}@{} {}\n", r.problem.str(), pass_name(r.pass), r.cpu, r.schedule, r.version, r.knobs.str());
  for (auto &r : requests) {
    std::vector<std::string> passes;
    for (PassKind p : r.passes) {
      passes.push_back(pass_name(p));
      if (const auto f = r.schedule.find(p); f != r.schedule.end()) passes.back() += fmt::format("({} {})", f->second.schedule, f->second.knobs);
    }
    key += fmt::format("{} : {} : {}\n", r.name, fmt::join(passes, ","), r.problem.str());
    if (!r.weight.empty()) key += read_file(r.weight);
  }
  const fs::path entry = Cache::of_user().get(key, [&](const fs::path &folder) {
    EmitOptions inner = o;
    inner.folder = folder.string();
    inner.verify = false;
    emit_library(requests, inner);
    link_shared(o.cc, (folder / ("lib" + o.name + ".a")).string(), (folder / (o.name + ".so")).string());
  });
  return (entry / (o.name + ".so")).string();
}

}  // namespace convsmith
