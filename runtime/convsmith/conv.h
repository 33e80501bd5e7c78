// A trainable layer over the kernels of a library.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>
#include "convsmith/library.h"
#include "convsmith/problem.h"
#include "convsmith/sgd.h"

namespace convsmith {

/// One kernel of a library with its weight and bias: y = activation(conv(x, weight) + bias).
/// Uses the passes forward(x, weight, [bias], y), input_gradient(dy, weight, dx), weight_gradient(x, dy, dweight),
/// bias_gradient(dy, dbias), activation_gradient(dy, y, dpre) (or `pre` in the place of y where forward saves it),
/// pack_weight(from, weight) and pack_weight_for_input_gradient(from, weight), as far as they are there.
/// Weight, bias and their gradients are f32 whatever the problem's type: a kernel of f16 or bf16 packs them rounded, and
/// a tensor of any float type is rounded to the kernel's where it goes in.
/// Not to be used from two threads at once, nor after it was moved from but to be assigned to.
class Conv {
 public:
  /// Weight and bias are zero at first. Throws Error where the library has no forward pass of that kernel, or the
  /// pass takes what a layer doesn't have (a residual).
  Conv(const Library &library, std::string_view kernel);
  Conv(const Conv &) = delete;
  Conv &operator=(const Conv &) = delete;
  Conv(Conv &&) = default;
  Conv &operator=(Conv &&) = default;

  const Problem &problem() const { return problem_; }
  const Pass &forward_pass() const { return forward_; }
  const Library &library() const { return library_; }
  /// False where the weights are constants in the code: then only `forward` works.
  bool has_weight() const { return weight_.value.defined(); }
  bool has_bias() const { return bias_.value.defined(); }

  /// Uniform in ±1/sqrt(fan_in), fan_in the products summed in one output (IC/groups * kernel); the weight in logical
  /// order, then the bias; the same numbers from the same seed on every platform.
  void initialise(std::uint64_t seed);
  /// Copies from [OC, IC/groups, *kernel] (as Problem::weight_shape) or [OC], of any float type, in any memory order.
  void set_weight(const Tensor &weight);
  void set_bias(const Tensor &bias);
  /// The layer's own memory, in the order of the weight gradient. Call weights_changed after writing into it.
  const Tensor &weight() const;
  const Tensor &bias() const;
  void weights_changed() { version_++; }

  /// x [N, IC, *in] in any memory order (copied only where the kernel wants another) -> y [N, OC, *out].
  /// x and y are kept, not copied, for `backward`.
  Tensor forward(const Tensor &x);
  /// The same into a `y` of make_output's memory order.
  void forward(const Tensor &x, const Tensor &y);
  Tensor make_output(const Tensor &x) const;
  /// From dL/dy of the last forward: stores the gradients of weight and bias, and gives dL/dx where it is wanted.
  /// Throws Error where a pass that it needs is not in the library, naming it.
  std::optional<Tensor> backward(const Tensor &dy, bool want_dx);
  /// Weight, then bias where there is one; they share the layer's memory.
  std::vector<Parameter> parameters() const;
  /// `backward` for the parameters alone, dL/dy in f32: scaled by a power of two on its way, dy in place, so that 16-bit floats lose
  /// none of it but what is 2^-14 of its largest element or less. The parameters' gradients are those of dL/dy as it was.
  void parameter_gradients(const Tensor &dy);
  /// One step of the optimiser on the gradients of the last `backward`.
  void step(Sgd &optimiser);

 private:
  struct Packed {
    Tensor tensor;
    std::uint64_t version = 0;
  };
  const Tensor &packed(Packed &cache, const Pass &consumer, const std::optional<Pass> &packer);
  void set(const Tensor &parameter, const char *name, const Tensor &from);
  const Pass &required(const std::optional<Pass> &pass, const char *name) const;

  Library library_;  // keeps the passes' code loaded
  Pass forward_;
  std::optional<Pass> input_gradient_, weight_gradient_, bias_gradient_, activation_gradient_, pack_weight_,
      pack_weight_for_input_gradient_;
  Problem problem_;
  Parameter weight_, bias_;
  std::uint64_t version_ = 1;
  Packed forward_weight_, input_gradient_weight_;
  Tensor x_, y_, pre_;
};

}  // namespace convsmith
