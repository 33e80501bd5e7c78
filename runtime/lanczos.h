// Extreme eigenvalues of a symmetric operator. Private to the run-time.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace convsmith {

/// The smallest and the largest Ritz value of a symmetric operator on R^n after at most `steps` Lanczos steps with
/// full reorthogonalisation. `apply` gets a vector of about unit length and returns the operator's product with it.
/// Source: Golub and Van Loan, "Matrix Computations", 4th edition, sections 10.1 and 10.3.
std::pair<double, double> extreme_eigenvalues(
    std::int64_t n, int steps, std::uint64_t seed,
    const std::function<std::vector<double>(const std::vector<float> &)> &apply);

/// The smallest and the largest eigenvalue of the symmetric tridiagonal matrix with this diagonal and, one shorter,
/// this off-diagonal; by bisection on Sturm counts, to rounding. Source: the same, section 8.4.1.
std::pair<double, double> extreme_tridiagonal(const std::vector<double> &diagonal, const std::vector<double> &off);

}  // namespace convsmith
