// The certificate: every pass of a loaded library held against the reference.
//   exact     small integers, for which every sum is exact in f32: the result equals the 64-bit integer sum bit for bit
//   real      zero-mean random data: the error as a share of its bound; at most 1
//   adjoint   <conv(x,w), g> = <x, dx> = <w, dw>, exact on integers
#pragma once
#include "convsmith/library.h"
#include "tools/emit/library.h"
#include <nlohmann/json.hpp>

namespace convsmith {

/// A check of ours that failed: exit status 1.
class CheckFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct PassFigures {
  std::string pass;
  std::int64_t exact_elements = 0;  // compared bit for bit; 0 where integers cannot stay exact
  std::int64_t real_elements = 0;
  double worst_share = 0;  // of the bound
  double worst_error = 0;  // absolute
  bool adjoint = false;    // the identity was checked
};

/// Checks every pass that a kernel of the library has, at the level in use. `most_products` bounds the work of the
/// reference: past it, elements are a seeded sample. Throws CheckFailed that names the pass, the element, what was
/// expected and what came, the problem and the seed.
std::vector<PassFigures> check_kernel(const Library &, const KernelRequest &, std::uint64_t seed,
                                      std::int64_t most_products = 50'000'000);

/// check_kernel for every kernel at every level that this machine has, as the manifest holds it.
nlohmann::json certify(const Library &, const std::vector<KernelRequest> &);

}  // namespace convsmith
