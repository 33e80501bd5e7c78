// oneDNN as a peer of `convsmith bench`; tools/measure/peer.h has the protocol. What is timed is oneDNN's best case:
//   any    activations and weights lie as oneDNN likes them, reordered beforehand
//   nhwc   activations are channels last; weights lie as oneDNN likes them, packed beforehand
//   nchw   activations are channels first; weights as for nhwc
// A weight gradient ends with the reorder to the framework's plain order, where it is not that already, since an
// optimiser reads it. Primitives are made beforehand, for as many threads (OpenMP's) as asked; a call ends when its
// work has ended.
#include <omp.h>
#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <sstream>
#include "convsmith/error.h"
#include "convsmith/npy.h"
#include "convsmith/problem.h"
#include "tools/support/stopwatch.h"

namespace convsmith {
namespace {

using dnnl::memory;
using Dims = memory::dims;

struct Convolution {
  using Forward = dnnl::convolution_forward;
  using InputGradient = dnnl::convolution_backward_data;
  using WeightGradient = dnnl::convolution_backward_weights;
  static constexpr dnnl::algorithm algorithm = dnnl::algorithm::convolution_direct;
};
struct Deconvolution {
  using Forward = dnnl::deconvolution_forward;
  using InputGradient = dnnl::deconvolution_backward_data;
  using WeightGradient = dnnl::deconvolution_backward_weights;
  static constexpr dnnl::algorithm algorithm = dnnl::algorithm::deconvolution_direct;
};

enum class Variant { any, nhwc, nchw };

Variant parse_variant(const std::string &text) {
  if (text == "any") return Variant::any;
  if (text == "nhwc") return Variant::nhwc;
  if (text == "nchw") return Variant::nchw;
  throw Error("expected any, nhwc or nchw, got \"" + text + "\"");
}

/// The strides of a dense tensor whose axes lie in this order, outermost first.
Dims strides_of(const Dims &dims, const std::vector<int> &order) {
  Dims strides(dims.size());
  memory::dim stride = 1;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) strides[*axis] = stride, stride *= dims[*axis];
  return strides;
}

std::vector<int> logical_order(const Dims &dims) {
  std::vector<int> order(dims.size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

memory::desc dense(const Dims &dims, const std::vector<int> &order) {
  return {dims, memory::data_type::f32, strides_of(dims, order)};
}

/// As files hold it.
memory::desc plain(const Dims &dims) { return dense(dims, logical_order(dims)); }

/// As oneDNN may choose.
memory::desc open(const Dims &dims) { return {dims, memory::data_type::f32, memory::format_tag::any}; }

/// Of x and y.
memory::desc activations(const Dims &dims, Variant variant) {
  if (variant == Variant::any) return open(dims);
  std::vector<int> order = logical_order(dims);
  if (variant == Variant::nhwc) std::rotate(order.begin() + 1, order.begin() + 2, order.end());
  return dense(dims, order);
}

/// Weights are [g, OC/g, IC/g, *kernel] to oneDNN, without g where there is one group; a transposed problem's files
/// have the two channels the other way round.
memory::desc plain_weights(const Problem &p) {
  Dims dims = {p.oc / p.groups, p.ic / p.groups};
  dims.insert(dims.end(), p.kernel.begin(), p.kernel.begin() + p.rank);
  if (p.groups > 1) dims.insert(dims.begin(), p.groups);
  std::vector<int> order = logical_order(dims);
  if (p.op == Op::transposed) std::swap(order[p.groups > 1], order[1 + (p.groups > 1)]);
  return dense(dims, order);
}

/// In oneDNN's words, those of a correlation or of its transpose.
struct Geometry {
  memory::desc x, weight, y;
  Dims stride, dilation, lo, hi;
};

Geometry geometry_of(const Problem &p, Variant variant) {
  const Dims x = p.input_shape(), y = p.output_shape();
  Geometry g{activations(x, variant), open(plain_weights(p).get_dims()), activations(y, variant), {}, {}, {}, {}};
  // What is padded is the wide side. Behind it goes what makes the extents agree: it counts what a stride leaves over,
  // and out_pad, and may be negative.
  const Dims &wide = p.op == Op::transposed ? y : x, &narrow = p.op == Op::transposed ? x : y;
  for (int axis = 0; axis < p.rank; axis++) {
    const memory::dim window = p.dilation[axis] * (p.kernel[axis] - 1) + 1;
    g.stride.push_back(p.stride[axis]);
    g.dilation.push_back(p.dilation[axis] - 1);
    g.lo.push_back(p.pad_lo[axis]);
    g.hi.push_back((narrow[2 + axis] - 1) * p.stride[axis] + window - wide[2 + axis] - p.pad_lo[axis]);
  }
  return g;
}

/// Reverses the taps of dense row-major weights along every axis: op=convolution as a correlation.
void flip(const Tensor &weight, const Problem &p) {
  const std::int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  for (float *at = weight.data<float>(), *end = at + weight.elements(); at != end; at += taps)
    std::reverse(at, at + taps);
}

void require_able(const Problem &p, const std::string &pass) {
  const auto refuse_unless = [](bool able, const char *what) {
    if (!able) throw Error(what);
  };
  const bool forward = pass == "forward", relu = p.activation.kind == Activation::Kind::relu;
  refuse_unless(forward || pass == "input_gradient" || pass == "weight_gradient",
                "only forward, input_gradient and weight_gradient");
  refuse_unless(p.op != Op::local && p.op != Op::dense, "only op=correlation, convolution and transposed");
  refuse_unless(p.type == Type::f32, "only type=f32");
  for (int axis = 0; axis < p.rank; axis++) {
    refuse_unless(p.pad_lo[axis] >= 0 && p.pad_hi[axis] >= 0, "only padding of 0 or more");
    refuse_unless(p.border == Border::zero || p.pad_lo[axis] + p.pad_hi[axis] == 0, "only border=zero");
  }
  refuse_unless(!forward || p.activation.kind == Activation::Kind::none || relu, "only activation=none and relu");
  refuse_unless(!p.residual && p.save == Save::none, "only residual=0 and save=none");
}

/// One pass of one problem, ready to be called.
class Job {
 public:
  Job(Variant variant, const std::string &pass, const std::string &folder, const Problem &p)
      : problem_(p), pass_(pass), folder_(folder) {
    if (p.op == Op::transposed) build<Deconvolution>(geometry_of(p, variant));
    else build<Convolution>(geometry_of(p, variant));
  }

  void run() {
    for (const Call &call : calls_)
      dnnl::error::wrap_c_api(dnnl_primitive_execute(call.primitive.get(), stream_.get(), int(call.arguments.size()),
                                                     call.arguments.data()),
                              "a primitive failed");
    stream_.wait();
  }

  Tensor result() {
    const bool weights = pass_ == "weight_gradient";
    const Tensor out(weights ? problem_.weight_shape()
                             : pass_ == "forward" ? problem_.output_shape() : problem_.input_shape());
    copy(result_, {weights ? plain_weights(problem_) : plain(out.shape()), engine_, out.data<float>()});
    if (weights && problem_.op == Op::convolution) flip(out, problem_);
    return out;
  }

 private:
  struct Call {
    dnnl::primitive primitive;
    std::vector<memory> memories;
    std::vector<dnnl_exec_arg_t> arguments;
  };

  template<class Family>
  void build(const Geometry &g) {
    if (pass_ == "forward") return forward<Family>(g);
    const typename Family::Forward::primitive_desc hint(engine_, dnnl::prop_kind::forward_training, Family::algorithm,
                                                        g.x, g.weight, g.y, g.stride, g.dilation, g.lo, g.hi);
    if (pass_ == "input_gradient") {
      const typename Family::InputGradient::primitive_desc d(engine_, Family::algorithm, g.x, g.weight, g.y, g.stride,
                                                             g.dilation, g.lo, g.hi, hint);
      result_ = memory(d.diff_src_desc(), engine_);
      add(typename Family::InputGradient(d), {{DNNL_ARG_DIFF_DST, input("dy", d.diff_dst_desc())},
                                              {DNNL_ARG_WEIGHTS, weights(d.weights_desc())},
                                              {DNNL_ARG_DIFF_SRC, result_}});
    } else {
      const typename Family::WeightGradient::primitive_desc d(engine_, Family::algorithm, g.x, g.weight, g.y, g.stride,
                                                              g.dilation, g.lo, g.hi, hint);
      const memory chosen(d.diff_weights_desc(), engine_);
      add(typename Family::WeightGradient(d), {{DNNL_ARG_SRC, input("x", d.src_desc())},
                                               {DNNL_ARG_DIFF_DST, input("dy", d.diff_dst_desc())},
                                               {DNNL_ARG_DIFF_WEIGHTS, chosen}});
      result_ = chosen;
      if (chosen.get_desc() != plain_weights(problem_)) {
        result_ = memory(plain_weights(problem_), engine_);
        add(dnnl::reorder(chosen, result_), {{DNNL_ARG_FROM, chosen}, {DNNL_ARG_TO, result_}});
      }
    }
  }

  template<class Family>
  void forward(const Geometry &g) {
    const memory::desc bias = problem_.bias ? plain({problem_.oc}) : memory::desc();
    dnnl::primitive_attr attributes;
    if (problem_.activation.kind == Activation::Kind::relu) {
      dnnl::post_ops after;
      after.append_eltwise(dnnl::algorithm::eltwise_relu, 0, 0);
      attributes.set_post_ops(after);
    }
    const typename Family::Forward::primitive_desc d(engine_, dnnl::prop_kind::forward_inference, Family::algorithm,
                                                     g.x, g.weight, bias, g.y, g.stride, g.dilation, g.lo, g.hi,
                                                     attributes);
    result_ = memory(d.dst_desc(), engine_);
    std::vector<std::pair<int, memory>> arguments = {{DNNL_ARG_SRC, input("x", d.src_desc())},
                                                     {DNNL_ARG_WEIGHTS, weights(d.weights_desc())},
                                                     {DNNL_ARG_DST, result_}};
    if (problem_.bias) arguments.emplace_back(DNNL_ARG_BIAS, input("bias", d.bias_desc()));
    add(typename Family::Forward(d), arguments);
  }

  void add(dnnl::primitive primitive, const std::vector<std::pair<int, memory>> &arguments) {
    Call call{std::move(primitive), {}, {}};
    for (auto &[index, held] : arguments) {
      call.memories.push_back(held);
      call.arguments.push_back({index, held.get()});
    }
    calls_.push_back(std::move(call));
  }

  Tensor read(const std::string &name, const Shape &shape) const {
    const Tensor tensor = read_npy(folder_ + "/" + name + ".npy");
    if (tensor.shape() != shape)
      throw Error(name + ": expected " + shape_text(shape) + ", got " + shape_text(tensor.shape()));
    return tensor;
  }

  /// x, dy or bias in the layout of `wanted`.
  memory input(const std::string &name, const memory::desc &wanted) {
    return ordered(plain(wanted.get_dims()), read(name, wanted.get_dims()), wanted);
  }

  memory weights(const memory::desc &wanted) {
    const Tensor weight = read("weight", problem_.weight_shape());
    if (problem_.op == Op::convolution) flip(weight, problem_);
    return ordered(plain_weights(problem_), weight, wanted);
  }

  memory ordered(const memory::desc &from, const Tensor &tensor, const memory::desc &wanted) {
    const memory to(wanted, engine_);
    copy({from, engine_, tensor.data<float>()}, to);
    return to;
  }

  void copy(memory from, memory to) {
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
  }

  Problem problem_;
  std::string pass_, folder_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::vector<Call> calls_;  // what is timed, one after the other
  memory result_;
};

class Peer {
 public:
  explicit Peer(Variant variant) : variant_(variant) {}

  /// The answer to one line.
  std::string answer(const std::string &line) {
    std::istringstream words(line);
    std::string request;
    words >> request;
    if (request == "prepare") {
      std::string pass, folder, result, text;
      words >> pass >> threads_ >> folder >> result >> std::ws;
      std::getline(words, text);
      job_.reset();
      omp_set_num_threads(threads_);
      const Problem p = Problem::parse(text);
      require_able(p, pass);
      Job job(variant_, pass, folder, p);
      job.run();
      write_npy(result, job.result());
      job_.emplace(std::move(job));
      return "ok";
    }
    if (request == "time") {
      double seconds = 0;
      if (!(words >> seconds) || !job_) throw Error("time: expected seconds, and something prepared");
      omp_set_num_threads(threads_);
      const Times t = time_calls(seconds, [&] { job_->run(); });
      char text[64];
      std::snprintf(text, sizeof text, "ok %.5f %.5f", t.min_us, t.median_us);
      return text;
    }
    if (request == "drop") {
      job_.reset();
      return "ok";
    }
    throw Error("expected prepare, time or drop");
  }

 private:
  Variant variant_;
  int threads_ = 1;
  std::optional<Job> job_;
};

int serve(const std::string &variant) {
  Peer peer(parse_variant(variant));
  const dnnl_version_t *v = dnnl::version();
  // Answers go to what is standard output now, and whatever oneDNN prints (ONEDNN_VERBOSE) to standard error.
  FILE *answers = fdopen(dup(STDOUT_FILENO), "w");
  if (!answers || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) throw Error("standard output: cannot be written");
  const auto say = [&](const std::string &line) { std::fprintf(answers, "%s\n", line.c_str()), std::fflush(answers); };
  say("ok oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch));
  for (std::string line; std::getline(std::cin, line);) {
    std::string said;
    try {
      said = peer.answer(line);
    } catch (const std::exception &e) {
      said = std::string("no ") + e.what();
    }
    std::replace(said.begin(), said.end(), '\n', ' ');
    say(said);
  }
  return 0;
}

}  // namespace
}  // namespace convsmith

int main(int argc, char **argv) try {
  if (argc != 2) throw convsmith::Error("expected one argument: any, nhwc or nchw");
  return convsmith::serve(argv[1]);
} catch (const std::exception &e) {
  std::cerr << "convsmith_bench_onednn: " << e.what() << "\n";
  return 2;
}
