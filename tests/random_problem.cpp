#include "random_problem.h"
#include "convsmith/error.h"
#include "generators/pass.h"
#include <chrono>
#include <cstdlib>
#include <string>

namespace convsmith {
namespace {

class Draw {
 public:
  explicit Draw(std::mt19937_64 &random) : random_(random) {}
  std::int64_t between(std::int64_t low, std::int64_t high) { return low + std::int64_t(random_() % std::uint64_t(high - low + 1)); }
  bool one_in(int n) { return random_() % std::uint64_t(n) == 0; }
  template<class T> T of(std::initializer_list<T> list) { return *(list.begin() + between(0, std::int64_t(list.size()) - 1)); }

 private:
  std::mt19937_64 &random_;
};

Problem draw(Draw &d) {
  Problem p;
  p.op = d.one_in(4) ? Op::convolution : Op::correlation;
  p.rank = int(d.of({1, 2, 2, 2, 3}));
  p.n = d.of({1, 1, 1, 2, 3});
  const std::int64_t kind = d.between(0, 9);
  if (kind == 0) {  // depthwise
    p.groups = p.ic = p.oc = d.of({2, 8, 13, 16, 33, 40});
  } else if (kind <= 2) {
    p.groups = d.between(2, 4);
    p.ic = p.groups * d.of({1, 2, 3, 8, 12}), p.oc = p.groups * d.of({1, 3, 8, 16, 18});
  } else {
    p.ic = d.of({1, 1, 2, 3, 5, 8, 16, 17, 24, 33}), p.oc = d.of({1, 1, 2, 3, 7, 8, 16, 19, 32, 50});
  }
  const std::int64_t widest = p.rank == 1 ? 200 : p.rank == 2 ? 33 : 11;
  for (int a = 0; a < p.rank; a++) {
    p.in[a] = d.between(1, widest);
    p.kernel[a] = d.of({1, 2, 3, 3, 4, 5, 7});
    p.stride[a] = d.of({1, 1, 1, 2, 2, 3, 4});
    p.dilation[a] = d.of({1, 1, 1, 2, 3});
    p.pad_lo[a] = d.of({0, 0, 1, 1, 2, 3, -1}), p.pad_hi[a] = d.of({0, 0, 1, 1, 2, 4, -1});
  }
  p.border = d.of({Border::zero, Border::zero, Border::zero, Border::replicate, Border::reflect, Border::wrap});
  p.layout = d.one_in(4) ? Layout::channels_first : Layout::channels_last;
  p.bias = d.one_in(2);
  if (d.one_in(3)) p.activation.kind = Activation::Kind::relu;
  return p;
}

}  // namespace

Problem random_problem(std::mt19937_64 &random, std::int64_t most_products) {
  Draw d(random);
  while (true) try {
      const Problem p = Problem::parse(draw(d).str());
      if (element_count(p.output_shape()) * (p.ic / p.groups) * p.kernel[0] * p.kernel[1] * p.kernel[2] > most_products) continue;
      std::int64_t residues = 1;  // a strided gradient has a loop nest a residue
      for (int a = 0; a < p.rank; a++) residues *= p.stride[a];
      if (residues > 12) continue;
      return p;
    } catch (const Error &) {}  // drawn past what the grammar allows
}

std::uint64_t test_seed() {
  if (const char *seed = std::getenv("CONVSMITH_SEED")) return std::strtoull(seed, nullptr, 10);
  return std::uint64_t(std::chrono::duration_cast<std::chrono::hours>(std::chrono::system_clock::now().time_since_epoch()).count() / 24);
}

}  // namespace convsmith
