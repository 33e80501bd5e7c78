// The kernels of an emitted library, linked in or loaded. Nothing registers itself.
#pragma once
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include "convsmith/abi.h"
#include "convsmith/tensor.h"

namespace convsmith {

/// One pass of one emitted kernel. Valid as long as its Library, or a copy of that, lives.
class Pass {
 public:
  explicit Pass(const convsmith_pass &pass) : pass_(&pass) {}
  std::string kernel() const { return pass_->kernel; }
  std::string name() const { return pass_->pass; }
  std::string problem() const { return pass_->problem; }
  int arguments() const { return pass_->arguments; }
  int outputs() const { return pass_->outputs; }
  std::string argument_name(int i) const { return pass_->argument_names[i]; }
  bool has(std::string_view argument) const;
  /// The extents that the problem leaves open: "n", "in_d", "in_h", "in_w", as far as they are `?`.
  std::vector<std::string> size_names() const;
  /// The type, extents and strides that an argument wants; no data. An extent known only when run is run_time, or what
  /// follows from `sizes`, one a name of size_names.
  convsmith_tensor describe(std::string_view argument, const Shape &sizes = {}) const;
  /// A zero-filled tensor of the shape and memory order that an argument wants. Throws Error for an unknown name, or
  /// where an extent is known only when run; then the second form gives the shape.
  Tensor make(std::string_view argument) const;
  Tensor make(std::string_view argument, const Shape &shape) const;
  /// The tensor in the memory order and type that the argument wants: itself where it fits, else a copy, floats rounded
  /// to the nearest. Throws Error where its shape differs, or its type is another than a float for a float.
  Tensor fit(std::string_view argument, const Tensor &tensor) const;
  /// Runs with the tensors by name. Throws Error where one is missing, unknown or does not fit, or the run fails.
  void operator()(std::initializer_list<std::pair<std::string_view, Tensor>> tensors) const;
  void run(const std::vector<std::pair<std::string, Tensor>> &tensors) const;
  /// Bytes that one call asks of the allocator, at most. Throws Error unless there is a size for each of size_names.
  std::size_t workspace(int threads, const Shape &sizes = {}) const;
  /// "edges forward", as messages begin.
  std::string title() const { return kernel() + " " + name(); }

 private:
  int index_of(std::string_view argument) const;
  const std::int64_t *checked(const Shape &sizes) const;

  const convsmith_pass *pass_;
};

/// A library's table. `Library(mylib_library())` for one that is linked in; `open` for a shared object. The emitter's
/// ABI number must be this run-time's; everything else throws Error.
class Library {
 public:
  explicit Library(const convsmith_library *table);
  /// Loads a shared object that holds the emitted library NAME, through its function NAME_library. It is unloaded when
  /// the last copy of the Library goes. Throws Error with the loader's words.
  static Library open(const std::string &path, const std::string &name);

  std::string name() const { return table_->name; }
  std::string version() const { return table_->version; }
  std::vector<Pass> passes() const;
  /// Throws Error, listing what there is, where the kernel has no such pass.
  Pass pass(std::string_view kernel, std::string_view pass) const;
  std::optional<Pass> find(std::string_view kernel, std::string_view pass) const;

  std::vector<std::string> levels() const;
  /// The level in use: of a library for GPUs that of one, where it is to be had. "none" where none is.
  std::string level() const;
  /// "any" is the first that is to be had, of the processor too. Throws Error where this machine lacks it.
  void set_level(std::string_view level) const;
  void set_threads(int threads) const { table_->set_threads(threads); }
  /// body(i) for i in [0, count), in any order, on the threads that kernels run on. The first exception is thrown when
  /// those that began have ended; the rest may be left out.
  void parallel_for(int count, const std::function<void(int)> &body) const;
  const convsmith_library &table() const { return *table_; }

  /// Whether the level in use is a GPU's.
  bool uses_device() const { return table_->device != nullptr && table_->level() < table_->device->levels; }
  /// The tensor, whose elements are copied to the GPU in use: passes of this library that are given it, or write to it,
  /// leave it there, until the last copy of it goes. Throws Error where the level in use is not a GPU's, or memory is short.
  Tensor to_device(const Tensor &tensor) const;
  /// Copies a tensor's elements on the device to its host memory.
  void to_host(const Tensor &tensor) const;
  /// Waits for calls on tensors of the device, which may return before they are done.
  void synchronize() const;
  /// Bytes that this library has moved between host and device so far.
  convsmith_copies copies() const;

 private:
  const convsmith_device &device() const;

  const convsmith_library *table_;
  std::shared_ptr<void> handle_;
};

}  // namespace convsmith
