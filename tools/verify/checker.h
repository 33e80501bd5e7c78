// What the checks of a kernel's passes share: data of a seed, calls, and the comparison with what must come.
#pragma once
#include "activations.h"
#include <functional>
#include <optional>
#include <random>
#include "certificate.h"
#include "convsmith/library.h"
#include "reference.h"

namespace convsmith {

/// What an element must be: `value`, exactly where `exact`, else within `bound`; nothing is said where not `known`.
struct Want {
  double value = 0, bound = 0;
  bool exact = false, known = true;
};

/// One kernel of a library at one set of extents.
class Checker {
 public:
  Checker(const Library &, const KernelRequest &, const Problem &, std::uint64_t seed, std::int64_t most_products);

  /// Every pass of the kernel. Throws CheckFailed.
  std::vector<PassFigures> run();

 private:
  using Arguments = std::vector<std::pair<std::string, Tensor>>;

  // f32, f16 and bf16; certificate.cpp
  template<class T> void check_floats(bool integers);
  template<class T> void check_train_step(const Pass &, bool integers);
  void check_activation_gradient(const Pass &, bool integers);
  void check_adjoint(const Tensor &x, const Tensor &weight, const Operands<std::int64_t> &, const std::optional<Tensor> &y,
                     const std::optional<Tensor> &dx, const std::optional<Tensor> &dw);
  // u8s8; quantised_check.cpp
  void check_quantised(bool powers_of_two);

  // checker.cpp
  std::optional<Pass> find(const char *pass) const { return library_.find(kernel_.name, pass); }
  PassFigures &figures(const std::string &pass);
  std::int64_t terms_forward() const, terms_input() const, terms_weight() const;
  double uniform();
  std::int64_t integer(std::int64_t low, std::int64_t high);
  /// Of the problem's tensors, rounded to its type: integers of the range, or zero-mean numbers below 1.
  Tensor random_tensor(const Shape &, bool integers, bool rounded = true);
  Tensor make(const Pass &, std::string_view argument) const;
  /// The same logical elements in the type and memory order that an argument wants.
  Tensor ordered(const Pass &, std::string_view argument, const Tensor &from) const;
  /// Master weights as a pass reads them, through the library's own packing where it has one.
  Tensor packed(const Pass &, const Tensor &weight) const;
  void check_packing(const Pass &, const Tensor &weight);
  [[noreturn]] void fail(const std::string &pass, const std::string &what) const;
  /// All elements, or a seeded sample with the first and the last, so that the reference stays affordable.
  std::vector<std::int64_t> sample(std::int64_t elements, std::int64_t terms);
  void compare(const std::string &pass, const Tensor &got, std::int64_t terms, const std::function<Want(std::int64_t)> &);
  /// What a sum must be once it is stored in a type.
  Want stored(double value, double bound, double magnitude, convsmith_type, bool integers) const;

  const Library &library_;
  const KernelRequest &kernel_;
  Problem p_;
  Shape sizes_;           // those that the kernel's problem leaves open
  convsmith_type type_;   // of tensors
  Exponential exponential_;
  std::uint64_t seed_;
  std::int64_t most_products_, range_ = 1;
  std::mt19937_64 random_;
  std::vector<PassFigures> figures_;
};

}  // namespace convsmith
