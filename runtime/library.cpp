#include "convsmith/library.h"
#include <dlfcn.h>
#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include "convsmith/error.h"

namespace convsmith {
namespace {

template<class Names>
std::string joined(const Names &names) {
  std::string text;
  for (const auto &name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text.empty() ? "none" : text;
}

const char *status_name(convsmith_status status) {
  switch (status) {
    case CONVSMITH_OK:
      return "no error";
    case CONVSMITH_BAD_ARGUMENT:
      return "a tensor does not fit";
    case CONVSMITH_OUT_OF_MEMORY:
      return "out of memory";
    case CONVSMITH_UNSUPPORTED:
      return "this processor lacks what the instruction level needs";
    case CONVSMITH_FAILED:
      return "the kernel failed";
  }
  return "unknown status";
}

std::string message_of(convsmith_status status, convsmith_error error) {
  error.message[sizeof error.message - 1] = '\0';
  return error.message[0] != '\0' ? error.message : status_name(status);
}

std::string about(const Pass &pass) { return " (problem: " + pass.problem() + ")"; }

}  // namespace

int Pass::index_of(std::string_view argument) const {
  for (int i = 0; i < arguments(); i++) {
    if (argument == pass_->argument_names[i]) return i;
  }
  const std::vector<std::string> names(pass_->argument_names, pass_->argument_names + pass_->arguments);
  throw Error(title() + ": expected an argument out of " + joined(names) + ", got " + std::string(argument) +
              about(*this));
}

bool Pass::has(std::string_view argument) const {
  for (int i = 0; i < arguments(); i++) {
    if (argument == pass_->argument_names[i]) return true;
  }
  return false;
}

std::vector<std::string> Pass::size_names() const {
  return {pass_->size_names, pass_->size_names + pass_->size_count};
}

const std::int64_t *Pass::checked(const Shape &sizes) const {
  if (static_cast<int>(sizes.size()) == pass_->size_count) return sizes.data();
  throw Error(title() + ": expected a size for each of " + joined(size_names()) + ", got " +
              std::to_string(sizes.size()) + about(*this));
}

std::size_t Pass::workspace(int threads, const Shape &sizes) const {
  return pass_->workspace(checked(sizes), threads);
}

convsmith_tensor Pass::describe(std::string_view argument, const Shape &sizes) const {
  const auto index = static_cast<std::size_t>(index_of(argument));
  std::vector<convsmith_tensor> all(static_cast<std::size_t>(arguments()));
  pass_->init(all.data(), sizes.empty() ? nullptr : checked(sizes));
  return all[index];
}

Tensor Pass::make(std::string_view argument) const {
  const convsmith_tensor like = describe(argument);
  return make(argument, {like.extent, like.extent + like.rank});
}

Tensor Pass::make(std::string_view argument, const Shape &shape) const {
  convsmith_tensor like = describe(argument);
  if (std::find(shape.begin(), shape.end(), run_time) != shape.end())
    throw Error(title() + ": " + std::string(argument) + " is of " + shape_text(shape) + ": expected the extents known only when run" + about(*this));
  bool fits = static_cast<int>(shape.size()) == like.rank;
  for (int i = 0; fits && i < like.rank; i++)
    fits = shape[i] >= 0 && (like.extent[i] == shape[i] || like.extent[i] == run_time);
  if (!fits) {
    throw Error(title() + ": expected " + std::string(argument) + " of " +
                shape_text({like.extent, like.extent + like.rank}) + ", got " + shape_text(shape) + about(*this));
  }
  for (int i = 0; i < like.rank; i++) like.extent[i] = shape[i];
  return Tensor(like);
}

Tensor Pass::fit(std::string_view argument, const Tensor &tensor) const {
  const convsmith_tensor like = describe(argument);
  try {
    const auto type = static_cast<convsmith_type>(like.type);
    const bool floats = is_float(type) && tensor.defined() && is_float(tensor.type());
    return (floats ? tensor.as(type) : tensor).ordered_like(like);
  } catch (const Error &error) {
    throw Error(title() + ": " + std::string(argument) + ": " + error.what() + about(*this));
  }
}

void Pass::operator()(std::initializer_list<std::pair<std::string_view, Tensor>> tensors) const {
  run({tensors.begin(), tensors.end()});
}

void Pass::run(const std::vector<std::pair<std::string, Tensor>> &tensors) const {
  std::vector<convsmith_tensor> gathered(static_cast<std::size_t>(arguments()));
  std::vector<bool> given(gathered.size(), false);
  for (const auto &[name, tensor] : tensors) {
    const auto index = static_cast<std::size_t>(index_of(name));
    if (given[index]) throw Error(title() + ": expected " + name + " once, got it twice" + about(*this));
    if (!tensor.defined())
      throw Error(title() + ": expected a tensor for " + name + ", got an undefined one" + about(*this));
    given[index] = true;
    gathered[index] = tensor.c();
  }
  for (std::size_t i = 0; i < given.size(); i++) {
    if (!given[i])
      throw Error(title() + ": expected a tensor for " + pass_->argument_names[i] + ", got none" + about(*this));
  }
  convsmith_error error{};
  const convsmith_status status = pass_->run(gathered.data(), &error);
  if (status != CONVSMITH_OK) throw Error(title() + ": " + message_of(status, error) + about(*this));
}

Library::Library(const convsmith_library *table) : table_(table) {
  if (table == nullptr) throw Error("library: expected a kernel table, got null");
  if (table->abi != CONVSMITH_ABI) {
    throw Error("library: expected ABI " + std::to_string(CONVSMITH_ABI) + ", got " + std::to_string(table->abi));
  }
}

Library Library::open(const std::string &path, const std::string &name) {
  // Without a slash the loader would search its own folders for the name.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  const auto reason = [] {
    const char *words = ::dlerror();
    return std::string(words != nullptr ? words : "no reason given");
  };
  const std::shared_ptr<void> handle(::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL), [](void *loaded) {
    if (loaded != nullptr) ::dlclose(loaded);
  });
  if (!handle) throw Error(path + ": cannot load: " + reason());
  const std::string symbol = name + "_library";
  void *address = ::dlsym(handle.get(), symbol.c_str());
  if (address == nullptr) throw Error(path + ": expected the library " + name + ": " + reason());
  const convsmith_library *(*table)(void);
  std::memcpy(&table, &address, sizeof table);
  try {
    Library library(table());
    library.handle_ = handle;
    return library;
  } catch (const Error &error) {
    throw Error(path + ": " + error.what());
  }
}

void Library::parallel_for(int count, const std::function<void(int)> &body) const {
  struct Loop {
    const std::function<void(int)> &body;
    std::mutex lock;
    std::exception_ptr failure;
  } loop{body, {}, {}};
  const auto run = [](void *context, std::int32_t i) {
    Loop &loop = *static_cast<Loop *>(context);
    try {
      loop.body(i);
      return 0;
    } catch (...) {
      const std::lock_guard held(loop.lock);
      if (!loop.failure) loop.failure = std::current_exception();
      return 1;
    }
  };
  const int status = table_->parallel_for(run, &loop, count);
  if (loop.failure) std::rethrow_exception(loop.failure);
  if (status != 0) throw Error("library " + name() + ": the parallel loop returned " + std::to_string(status));
}

std::vector<Pass> Library::passes() const {
  std::vector<Pass> result;
  result.reserve(static_cast<std::size_t>(table_->pass_count));
  for (int i = 0; i < table_->pass_count; i++) result.emplace_back(table_->passes[i]);
  return result;
}

std::optional<Pass> Library::find(std::string_view kernel, std::string_view pass) const {
  for (int i = 0; i < table_->pass_count; i++) {
    if (kernel == table_->passes[i].kernel && pass == table_->passes[i].pass) return Pass(table_->passes[i]);
  }
  return std::nullopt;
}

Pass Library::pass(std::string_view kernel, std::string_view pass) const {
  if (const auto found = find(kernel, pass)) return *found;
  std::vector<std::string> titles;
  for (const Pass &other : passes()) titles.push_back(other.title());
  throw Error("library " + name() + ": expected one of " + joined(titles) + ", got " + std::string(kernel) + " " +
              std::string(pass));
}

std::vector<std::string> Library::levels() const { return {table_->levels, table_->levels + table_->level_count}; }

std::string Library::level() const {
  const int level = table_->level();
  return level < table_->level_count ? table_->levels[level] : "none";
}

void Library::set_level(std::string_view level) const {
  for (int i = CONVSMITH_ANY_LEVEL; i < table_->level_count; i++) {
    if (level != (i == CONVSMITH_ANY_LEVEL ? "any" : table_->levels[i])) continue;
    convsmith_error error{};
    const convsmith_status status = table_->set_level(i, &error);
    if (status == CONVSMITH_OK) return;
    const std::string said = message_of(status, error), about = "level " + std::string(level) + ": ";
    throw Error("library " + name() + ": " + (said.rfind(about, 0) == 0 ? "" : about) + said);
  }
  throw Error("library " + name() + ": expected any or a level out of " + joined(levels()) + ", got " + std::string(level));
}

const convsmith_device &Library::device() const {
  if (table_->device == nullptr) throw Error("library " + name() + ": expected a level for a GPU, got " + joined(levels()));
  return *table_->device;
}

Tensor Library::to_device(const Tensor &tensor) const {
  if (!tensor.defined()) throw Error("library " + name() + ": to_device: expected a tensor, got an undefined one");
  const convsmith_device &there = device();
  convsmith_tensor c = tensor.c();
  c.device = nullptr;
  convsmith_error error{};
  const convsmith_status status = there.to_device(&c, &error);
  if (status != CONVSMITH_OK) throw Error("library " + name() + ": " + message_of(status, error));
  Tensor result = tensor;
  result.device_ = {c.device, [c, &there, library = *this](void *) mutable { there.release(&c); }};
  return result;
}

void Library::to_host(const Tensor &tensor) const {
  const convsmith_tensor c = tensor.c();
  convsmith_error error{};
  const convsmith_status status = device().to_host(&c, &error);
  if (status != CONVSMITH_OK) throw Error("library " + name() + ": " + message_of(status, error));
}

void Library::synchronize() const {
  convsmith_error error{};
  const convsmith_status status = device().synchronize(&error);
  if (status != CONVSMITH_OK) throw Error("library " + name() + ": " + message_of(status, error));
}

convsmith_copies Library::copies() const { return device().copies(); }

}  // namespace convsmith
