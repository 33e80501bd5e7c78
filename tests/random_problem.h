// Problems for the exact gate: small, odd, and over every key that is built.
#pragma once
#include "convsmith/problem.h"
#include <cstdint>
#include <random>

namespace convsmith {

/// A valid problem of at most `most_products` multiplications forward.
Problem random_problem(std::mt19937_64 &random, std::int64_t most_products = 2'000'000);

/// $CONVSMITH_SEED, else one that changes by the day, so that runs differ and each can be repeated.
std::uint64_t test_seed();

}  // namespace convsmith
