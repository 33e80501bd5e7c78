#include "c_layer.h"
#include "convsmith/problem.h"
#include "generators/stages.h"
#include "schedules/levels.h"
#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>

namespace convsmith {

extern const char *const abi_text, *const c_layer_text, *const device_text, *const memory_text, *const threads_text, *const version_text;  // written by CMake

namespace {

// Functions of the whole library, after LIB_.
constexpr const char *library_functions[] = {"library",     "version",          "level",        "set_level",
                                             "set_threads", "set_parallel_for", "parallel_for", "set_allocator"};

std::string quoted(const std::string &text) {
  std::string q = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') q += '\\';
    q += c;
  }
  return q + "\"";
}

// "f32 1x3x224x224, strides …", as the header describes an argument.
std::string argument_comment(const KernelArgument &a) {
  const bool free_strides = a.fixed < int(a.memory.size()) && a.fixed > 0;
  std::string text = fmt::format("  convsmith_tensor {}; /* {} {}", a.name, a.type, shape_text(a.shape));
  if (std::count(a.shape.begin(), a.shape.end(), run_time))
    text += fmt::format(", axes from innermost in memory {}", fmt::join(a.memory, ","));
  else text += fmt::format(", strides {}", fmt::join(a.strides, ","));
  if (a.fixed == 0) text += "; any strides";
  else if (free_strides) text += fmt::format("; axes {} may lie further apart", fmt::join(std::vector<int>(a.memory.begin() + a.fixed, a.memory.end()), ","));
  return text + " */\n";
}

const char *type_constant(const std::string &type) {
  for (auto [name, constant] : {std::pair("f32", "CONVSMITH_F32"), std::pair("f16", "CONVSMITH_F16"), std::pair("bf16", "CONVSMITH_BF16"),
                                std::pair("u8", "CONVSMITH_U8"), std::pair("s8", "CONVSMITH_S8"), std::pair("i32", "CONVSMITH_I32")})
    if (type == name) return constant;
  return "-1";
}

// "int64_t n, int64_t in_h, ", or what a call passes on.
std::string size_parameters(const Problem &p, const char *type) {
  std::string text;
  for (const int size : open_sizes(p)) text += fmt::format("{}{}, ", type, size_name(p, size));
  return text;
}

std::string problem_table(const std::string &kernel, const Problem &p) {
  std::vector<std::string> names, axes(3, "{0}");
  for (const int size : open_sizes(p)) names.push_back(quoted(size_name(p, size)));
  for (int a = 0; a < p.rank && p.op != Op::dense; a++)
    axes[size_t(a)] = fmt::format("{{{}, {}, {}, {}, {}, {}}}", quoted(size_name(p, size_in + a)), p.window(a),
                                  p.stride[a], p.pad_lo[a], p.pad_hi[a], p.out_pad[a]);
  const bool any = !names.empty();
  if (!any) names.push_back("0");
  return fmt::format("static const char *const {0}_size_names[] = {{{1}}};\n"
                     "static const problem_spec {0}_problem = {{{2}, {{{3}}}, {4}, {5}, {6}, {{{7}}}}};\n",
                     kernel, fmt::join(names, ", "), any ? names.size() : 0, any ? fmt::format("{}", fmt::join(open_sizes(p), ", ")) : "0",
                     int(p.op == Op::transposed), int(p.border == Border::reflect), int(p.border == Border::wrap), fmt::join(axes, ", "));
}

}  // namespace

std::string function_name(const EmittedLibrary &lib, const EmittedPass &p) {
  return fmt::format("{}_{}_{}", lib.name, p.kernel, p.pass);
}

std::string kernel_symbol(const std::string &function, size_t level) { return fmt::format("{}_level{}", function, level); }

std::vector<std::string> public_symbols(const EmittedLibrary &lib) {
  std::vector<std::string> symbols;
  for (const char *f : library_functions) symbols.push_back(lib.name + "_" + f);
  for (auto &p : lib.passes)
    for (const char *suffix : {"", "_init", "_workspace"}) symbols.push_back(function_name(lib, p) + suffix);
  return symbols;
}

std::string c_header(const EmittedLibrary &lib) {
  const std::string n = lib.name;
  std::string h = fmt::format("/* {}: kernels emitted by convsmith {}. Link lib{}.a; nothing else is needed but the C library. */\n",
                              n, version_text, n);
  h += fmt::format("#ifndef CONVSMITH_LIBRARY_{0}\n#define CONVSMITH_LIBRARY_{0}\n\n{1}\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n", n, abi_text);
  h += fmt::format(
      "/* Calls may come from several threads at once; the settings below are for the whole library and are made before. */\n"
      "const convsmith_library *{0}_library(void);\n"
      "const char *{0}_version(void);\n"
      "/* The instruction level in use, of: {1}. */\n"
      "const char *{0}_level(void);\n"
      "/* Takes another level by name; CONVSMITH_UNSUPPORTED where this processor lacks it, or there is no such device. \"any\": the\n"
      "   first of them that is to be had, where a library for a GPU would otherwise refuse to run on the processor. */\n"
      "convsmith_status {0}_set_level(const char *name, convsmith_error *error);\n"
      "/* 0: one a processor. */\n"
      "void {0}_set_threads(int32_t threads);\n"
      "void {0}_set_parallel_for(convsmith_parallel_for run, void *user);\n"
      "/* A loop of the caller's on the same threads: the first status of body(context, i) that is not 0. */\n"
      "int {0}_parallel_for(int (*body)(void *context, int32_t i), void *context, int32_t count);\n"
      "void {0}_set_allocator(const convsmith_allocator *allocator);\n",
      n, fmt::join(lib.levels, ", "));
  for (auto &p : lib.passes) {
    const std::string f = function_name(lib, p);
    h += fmt::format("\n/* {} of {} */\ntypedef struct {}_args {{\n", p.pass, p.problem, f);
    for (auto &a : p.levels[0].arguments) h += argument_comment(a);
    h += fmt::format("}} {0}_args;\n", f);
    std::string sizes = size_parameters(Problem::parse(p.problem), "int64_t ");
    h += fmt::format("/* Fills in types, extents and strides; the data pointers are the caller's to set. */\n"
                     "void {0}_init({0}_args *args{2});\n"
                     "/* Writes {1}. On failure details go to `error`, which may be null. */\n"
                     "convsmith_status {0}(const {0}_args *args, convsmith_error *error);\n"
                     "/* Bytes that one call asks of the allocator, at most. */\n"
                     "size_t {0}_workspace({3}int32_t threads);\n",
                     f, [&] {
                       std::vector<std::string> out;
                       const auto &args = p.levels[0].arguments;
                       for (size_t i = args.size() - p.levels[0].outputs; i < args.size(); i++) out.push_back(args[i].name);
                       return fmt::format("{}", fmt::join(out, ", "));
                     }(), sizes.empty() ? "" : ", " + sizes.substr(0, sizes.size() - 2), sizes);
  }
  return h + "\n#ifdef __cplusplus\n}\n#endif\n#endif\n";
}

// Of the tensor as `init` describes it; 0 where that is known only when run.
static std::int64_t bytes_of(const KernelArgument &a) {
  std::int64_t bytes = a.type == "u8" || a.type == "s8" ? 1 : a.type == "f16" || a.type == "bf16" ? 2 : 4;
  for (const std::int64_t extent : a.shape) bytes *= std::max<std::int64_t>(extent, 0);
  return bytes;
}

std::string c_source(const EmittedLibrary &lib) {
  const std::string n = lib.name;
  size_t most = 1;
  for (auto &p : lib.passes) most = std::max(most, p.levels[0].arguments.size());
  std::string s = fmt::format("/* The C layer of {0}: generated by convsmith {1}, compiled into lib{0}.a. C99 with GCC's or Clang's atomics. */\n"
                              "#include \"{0}.h\"\n#include <stdarg.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n",
                              n, version_text);
  const auto devices = std::count_if(lib.levels.begin(), lib.levels.end(), is_device);
  s += fmt::format("/* Of the levels the first so many are a GPU's. */\n#define DEVICES {}\n", devices);
  if (devices) s += fmt::format("#define CUDA {}\n", int(lib.levels[0].starts_with("cuda")));
  s += fmt::format("enum {{ LEVELS = {}, MOST_ARGUMENTS = {} }};\nstatic const char *const level_names[LEVELS] = {{", lib.levels.size(), most);
  for (size_t i = 0; i < lib.levels.size(); i++) s += (i ? ", " : "") + quoted(lib.levels[i]);
  s += "};\n";
  if (devices) {
    std::set<std::string> declared;
    std::string table;
    for (auto &level : lib.levels) {
      const std::string interface = device_interface(level);
      if (interface.empty()) continue;
      if (declared.insert(interface).second) s += fmt::format("extern const void *{}(void);\n", interface);
      table += interface + ", ";
    }
    s += fmt::format("static const void *(*const device_interface[DEVICES])(void) = {{{}}};\n", table.substr(0, table.size() - 2));
  }
  s += "\ntypedef struct {\n  int8_t axis;\n  int32_t extent;\n  int32_t multiple;\n  int32_t interleaved;\n} dim_spec;\n"
       "typedef struct {\n  const char *name;\n  int32_t type, rank;\n  int64_t extent[CONVSMITH_MAX_RANK], stride[CONVSMITH_MAX_RANK];\n"
       "  int8_t memory[CONVSMITH_MAX_RANK], size[CONVSMITH_MAX_RANK];\n  int32_t fixed, dims;\n  int64_t bytes;\n  dim_spec dim[CONVSMITH_MAX_RANK];\n} argument_spec;\n"
       "typedef struct {\n  const char *name;\n  int64_t window, stride, lo, hi, out_pad;\n} axis_spec;\n"
       "typedef struct {\n  int32_t size_count;\n  int8_t size[4];\n  int32_t transposed, reflect, wrap;\n  axis_spec axis[3];\n} problem_spec;\n"
       "typedef struct {\n  const char *function;\n  const problem_spec *problem;\n  int32_t arguments, outputs;\n"
       "  const argument_spec *argument, *indexed[LEVELS]; /* the tensors; and as the kernel of each level indexes them */\n"
       "  int32_t number_count;\n  int8_t number[7];\n  int (*kernel[LEVELS])(void **arguments);\n"
       "  int64_t (*serial_bytes[LEVELS])(const int64_t *s), (*task_bytes[LEVELS])(const int64_t *s);\n} pass_spec;\n\n";
  s += c_layer_text;
  if (devices) s += device_text;
  s += "\n", s += memory_text;
  s += "\n", s += threads_text;
  s += "\n/* ---- This library's kernels ---- */\n\n";
  std::string kernel;
  for (auto &p : lib.passes) {
    const std::string f = function_name(lib, p);
    const auto &args = p.levels[0].arguments;
    const Problem problem = Problem::parse(p.problem);
    if (p.kernel != kernel) s += problem_table(lib.name + "_" + p.kernel, problem);
    kernel = p.kernel;
    // The tensors are the same at every level; how its kernel indexes them may differ between a GPU's and the processor's.
    const auto table = [](const std::vector<KernelArgument> &list) {
      std::string rows;
      for (auto &a : list) {
        rows += fmt::format("    {{{}, {}, {}, {{{}}}, {{{}}}, {{{}}}, {{{}}}, {}, {}, {}, {{", quoted(a.name), type_constant(a.type), a.shape.size(),
                            fmt::join(a.shape, ", "), fmt::join(a.strides, ", "), fmt::join(a.memory, ", "), fmt::join(a.sizes, ", "), a.fixed, a.dims.size(), bytes_of(a));
        for (size_t d = 0; d < a.dims.size(); d++)
          rows += fmt::format("{}{{{}, {}, {}, {}}}", d ? ", " : "", a.dims[d].axis, a.dims[d].extent, a.dims[d].multiple, a.dims[d].interleaved);
        rows += "}},\n";
      }
      return rows;
    };
    std::vector<std::string> tables, indexed;
    for (auto &level : p.levels) {
      const std::string rows = table(level.arguments);
      const size_t known = size_t(std::find(tables.begin(), tables.end(), rows) - tables.begin());
      indexed.push_back(fmt::format("{}_arguments{}", f, known ? std::to_string(known) : ""));
      if (known < tables.size()) continue;
      s += fmt::format("static const argument_spec {}[] = {{\n{}}};\n", indexed.back(), rows);
      tables.push_back(rows);
    }
    std::vector<std::string> kernels, serial, task, names;
    for (size_t l = 0; l < lib.levels.size(); l++) {
      const std::string symbol = kernel_symbol(f, l);
      s += fmt::format("extern int {}_argv(void **arguments);\n", symbol);
      kernels.push_back(symbol + "_argv"), serial.push_back(symbol + "_serial"), task.push_back(symbol + "_task");
      s += fmt::format("static int64_t {0}_serial(const int64_t *s) {{ return (void)s, {1}; }}\n"
                       "static int64_t {0}_task(const int64_t *s) {{ return (void)s, {2}; }}\n",
                       symbol, p.levels[l].serial_bytes, p.levels[l].task_bytes);
    }
    for (auto &a : args) names.push_back(quoted(a.name));
    const auto &numbers = p.levels[0].sizes;
    s += fmt::format("static const pass_spec {0}_spec = {{{1}, &{2}_problem, {3}, {4}, {0}_arguments, {{{11}}}, {5}, {{{6}}}, {{{7}}}, {{{8}}}, {{{9}}}}};\n"
                     "static const char *const {0}_names[] = {{{10}}};\n",
                     f, quoted(f), lib.name + "_" + p.kernel, args.size(), p.levels[0].outputs, numbers.size(),
                     numbers.empty() ? "0" : fmt::format("{}", fmt::join(numbers, ", ")), fmt::join(kernels, ", "),
                     fmt::join(serial, ", "), fmt::join(task, ", "), fmt::join(names, ", "), fmt::join(indexed, ", "));
    const std::string given = size_parameters(problem, ""), parameters = size_parameters(problem, "int64_t ");
    const std::string sizes = given.empty() ? "NULL" : "sizes";
    const std::string gathered = given.empty() ? "" : fmt::format("  const int64_t sizes[] = {{{}}};\n", given.substr(0, given.size() - 2));
    s += fmt::format(
        "static void {0}_init_all(convsmith_tensor *tensors, const int64_t *sizes) {{\n  describe(&{0}_spec, sizes, tensors);\n}}\n"
        "static convsmith_status {0}_run(const convsmith_tensor *tensors, convsmith_error *error) {{\n"
        "  return run_pass(&{0}_spec, tensors, error);\n}}\n"
        "static size_t {0}_workspace_of(const int64_t *sizes, int32_t threads) {{\n  return workspace_of(&{0}_spec, sizes, threads);\n}}\n"
        "/* The struct is its tensors, one after the other. */\n"
        "typedef char {0}_args_are_tensors[sizeof({0}_args) == {1} * sizeof(convsmith_tensor) ? 1 : -1];\n"
        "void {0}_init({0}_args *args{2}) {{\n{3}  describe(&{0}_spec, {4}, (convsmith_tensor *)args);\n}}\n"
        "convsmith_status {0}(const {0}_args *args, convsmith_error *error) {{\n"
        "  return run_pass(&{0}_spec, (const convsmith_tensor *)args, error);\n}}\n"
        "size_t {0}_workspace({5}int32_t threads) {{\n{3}  return workspace_of(&{0}_spec, {4}, threads);\n}}\n\n",
        f, args.size(), parameters.empty() ? "" : ", " + parameters.substr(0, parameters.size() - 2), gathered, sizes, parameters);
  }
  s += "static const convsmith_pass all_passes[] = {\n";
  for (auto &p : lib.passes) {
    const std::string f = function_name(lib, p);
    s += fmt::format("    {{{1}, {2}, {3}, {4}, {5}, {0}_names, {6}, {7}_size_names, {0}_init_all, {0}_run, {0}_workspace_of}},\n", f,
                     quoted(p.kernel), quoted(p.pass), quoted(p.problem), p.levels[0].arguments.size(), p.levels[0].outputs,
                     open_sizes(Problem::parse(p.problem)).size(), lib.name + "_" + p.kernel);
  }
  s += fmt::format(
      "}};\n\n"
      "void {0}_set_threads(int32_t threads) {{ select_threads(threads); }}\n"
      "void {0}_set_parallel_for(convsmith_parallel_for run, void *user) {{\n"
      "  the_parallel_for = run, the_parallel_for_user = user;\n}}\n"
      "int {0}_parallel_for(int (*body)(void *context, int32_t i), void *context, int32_t count) {{\n"
      "  if (__atomic_load_n(&the_threads, __ATOMIC_ACQUIRE) < 0) select_threads(0);\n"
      "  return run_loop(body, context, count);\n}}\n"
      "void {0}_set_allocator(const convsmith_allocator *allocator) {{\n"
      "  static const convsmith_allocator none;\n  free_kept();\n  the_allocator = allocator ? *allocator : none;\n}}\n"
      "const char *{0}_version(void) {{ return {1}; }}\n"
      "const char *{0}_level(void) {{ return chosen_level() < LEVELS ? level_names[chosen_level()] : \"none\"; }}\n"
      "convsmith_status {0}_set_level(const char *name, convsmith_error *error) {{\n"
      "  int32_t level;\n"
      "  if (name && !strcmp(name, \"any\")) return select_level(CONVSMITH_ANY_LEVEL, error);\n"
      "  for (level = 0; level < LEVELS; level++)\n"
      "    if (name && !strcmp(name, level_names[level])) return select_level(level, error);\n"
      "  return fail(error, CONVSMITH_BAD_ARGUMENT, \"level: expected {2} or any, got %s\", name ? name : \"null\");\n}}\n"
      "const convsmith_library *{0}_library(void) {{\n"
      "  static const convsmith_library table = {{CONVSMITH_ABI, \"{0}\", {1}, {3}, all_passes, LEVELS, level_names, chosen_level,\n"
      "                                          select_level, {0}_set_threads, {0}_set_parallel_for, {0}_parallel_for, {0}_set_allocator, {4}}};\n"
      "  return &table;\n}}\n",
      n, quoted(version_text), fmt::join(lib.levels, ", "), lib.passes.size(), devices ? "&the_device" : "NULL");
  return s;
}

}  // namespace convsmith
