// Problems for the exact gate: small, odd, and over every key of the grammar; and layers of any size.
#pragma once
#include "convsmith/problem.h"
#include <cstdint>
#include <functional>
#include <random>

namespace convsmith {

/// A valid problem of at most `most_products` multiplications forward.
Problem random_problem(std::mt19937_64 &random, std::int64_t most_products = 2'000'000);

/// A layer of fixed extents as networks have them, three to a hundred million multiplications forward: large enough to be shared out among tasks and
/// cut into blocks.
Problem random_layer(std::mt19937_64 &random);

/// A problem that fails, made smaller word by word as long as it still does, with no trial begun after `seconds`.
Problem shrunk(Problem, const std::function<bool(const Problem &)> &fails, double seconds = 120);

/// $CONVSMITH_SEED, else one that changes by the day, so that runs differ and each can be repeated.
std::uint64_t test_seed();

}  // namespace convsmith
