#include "random_problem.h"
#include "convsmith/error.h"
#include "generators/pass.h"
#include "tools/measure/cost.h"
#include <algorithm>
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

void draw_channels(Draw &d, Problem &p) {
  const std::int64_t kind = p.op == Op::dense ? 9 : d.between(0, 9);
  if (kind == 0) {  // depthwise
    p.groups = p.ic = p.oc = d.of({2, 3, 5, 8, 13, 16, 33, 40});
  } else if (kind <= 2) {
    p.groups = d.between(2, 4);
    p.ic = p.groups * d.of({1, 2, 3, 8, 12}), p.oc = p.groups * d.of({1, 3, 8, 16, 18});
  } else {
    p.ic = d.of({1, 1, 2, 3, 5, 8, 16, 17, 24, 33}), p.oc = d.of({1, 1, 2, 3, 7, 8, 16, 19, 32, 50});
  }
}

void draw_axis(Draw &d, Problem &p, int a, std::int64_t widest) {
  p.in[a] = d.between(1, widest);
  if (p.op == Op::dense) {
    p.dense_out[a] = d.of({1, 1, 2, 5});
    return;
  }
  p.kernel[a] = d.of({1, 2, 3, 3, 4, 5, 7});
  p.stride[a] = d.of({1, 1, 1, 2, 2, 3, 4});
  p.dilation[a] = d.of({1, 1, 1, 2, 3});
  p.pad_lo[a] = d.of({0, 0, 1, 1, 2, 3, -1}), p.pad_hi[a] = d.of({0, 0, 1, 1, 2, 4, -1});
  if (p.op == Op::transposed) p.out_pad[a] = std::max<std::int64_t>(0, d.between(-1, std::max(p.stride[a], p.dilation[a]) - 1));
}

Problem draw(Draw &d) {
  Problem p;
  p.op = d.of({Op::correlation, Op::correlation, Op::correlation, Op::correlation, Op::convolution, Op::transposed,
               Op::transposed, Op::local, Op::dense});
  p.rank = int(d.of({1, 2, 2, 2, 3}));
  p.n = d.one_in(40) ? 0 : d.of({1, 1, 1, 2, 3});
  draw_channels(d, p);
  const std::int64_t widest = p.op == Op::local || p.op == Op::dense ? (p.rank == 1 ? 60 : p.rank == 2 ? 14 : 5)
                                                                     : (p.rank == 1 ? 200 : p.rank == 2 ? 33 : 11);
  for (int a = 0; a < p.rank; a++) draw_axis(d, p, a, widest);
  if (p.op != Op::transposed && p.op != Op::dense)
    p.border = d.of({Border::zero, Border::zero, Border::zero, Border::replicate, Border::reflect, Border::wrap});
  p.type = d.of({Type::f32, Type::f32, Type::f32, Type::f32, Type::f16, Type::bf16, Type::u8s8});
  if (p.type == Type::u8s8) {
    p.out_type = d.of({OutType::f32, OutType::u8, OutType::s8, OutType::i32});
    p.scale = d.of({Scale::tensor, Scale::channel});
  }
  p.layout = d.one_in(4) ? Layout::channels_first : Layout::channels_last;
  p.bias = d.one_in(2);
  using Kind = Activation::Kind;
  if (d.one_in(2)) {
    p.activation.kind = d.of({Kind::relu, Kind::relu6, Kind::leaky_relu, Kind::sigmoid, Kind::tanh, Kind::silu, Kind::gelu, Kind::clamp});
    if (p.activation.kind == Kind::leaky_relu) p.activation.a = d.of({0.25f, 0.1f, -0.5f, 2.f});
    if (p.activation.kind == Kind::clamp) p.activation.a = d.of({-2.5f, 0.f, -0.1f}), p.activation.b = d.of({1.f, 7.25f, 0.7f});
  }
  p.residual = d.one_in(4);
  if (p.type != Type::u8s8 && d.one_in(4)) p.save = Save::pre;
  if (p.op != Op::local && p.op != Op::dense && d.one_in(5))
    for (int a = 0; a < p.rank; a++)
      if (a == 0 || d.one_in(2)) p.in[a] = run_time;
  if (d.one_in(8)) p.n = run_time;
  return p;
}

}  // namespace

Problem random_problem(std::mt19937_64 &random, std::int64_t most_products) {
  Draw d(random);
  while (true) try {
      const Problem p = Problem::parse(draw(d).str());
      std::int64_t products = element_count(p.output_shape()) * (p.ic / p.groups), residues = 1, taps = 1;
      for (int a = 0; a < p.rank; a++) {
        products *= p.op == Op::dense ? p.in[a] : p.kernel[a];
        residues *= p.stride[a];  // a strided gradient has a loop nest a residue
        taps *= p.kernel[a];      // which small sums unroll
      }
      if (products > most_products || residues > 8 || taps > 49 || element_count(p.weight_shape()) > 200'000) continue;
      require_available(p, PassKind::forward);
      return p;
    } catch (const Error &) {}  // drawn past what the grammar allows
}

Problem random_layer(std::mt19937_64 &random) {
  Draw d(random);
  const auto channels = [&] { return std::int64_t(d.of({1, 3, 16, 24, 32, 48, 64, 80, 96, 100, 128, 200, 256, 512})); };
  const auto channels_of_a_group = [&] { return std::int64_t(d.of({2, 4, 8, 16, 24})); };
  while (true) try {
      Problem p = draw(d);
      const bool depthwise = p.groups > 1 && p.groups == p.ic && p.groups == p.oc, shared = p.op != Op::local && p.op != Op::dense;
      p.n = d.of({1, 1, 1, 2, 4, 9, 10});
      if (p.groups == 1) p.ic = channels(), p.oc = channels();
      else if (depthwise) p.groups = p.ic = p.oc = d.of({8, 24, 64, 96, 100, 256});
      else p.groups = d.of({2, 5, 8, 32}), p.ic = p.groups * channels_of_a_group(), p.oc = p.groups * channels_of_a_group();
      for (int a = 0; a < p.rank; a++) {
        if (p.op != Op::dense) p.kernel[a] = d.of({1, 3, 3, 5}), p.stride[a] = std::min<std::int64_t>(p.stride[a], 2);
        if (p.rank == 1) p.in[a] = shared ? d.of({200, 1000, 5000, 20000}) : d.of({20, 100, 300});
        if (p.rank == 2) p.in[a] = shared ? d.of({7, 10, 14, 28, 31, 40, 56, 90, 112, 600}) : d.of({6, 9, 14, 20});
        if (p.rank == 3) p.in[a] = shared ? d.of({4, 6, 9, 10, 16, 20, 30}) : d.of({4, 6, 8});
      }
      p = Problem::parse(p.str());
      const Count products = cost(p, PassKind::forward).multiply_adds;
      if (products < 3'000'000 || products > 100'000'000 || element_count(p.weight_shape()) > 4'000'000) continue;
      require_available(p, PassKind::forward);
      return p;
    } catch (const Error &) {}  // as above
}

Problem shrunk(Problem p, const std::function<bool(const Problem &)> &fails, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  const auto smaller = [](const Problem &from) {
    std::vector<Problem> list;
    const auto with = [&](auto change) {
      Problem q = from;
      change(q);
      if (!(q.str() == from.str())) list.push_back(q);
    };
    const Problem plain;
    with([&](Problem &q) { q.activation = plain.activation; });
    with([](Problem &q) { q.residual = false; });
    with([](Problem &q) { q.bias = false; });
    with([](Problem &q) { q.save = Save::none; });
    with([](Problem &q) { q.type = Type::f32, q.out_type = OutType::f32, q.scale = Scale::tensor; });
    with([](Problem &q) { q.out_type = OutType::f32; });
    with([](Problem &q) { q.layout = Layout::channels_last; });
    with([](Problem &q) { q.border = Border::zero; });
    with([](Problem &q) { q.n = 1; });
    with([](Problem &q) { q.op = Op::correlation, q.out_pad = {0, 0, 0}; });
    with([](Problem &q) { q.ic /= q.groups, q.oc /= q.groups, q.groups = 1; });
    for (auto channels : {&Problem::ic, &Problem::oc})
      for (const std::int64_t part : {8, 2}) with([&](Problem &q) { q.*channels = std::max(q.*channels / part / q.groups, std::int64_t{1}) * q.groups; });
    if (from.rank > 1)
      with([](Problem &q) {  // without the outermost axis
        q.rank--;
        for (auto e : {&q.in, &q.kernel, &q.stride, &q.dilation, &q.pad_lo, &q.pad_hi, &q.out_pad, &q.dense_out})
          std::rotate(e->begin(), e->begin() + 1, e->end());
      });
    for (size_t a = 0; a < size_t(from.rank); a++) {
      with([&](Problem &q) { q.pad_lo[a] = 0; });
      with([&](Problem &q) { q.pad_hi[a] = 0; });
      with([&](Problem &q) { q.out_pad[a] = 0; });
      with([&](Problem &q) { q.stride[a] = 1; });
      with([&](Problem &q) { q.dilation[a] = 1; });
      with([&](Problem &q) { q.kernel[a] = std::max<std::int64_t>(1, q.kernel[a] / 2); });
      with([&](Problem &q) { q.in[a] = q.in[a] == run_time ? 9 : std::max<std::int64_t>(1, q.in[a] / 2); });
      with([&](Problem &q) { q.in[a] = q.in[a] == run_time ? 9 : std::max<std::int64_t>(1, q.in[a] - 1); });
      with([&](Problem &q) { q.dense_out[a] = 1; });
    }
    return list;
  };
  for (bool progress = true; progress;) {
    progress = false;
    for (const Problem &q : smaller(p)) {
      try {
        const Problem valid = Problem::parse(q.str());
        require_available(valid, PassKind::forward);
        if (Clock::now() > end) return p;
        if (!fails(valid)) continue;
        p = valid, progress = true;
        break;
      } catch (const Error &) {}  // not a problem
    }
  }
  return p;
}

std::uint64_t test_seed() {
  if (const char *seed = std::getenv("CONVSMITH_SEED")) return std::strtoull(seed, nullptr, 10);
  return std::uint64_t(std::chrono::duration_cast<std::chrono::hours>(std::chrono::system_clock::now().time_since_epoch()).count() / 24);
}

}  // namespace convsmith
