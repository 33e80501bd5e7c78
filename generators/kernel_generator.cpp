#include "kernel_generator.h"

using namespace Halide;

namespace convsmith {
namespace {

class ConvKernel : public Generator<ConvKernel> {
 public:
  Workload workload;
  std::function<void(Stages &, const Workload &)> schedule;
  std::function<void(Pipeline &)> lower;
  Buffer<> weight;

  // Inputs and outputs are declared here, as their ranks, types and names hang on the problem.
  void configure() {
    specs_ = find_operator(workload).buffers(workload);
    const size_t inputs = specs_.size() - output_count(workload);
    for (size_t i = 0; i < inputs; i++) {
      const BufferSpec &s = specs_[i];
      inputs_.push_back(is_constant(s) ? nullptr : add_input<Buffer<>>(symbol(s), s.type, int(s.dims.size())));
    }
    for (const int size : run_time_sizes(workload))
      sizes_[size] = add_input<int32_t>("size_" + size_name(workload.problem, size));
    // What a Func stores side by side is one output of several buffers.
    for (size_t i = inputs; i < specs_.size(); i++) {
      std::vector<Halide::Type> types = {specs_[i].type};
      if (stored_together()) types.push_back(specs_[++i].type);
      outputs_.push_back(add_output<Buffer<>>(symbol(specs_[i]), types, int(specs_[i].dims.size())));
    }
  }

  Pipeline build_pipeline() override {
    Pipeline pipeline = Generator::build_pipeline();
    if (lower) lower(pipeline);
    return pipeline;
  }

  void generate() {
    set_sizes(workload, [&](int size) { return Expr(*sizes_.at(size)); });
    std::vector<Func> funcs;
    for (size_t i = 0; i < inputs_.size(); i++) {
      if (inputs_[i]) {
        constrain(*inputs_[i], specs_[i], true);
        funcs.push_back(*inputs_[i]);
        continue;
      }
      Func constant("weight");
      std::vector<Var> v;
      for (int d = 0; d < weight.dimensions(); d++) v.push_back(numbered("w", d));
      constant(v) = weight(std::vector<Expr>(v.begin(), v.end()));
      funcs.push_back(constant);
    }
    Stages s = find_operator(workload).build(workload, funcs);
    schedule(s, workload);
    s.results.insert(s.results.begin(), s.result());
    for (size_t i = 0; i < outputs_.size(); i++) {
      *outputs_[i] = s.results[i];
      // Halide takes bounds on the first of several buffers only.
      auto buffers = s.results[i].output_buffers();
      for (size_t b = 0; b < buffers.size(); b++) constrain(buffers[b], specs_[inputs_.size() + i + b], b == 0);
    }
  }

 private:
  // A Generator keeps some names, as "target", for itself.
  static std::string symbol(const BufferSpec &spec) { return spec.name + "_buffer"; }

  bool is_constant(const BufferSpec &spec) const { return weight.defined() && spec.name == "weight"; }
  bool stored_together() const { return workload.pass == PassKind::forward && workload.problem.save == Save::pre; }

  // Extents are fixed, or given; so are the strides of the innermost axes. A dimension that is a multiple of another's
  // axis (a group of channels) keeps that ratio.
  template<class T> void constrain(T &buffer, const BufferSpec &spec, bool bounds) const {
    int stride = 1;
    std::vector<int> dense(spec.shape.size(), 0);
    for (int i = 0; i < spec.fixed; i++) {
      dense[size_t(spec.memory[size_t(i)])] = stride;
      stride *= int(spec.shape[size_t(spec.memory[size_t(i)])]);
    }
    for (size_t d = 0; d < spec.dims.size(); d++) {
      const auto &dim = spec.dims[d];
      const Expr size = dim.extent != run_time ? Expr() : workload.sizes[size_t(dim.interleaved ? spec.sizes.back() : spec.sizes[size_t(dim.axis)])];
      if (bounds && size.defined()) buffer.dim(int(d)).set_bounds(0, dim.interleaved ? size * dim.interleaved : size);
      else if (bounds) buffer.dim(int(d)).set_bounds(0, dim.extent);
      if (dense[size_t(dim.axis)]) {
        buffer.dim(int(d)).set_stride(dense[size_t(dim.axis)] * dim.multiple);
      } else if (dim.multiple > 1) {
        for (size_t base = 0; base < d; base++)
          if (spec.dims[base].axis == dim.axis) buffer.dim(int(d)).set_stride(buffer.dim(int(base)).stride() * dim.multiple);
      } else {
        // CUDA reads and writes four elements at once where their address is a multiple of as many.
        const bool fours = workload.target.has_feature(Target::CUDA) && workload.problem.layout == Layout::channels_last && stride % 4 == 0;
        buffer.dim(int(d)).set_stride(fours ? buffer.dim(int(d)).stride() / 4 * 4 : Expr());
      }
    }
  }

  std::vector<BufferSpec> specs_;
  std::vector<Input<Buffer<>> *> inputs_;
  std::map<int, Input<int32_t> *> sizes_;
  std::vector<Output<Buffer<>> *> outputs_;
};

}  // namespace

Module build_kernel(const Workload &w, const std::string &name,
                    const std::function<void(Stages &, const Workload &)> &schedule, const Buffer<> &weight,
                    const AutoschedulerParams &scheduler, const std::function<void(Pipeline &)> &lower) {
  auto generator = ConvKernel::create(GeneratorContext(w.target, scheduler));
  generator->workload = w;
  generator->schedule = schedule;
  generator->lower = lower;
  generator->weight = weight;
  return generator->build_module(name);
}

std::vector<BufferSpec> kernel_buffers(const Workload &w, bool constant_weight) {
  std::vector<BufferSpec> specs = find_operator(w).buffers(w);
  if (constant_weight) std::erase_if(specs, [](const BufferSpec &s) { return s.name == "weight"; });
  return specs;
}

std::vector<ImageParam> described_inputs(const Workload &w) {
  std::vector<ImageParam> inputs;
  const auto specs = find_operator(w).buffers(w);
  for (size_t i = 0; i + size_t(output_count(w)) < specs.size(); i++)
    inputs.emplace_back(specs[i].type, int(specs[i].dims.size()), specs[i].name);
  return inputs;
}

Workload with_described_sizes(Workload w) {
  set_sizes(w, [&](int size) { return Expr(Param<int32_t>("size_" + size_name(w.problem, size))); });
  return w;
}

}  // namespace convsmith
