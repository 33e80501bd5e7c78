#include "device_code.h"
#include <unistd.h>
#include <iostream>

using namespace Halide;
using namespace Halide::Internal;

namespace convsmith {
namespace {

bool narrow(const Halide::Type &t) { return t.is_float() && t.bits() == 16; }
Halide::Type bits_of(const Halide::Type &t) { return narrow(t) ? UInt(16, t.lanes()) : t; }

class AsBits : public IRMutator {
  using IRMutator::visit;

  Expr visit(const FloatImm *op) override {
    if (!narrow(op->type)) return op;
    return make_const(bits_of(op->type), int64_t(op->type.is_bfloat() ? bfloat16_t(op->value).to_bits() : float16_t(op->value).to_bits()));
  }
  Expr visit(const Variable *op) override {
    return narrow(op->type) ? Variable::make(bits_of(op->type), op->name, op->image, op->param, op->reduction_domain) : Expr(op);
  }
  Expr visit(const Cast *op) override {
    return narrow(op->type) || narrow(op->value.type()) ? mutate(lower_float16_cast(op)) : IRMutator::visit(op);
  }
  Expr visit(const Reinterpret *op) override {
    const Expr value = mutate(op->value);
    return value.type() == bits_of(op->type) ? value : Reinterpret::make(bits_of(op->type), value);
  }
  Expr visit(const Load *op) override {
    return Load::make(bits_of(op->type), op->name, mutate(op->index), op->image, op->param, mutate(op->predicate), op->alignment);
  }
  Stmt visit(const Allocate *op) override {
    std::vector<Expr> extents;
    for (auto &e : op->extents) extents.push_back(mutate(e));
    return Allocate::make(op->name, bits_of(op->type), op->memory_type, extents, mutate(op->condition), mutate(op->body), op->new_expr,
                          op->free_function, op->padding);
  }
  Expr visit(const Call *op) override {
    if (!narrow(op->type)) return IRMutator::visit(op);
    if (!op->is_intrinsic()) refuse(op->name);
    std::vector<Expr> arguments;
    for (auto &a : op->args) arguments.push_back(mutate(a));
    return Call::make(bits_of(op->type), op->name, arguments, op->call_type, op->func, op->value_index, op->image, op->param);
  }

  // All arithmetic is in f32: on the bits it would be wrong.
  template<class Op> Expr checked(const Op *op, const char *name) {
    if (narrow(op->a.type())) refuse(name);
    return IRMutator::visit(op);
  }
  Expr visit(const Add *op) override { return checked(op, "+"); }
  Expr visit(const Sub *op) override { return checked(op, "-"); }
  Expr visit(const Mul *op) override { return checked(op, "*"); }
  Expr visit(const Div *op) override { return checked(op, "/"); }
  Expr visit(const Mod *op) override { return checked(op, "%"); }
  Expr visit(const Min *op) override { return checked(op, "min"); }
  Expr visit(const Max *op) override { return checked(op, "max"); }
  Expr visit(const EQ *op) override { return checked(op, "=="); }
  Expr visit(const NE *op) override { return checked(op, "!="); }
  Expr visit(const LT *op) override { return checked(op, "<"); }
  Expr visit(const LE *op) override { return checked(op, "<="); }
  Expr visit(const GT *op) override { return checked(op, ">"); }
  Expr visit(const GE *op) override { return checked(op, ">="); }

  // An exception would not unwind through Halide's library.
  [[noreturn]] static void refuse(const std::string &what) {
    std::cerr << "a kernel computes " << what << " of 16-bit floats: expected f32" << std::endl;
    _exit(3);
  }
};

// LLVM 21 makes PTX of a vector's conversion to f16 that stores halves of the f32's bits.
class ToBits : public IRMutator {
  using IRMutator::visit;

  Expr visit(const Cast *op) override { return narrow(op->type) ? mutate(lower_float16_cast(op)) : IRMutator::visit(op); }
};

// OpenCL and Vulkan leave assertions out of kernels; of some that it cannot prove Halide keeps the message, a call that PTX has not.
class WithoutAssertions : public IRMutator {
  using IRMutator::visit;

  Stmt visit(const For *op) override {
    const bool within = within_;
    within_ |= is_gpu(op->for_type);
    Stmt s = IRMutator::visit(op);
    within_ = within;
    return s;
  }
  Stmt visit(const AssertStmt *op) override { return within_ ? Evaluate::make(0) : IRMutator::visit(op); }

  bool within_ = false;
};

}  // namespace

void mend_device_code(Pipeline &pipeline, bool floats_as_bits) {
  pipeline.add_custom_lowering_pass(new WithoutAssertions);
  if (floats_as_bits) pipeline.add_custom_lowering_pass(new AsBits);
  else pipeline.add_custom_lowering_pass(new ToBits);
}

}  // namespace convsmith
