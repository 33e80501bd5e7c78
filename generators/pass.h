// The passes of a problem, by the names that the command, the manifest and the emitted functions use.
#pragma once
#include "convsmith/problem.h"
#include <string>
#include <string_view>
#include <vector>

namespace convsmith {

enum class PassKind {
  forward,
  input_gradient,
  weight_gradient,
  bias_gradient,
  activation_gradient,             // d pre-activation from d output
  pack_weight,                     // any order of the weights -> the one that forward reads
  pack_weight_for_input_gradient,  // … the one that input_gradient reads
  train_step,                      // forward, squared loss, gradients and the SGD update in one call
};

const char *pass_name(PassKind);
/// Throws Error, listing the names, for anything else.
PassKind parse_pass(std::string_view name);
/// Whether a pass brings weights into the order that another one reads.
bool is_packing(PassKind);
/// Every pass that makes sense for a problem, in the order of the enumeration.
std::vector<PassKind> passes_of(const Problem &);
/// Throws Error that names the word of the problem, or the pass, that is not built yet or does not fit.
void require_available(const Problem &, PassKind);
/// Those of n and in that a problem leaves open, as another has them, in the order that its passes take them.
Shape sizes_at(const Problem &open, const Problem &fixed);

}  // namespace convsmith
