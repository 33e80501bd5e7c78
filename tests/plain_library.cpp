#include "plain_library.h"
#include <cstdio>
#include <cstring>
#include <iterator>

namespace {

struct Geometry {
  const char *kernel_name, *problem;
  int n, ic, oc, groups, in[2], kernel[2], stride[2], pad[2];
  bool relu, packed;
  constexpr int out(int axis) const { return (in[axis] + 2 * pad[axis] - kernel[axis]) / stride[axis] + 1; }
  constexpr int group_in() const { return ic / groups; }
  constexpr int group_out() const { return oc / groups; }
};

constexpr Geometry edge{"edge", "in=6x8 kernel=1x2", 1, 1, 1, 1, {6, 8}, {1, 2}, {1, 1}, {0, 0}, false, false};
constexpr Geometry edge_bias{"edge_bias", "in=6x8 kernel=1x2 bias=1", 1, 1, 1, 1, {6, 8}, {1, 2}, {1, 1}, {0, 0}, false,
                             false};
constexpr Geometry packed{
    "packed", "n=2 ic=4 oc=6 groups=2 in=5x7 kernel=3x2 stride=2x1 pad=1x0 bias=1 activation=relu",
    2,        4,
    6,        2,
    {5, 7},   {3, 2},
    {2, 1},   {1, 0},
    true,     true};
constexpr Geometry batch{"batch", "n=? ic=2 oc=3 in=5x4 kernel=3x2", -1, 2, 3, 1, {5, 4}, {3, 2}, {1, 1}, {0, 0}, false,
                         false};

using Order = const int (&)[4];
constexpr int channels_last[4] = {0, 2, 3, 1}, row_major[4] = {0, 1, 2, 3}, output_channel_last[4] = {2, 3, 1, 0},
              input_channel_last[4] = {2, 3, 0, 1};

// Dense, with the axes of `order` from outermost to innermost.
convsmith_tensor describe(int e0, int e1, int e2, int e3, Order order) {
  convsmith_tensor t{nullptr, CONVSMITH_F32, 4, {e0, e1, e2, e3}, {}, nullptr};
  int64_t stride = 1;
  for (int i = 4; i-- > 0;) {
    t.stride[order[i]] = stride;
    stride *= t.extent[order[i]];
  }
  return t;
}

float &at(const convsmith_tensor &t, int64_t i, int64_t j, int64_t k, int64_t l) {
  return static_cast<float *>(t.data)[i * t.stride[0] + j * t.stride[1] + k * t.stride[2] + l * t.stride[3]];
}

float &at(const convsmith_tensor &t, int64_t i) { return static_cast<float *>(t.data)[i * t.stride[0]]; }

// The descriptors of the tensors and the formulas, for one geometry.
template<const Geometry &G>
struct Kernel {
  static convsmith_tensor x() { return describe(G.n, G.ic, G.in[0], G.in[1], channels_last); }
  static convsmith_tensor y() { return describe(G.n, G.oc, G.out(0), G.out(1), channels_last); }
  static convsmith_tensor plain_weight(Order order) {
    return describe(G.oc, G.group_in(), G.kernel[0], G.kernel[1], order);
  }
  static convsmith_tensor dweight() { return plain_weight(output_channel_last); }
  static convsmith_tensor forward_weight() {
    return G.packed ? describe(G.kernel[0], G.kernel[1], G.group_in(), G.oc, row_major) : dweight();
  }
  static convsmith_tensor input_gradient_weight() { return G.packed ? plain_weight(input_channel_last) : dweight(); }
  static convsmith_tensor bias() { return {nullptr, CONVSMITH_F32, 1, {G.oc}, {1}, nullptr}; }

  // Calls visit(n, oc, oh, ow, ic in the group, kh, kw, ih, iw) for every product inside the border.
  template<class Visit>
  static void for_each_product(int64_t n_count, Visit visit) {
    for (int64_t n = 0; n < n_count; n++)
      for (int oc = 0; oc < G.oc; oc++)
        for (int oh = 0; oh < G.out(0); oh++)
          for (int ow = 0; ow < G.out(1); ow++)
            for (int ic = 0; ic < G.group_in(); ic++)
              for (int kh = 0; kh < G.kernel[0]; kh++)
                for (int kw = 0; kw < G.kernel[1]; kw++) {
                  const int ih = oh * G.stride[0] + kh - G.pad[0], iw = ow * G.stride[1] + kw - G.pad[1];
                  if (ih < 0 || ih >= G.in[0] || iw < 0 || iw >= G.in[1]) continue;
                  visit(n, oc, oh, ow, ic, kh, kw, ih, iw);
                }
  }
  static int input_channel(int oc, int ic) { return oc / G.group_out() * G.group_in() + ic; }

  static void clear(const convsmith_tensor &t, int64_t e0) {
    for (int64_t i = 0; i < e0; i++)
      for (int j = 0; j < t.extent[1]; j++)
        for (int k = 0; k < t.extent[2]; k++)
          for (int l = 0; l < t.extent[3]; l++) at(t, i, j, k, l) = 0;
  }

  static void forward(const convsmith_tensor *a, const convsmith_tensor &out, const convsmith_tensor *bias) {
    for (int64_t n = 0; n < out.extent[0]; n++)
      for (int oc = 0; oc < G.oc; oc++)
        for (int oh = 0; oh < G.out(0); oh++)
          for (int ow = 0; ow < G.out(1); ow++) at(out, n, oc, oh, ow) = bias != nullptr ? at(*bias, oc) : 0;
    for_each_product(out.extent[0], [&](int64_t n, int oc, int oh, int ow, int ic, int kh, int kw, int ih, int iw) {
      const float w = G.packed ? at(a[1], kh, kw, ic, oc) : at(a[1], oc, ic, kh, kw);
      at(out, n, oc, oh, ow) += w * at(a[0], n, input_channel(oc, ic), ih, iw);
    });
    if (!G.relu) return;
    for (int64_t n = 0; n < out.extent[0]; n++)
      for (int oc = 0; oc < G.oc; oc++)
        for (int oh = 0; oh < G.out(0); oh++)
          for (int ow = 0; ow < G.out(1); ow++) {
            float &value = at(out, n, oc, oh, ow);
            if (value < 0) value = 0;
          }
  }
};

convsmith_status bad(convsmith_error *error, const char *name, const char *what) {
  error->status = CONVSMITH_BAD_ARGUMENT;
  std::snprintf(error->message, sizeof error->message, "%s has the wrong %s", name, what);
  return error->status;
}

// Each pass is a type with its name, its arguments and its loop; Pass<P> is the C interface over it.
template<class P>
struct Pass {
  static convsmith_status run(const convsmith_tensor *a, convsmith_error *error) {
    constexpr int count = static_cast<int>(std::size(P::names));
    convsmith_tensor wanted[count];
    P::init(wanted);
    int64_t n = -1;
    for (int i = 0; i < count; i++) {
      if (a[i].type != wanted[i].type) return bad(error, P::names[i], "type");
      if (a[i].rank != wanted[i].rank) return bad(error, P::names[i], "rank");
      for (int axis = 0; axis < a[i].rank; axis++) {
        if (wanted[i].extent[axis] == -1) {
          if (n >= 0 && a[i].extent[axis] != n) return bad(error, P::names[i], "batch");
          n = a[i].extent[axis];
        } else if (a[i].extent[axis] != wanted[i].extent[axis]) {
          return bad(error, P::names[i], "shape");
        }
      }
      for (int axis = 0; axis < a[i].rank; axis++) {
        const bool any_order = std::strcmp(P::names[i], "from") == 0 || a[i].extent[axis] == 1;
        const bool outermost = wanted[i].extent[axis] == -1;
        if (!any_order && !outermost && a[i].stride[axis] != wanted[i].stride[axis])
          return bad(error, P::names[i], "memory order");
      }
    }
    P::run(a);
    return CONVSMITH_OK;
  }
  // The batch is the only extent that a problem here leaves open.
  static void init(convsmith_tensor *a, const int64_t *sizes) {
    P::init(a);
    for (std::size_t i = 0; sizes && i < std::size(P::names); i++)
      if (a[i].extent[0] == CONVSMITH_RUN_TIME) a[i].extent[0] = sizes[0];
  }
  static size_t workspace(const int64_t *, int32_t) { return 0; }
  static constexpr const char *size_names[] = {"n"};
  static constexpr convsmith_pass entry(const Geometry &g, const char *pass) {
    const bool open = std::string_view(g.problem).find("n=?") != std::string_view::npos;
    return {g.kernel_name, pass, g.problem, static_cast<int32_t>(std::size(P::names)), 1, P::names, open ? 1 : 0, size_names,
            init, run, workspace};
  }
};

template<const Geometry &G>
struct Forward {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"x", "weight", "y"};
  static void init(convsmith_tensor *a) { a[0] = K::x(), a[1] = K::forward_weight(), a[2] = K::y(); }
  static void run(const convsmith_tensor *a) { K::forward(a, a[2], nullptr); }
};

template<const Geometry &G>
struct ForwardBias {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"x", "weight", "bias", "y"};
  static void init(convsmith_tensor *a) { a[0] = K::x(), a[1] = K::forward_weight(), a[2] = K::bias(), a[3] = K::y(); }
  static void run(const convsmith_tensor *a) { K::forward(a, a[3], &a[2]); }
};

struct ForwardConstant {
  using K = Kernel<edge>;
  static constexpr const char *names[] = {"x", "y"};
  static void init(convsmith_tensor *a) { a[0] = K::x(), a[1] = K::y(); }
  static void run(const convsmith_tensor *a) {
    float values[] = {1, -1};
    convsmith_tensor both[] = {a[0], K::forward_weight()};
    both[1].data = values;
    K::forward(both, a[1], nullptr);
  }
};

template<const Geometry &G>
struct InputGradient {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"dy", "weight", "dx"};
  static void init(convsmith_tensor *a) { a[0] = K::y(), a[1] = K::input_gradient_weight(), a[2] = K::x(); }
  static void run(const convsmith_tensor *a) {
    K::clear(a[2], a[2].extent[0]);
    K::for_each_product(a[2].extent[0], [&](int64_t n, int oc, int oh, int ow, int ic, int kh, int kw, int ih, int iw) {
      at(a[2], n, K::input_channel(oc, ic), ih, iw) += at(a[1], oc, ic, kh, kw) * at(a[0], n, oc, oh, ow);
    });
  }
};

template<const Geometry &G>
struct WeightGradient {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"x", "dy", "dweight"};
  static void init(convsmith_tensor *a) { a[0] = K::x(), a[1] = K::y(), a[2] = K::dweight(); }
  static void run(const convsmith_tensor *a) {
    K::clear(a[2], G.oc);
    K::for_each_product(a[0].extent[0], [&](int64_t n, int oc, int oh, int ow, int ic, int kh, int kw, int ih, int iw) {
      at(a[2], oc, ic, kh, kw) += at(a[1], n, oc, oh, ow) * at(a[0], n, K::input_channel(oc, ic), ih, iw);
    });
  }
};

template<const Geometry &G>
struct BiasGradient {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"dy", "dbias"};
  static void init(convsmith_tensor *a) { a[0] = K::y(), a[1] = K::bias(); }
  static void run(const convsmith_tensor *a) {
    for (int oc = 0; oc < G.oc; oc++) {
      double sum = 0;
      for (int64_t n = 0; n < a[0].extent[0]; n++)
        for (int oh = 0; oh < G.out(0); oh++)
          for (int ow = 0; ow < G.out(1); ow++) sum += at(a[0], n, oc, oh, ow);
      at(a[1], oc) = static_cast<float>(sum);
    }
  }
};

template<const Geometry &G>
struct ActivationGradient {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"dy", "y", "dpre"};
  static void init(convsmith_tensor *a) { a[0] = a[1] = a[2] = K::y(); }
  static void run(const convsmith_tensor *a) {
    for (int64_t n = 0; n < a[0].extent[0]; n++)
      for (int oc = 0; oc < G.oc; oc++)
        for (int oh = 0; oh < G.out(0); oh++)
          for (int ow = 0; ow < G.out(1); ow++)
            at(a[2], n, oc, oh, ow) = at(a[1], n, oc, oh, ow) > 0 ? at(a[0], n, oc, oh, ow) : 0;
  }
};

template<const Geometry &G, bool for_input_gradient>
struct PackWeight {
  using K = Kernel<G>;
  static constexpr const char *names[] = {"from", "weight"};
  static void init(convsmith_tensor *a) {
    a[0] = K::plain_weight(row_major);
    a[1] = for_input_gradient ? K::input_gradient_weight() : K::forward_weight();
  }
  static void run(const convsmith_tensor *a) {
    for (int oc = 0; oc < G.oc; oc++)
      for (int ic = 0; ic < G.group_in(); ic++)
        for (int kh = 0; kh < G.kernel[0]; kh++)
          for (int kw = 0; kw < G.kernel[1]; kw++)
            (for_input_gradient ? at(a[1], oc, ic, kh, kw) : at(a[1], kh, kw, ic, oc)) = at(a[0], oc, ic, kh, kw);
  }
};

const convsmith_pass passes[] = {Pass<Forward<edge>>::entry(edge, "forward"),
                                 Pass<InputGradient<edge>>::entry(edge, "input_gradient"),
                                 Pass<WeightGradient<edge>>::entry(edge, "weight_gradient"),
                                 Pass<ForwardBias<edge_bias>>::entry(edge_bias, "forward"),
                                 Pass<WeightGradient<edge_bias>>::entry(edge_bias, "weight_gradient"),
                                 Pass<BiasGradient<edge_bias>>::entry(edge_bias, "bias_gradient"),
                                 Pass<ForwardBias<packed>>::entry(packed, "forward"),
                                 Pass<InputGradient<packed>>::entry(packed, "input_gradient"),
                                 Pass<WeightGradient<packed>>::entry(packed, "weight_gradient"),
                                 Pass<BiasGradient<packed>>::entry(packed, "bias_gradient"),
                                 Pass<ActivationGradient<packed>>::entry(packed, "activation_gradient"),
                                 Pass<PackWeight<packed, false>>::entry(packed, "pack_weight"),
                                 Pass<PackWeight<packed, true>>::entry(packed, "pack_weight_for_input_gradient"),
                                 Pass<Forward<batch>>::entry(batch, "forward"),
                                 Pass<InputGradient<batch>>::entry(batch, "input_gradient"),
                                 Pass<WeightGradient<batch>>::entry(batch, "weight_gradient"),
                                 {"constant", "forward", "in=6x8 kernel=1x2", 2, 1, ForwardConstant::names, 0, nullptr,
                                  Pass<ForwardConstant>::init, Pass<ForwardConstant>::run, Pass<ForwardConstant>::workspace}};

const char *const levels[] = {"plain", "unavailable"};

convsmith_status set_level(int32_t level, convsmith_error *error) {
  if (level == 0) return CONVSMITH_OK;
  error->status = CONVSMITH_UNSUPPORTED;
  std::snprintf(error->message, sizeof error->message, "this processor has no such instructions");
  return error->status;
}

int parallel_for(int (*body)(void *context, int32_t i), void *context, int32_t count) {
  int first = count < 0 ? -5 : 0;
  for (int32_t i = 0; i < count; i++)
    if (const int status = body(context, i); first == 0) first = status;
  return first;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const convsmith_library *plain_library(void) {
  static const convsmith_library table{CONVSMITH_ABI,
                                       "plain",
                                       "1.0",
                                       static_cast<int32_t>(std::size(passes)),
                                       passes,
                                       static_cast<int32_t>(std::size(levels)),
                                       levels,
                                       [] { return int32_t{0}; },
                                       set_level,
                                       [](int32_t) {},
                                       [](convsmith_parallel_for, void *) {},
                                       parallel_for,
                                       [](const convsmith_allocator *) {},
                                       nullptr};
  return &table;
}
