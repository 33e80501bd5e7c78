#include "kernel_generator.h"

using namespace Halide;

namespace convsmith {
namespace {

class ConvKernel : public Generator<ConvKernel> {
 public:
  Workload workload;
  std::function<void(Stages &)> schedule;
  Buffer<float> weight;

  // Inputs and outputs are declared here, as their ranks and names hang on the problem.
  void configure() {
    specs_ = find_operator(workload).buffers(workload);
    const size_t inputs = specs_.size() - output_count(workload);
    for (size_t i = 0; i < inputs; i++) {
      if (is_constant(specs_[i])) inputs_.push_back(nullptr);
      else inputs_.push_back(add_input<Buffer<float>>(symbol(specs_[i]), int(specs_[i].dims.size())));
    }
    for (size_t i = inputs; i < specs_.size(); i++)
      outputs_.push_back(add_output<Buffer<float>>(symbol(specs_[i]), int(specs_[i].dims.size())));
  }

  void generate() {
    std::vector<Func> funcs;
    for (size_t i = 0; i < inputs_.size(); i++) {
      if (inputs_[i]) {
        constrain(*inputs_[i], specs_[i]);
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
    schedule(s);
    s.results.insert(s.results.begin(), s.out);
    for (size_t i = 0; i < outputs_.size(); i++) {
      *outputs_[i] = s.results[i];
      constrain(*outputs_[i], specs_[inputs_.size() + i]);
    }
  }

 private:
  // A Generator keeps some names, as "target", for itself.
  static std::string symbol(const BufferSpec &spec) { return spec.name + "_buffer"; }

  bool is_constant(const BufferSpec &spec) const { return weight.defined() && spec.name == "weight"; }

  // Extents are fixed; so are the strides of the innermost axes. A dimension that is a multiple of another's axis
  // (a group of channels) keeps that ratio.
  template<class T> static void constrain(T &buffer, const BufferSpec &spec) {
    int stride = 1;
    std::vector<int> dense(spec.shape.size(), 0);
    for (int i = 0; i < spec.fixed; i++) {
      dense[spec.memory[i]] = stride;
      stride *= int(spec.shape[spec.memory[i]]);
    }
    for (size_t d = 0; d < spec.dims.size(); d++) {
      const auto &dim = spec.dims[d];
      buffer.dim(int(d)).set_bounds(0, dim.extent);
      if (dense[dim.axis]) {
        buffer.dim(int(d)).set_stride(dense[dim.axis] * dim.multiple);
      } else if (dim.multiple > 1) {
        for (size_t base = 0; base < d; base++)
          if (spec.dims[base].axis == dim.axis) buffer.dim(int(d)).set_stride(buffer.dim(int(base)).stride() * dim.multiple);
      } else {
        buffer.dim(int(d)).set_stride(Expr());
      }
    }
  }

  std::vector<BufferSpec> specs_;
  std::vector<Input<Buffer<float>> *> inputs_;
  std::vector<Output<Buffer<float>> *> outputs_;
};

}  // namespace

Module build_kernel(const Workload &w, const std::string &name, const std::function<void(Stages &)> &schedule,
                    const Buffer<float> &weight) {
  auto generator = ConvKernel::create(GeneratorContext(w.target));
  generator->workload = w;
  generator->schedule = schedule;
  generator->weight = weight;
  return generator->build_module(name);
}

std::vector<BufferSpec> kernel_buffers(const Workload &w, bool constant_weight) {
  std::vector<BufferSpec> specs = find_operator(w).buffers(w);
  if (constant_weight) std::erase_if(specs, [](const BufferSpec &s) { return s.name == "weight"; });
  return specs;
}

}  // namespace convsmith
