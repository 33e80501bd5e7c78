// Looks inside Halide: the allocations of a lowered module, and the kernels that it starts on a device.
#include "workspace.h"
#include <map>
#include <optional>
#include <stdexcept>
#include "generators/stages.h"

using namespace Halide;

namespace convsmith {
namespace {

// An expression of sizes in C.
class CText : public Internal::IRVisitor {
 public:
  explicit CText(const std::map<std::string, int> &sizes) : sizes_(sizes) {}
  std::string operator()(const Expr &e) {
    text_.clear();
    e.accept(this);
    return text_;
  }

 private:
  using IRVisitor::visit;

  void call(const char *open, const Expr &a, const char *between, const Expr &b, const char *close = ")") {
    text_ += open, a.accept(this), text_ += between, b.accept(this), text_ += close;
  }
  void visit(const Internal::IntImm *op) override { text_ += "(int64_t)" + std::to_string(op->value); }
  void visit(const Internal::UIntImm *op) override { text_ += std::to_string(op->value); }
  void visit(const Internal::Cast *op) override { op->value.accept(this); }
  void visit(const Internal::Let *op) override {
    std::string before;
    before.swap(text_);
    op->value.accept(this);
    lets_[op->name] = text_;
    text_.swap(before);
    op->body.accept(this);
  }
  void visit(const Internal::Variable *op) override {
    if (const auto let = lets_.find(op->name); let != lets_.end()) {
      text_ += let->second;
      return;
    }
    const auto size = sizes_.find(op->name);
    if (size == sizes_.end()) throw std::logic_error("workspace: an extent hangs on " + op->name);
    text_ += "s[" + std::to_string(size->second) + "]";
  }
  void visit(const Internal::Add *op) override { call("(", op->a, " + ", op->b); }
  void visit(const Internal::Sub *op) override { call("(", op->a, " - ", op->b); }
  void visit(const Internal::Mul *op) override { call("(", op->a, " * ", op->b); }
  void visit(const Internal::Div *op) override { call("quotient(", op->a, ", ", op->b); }
  void visit(const Internal::Mod *op) override { call("modulo(", op->a, ", ", op->b); }
  void visit(const Internal::Min *op) override { call("smaller(", op->a, ", ", op->b); }
  void visit(const Internal::Max *op) override { call("larger(", op->a, ", ", op->b); }
  void visit(const Internal::LT *op) override { call("(", op->a, " < ", op->b); }
  void visit(const Internal::LE *op) override { call("(", op->a, " <= ", op->b); }
  void visit(const Internal::GT *op) override { call("(", op->a, " > ", op->b); }
  void visit(const Internal::GE *op) override { call("(", op->a, " >= ", op->b); }
  void visit(const Internal::EQ *op) override { call("(", op->a, " == ", op->b); }
  void visit(const Internal::NE *op) override { call("(", op->a, " != ", op->b); }
  void visit(const Internal::And *op) override { call("(", op->a, " && ", op->b); }
  void visit(const Internal::Or *op) override { call("(", op->a, " || ", op->b); }
  void visit(const Internal::Not *op) override { text_ += "!", op->a.accept(this); }
  void visit(const Internal::Select *op) override {
    call("(", op->condition, " ? ", op->true_value, " : "), text_.pop_back(), op->false_value.accept(this), text_ += ")";
  }
  void visit(const Internal::Call *op) override {
    if (op->is_intrinsic(Call::likely) || op->is_intrinsic(Call::likely_if_innermost)) op->args[0].accept(this);
    else throw std::logic_error("workspace: an extent hangs on a call of " + op->name);
  }
  using Call = Internal::Call;

  const std::map<std::string, int> &sizes_;
  std::map<std::string, std::string> lets_;
  std::string text_;
};

class Allocations : public Internal::IRVisitor {
 public:
  Expr serial = Internal::make_zero(Int(64)), task = Internal::make_zero(Int(64));

  Allocations(const Module &module, const std::map<std::string, int> &sizes) {
    for (auto &[name, size] : sizes) known_[name] = Internal::Interval::single_point(Internal::Variable::make(Int(32), name));
    // A loop's bounds are where it is started, so that its body comes after.
    const auto is_body = [](const Internal::LoweredFunc &f) { return f.linkage == LinkageType::Internal; };
    for (const Internal::LoweredFunc &f : module.functions())
      if (!is_body(f)) f.body.accept(this);
    in_task_ = true;
    for (const Internal::LoweredFunc &f : module.functions()) {
      if (!is_body(f)) continue;
      const auto loop = parallel_loops_.find(f.name);
      if (loop == parallel_loops_.end()) throw std::logic_error("workspace: no loop has the body " + f.name);
      Internal::ScopedBinding<Internal::Interval> bind(bounds_, f.args.at(1).name, loop->second);
      f.body.accept(this);
    }
  }

 private:
  using IRVisitor::visit;
  static constexpr int slack = 256;  // alignment and the margin that vectors may touch
  static constexpr std::int64_t on_stack = 16 * 1024;

  void visit(const Internal::Allocate *op) override {
    Expr bytes = Internal::make_const(Int(64), op->type.bytes());
    bool constant = true;
    for (const Expr &e : op->extents) {
      const Expr upper = end_of(e, Internal::Direction::Upper);
      constant &= Internal::is_const(e);
      if (!upper.defined()) throw std::logic_error("workspace: no bound on the extents of " + op->name);
      bytes = Internal::simplify(bytes * cast<std::int64_t>(upper));
    }
    bytes = Internal::simplify(bytes + op->padding * op->type.bytes());
    const bool heap = op->memory_type == MemoryType::Heap ||
                      (op->memory_type == MemoryType::Auto &&
                       (!constant || !Internal::as_const_int(bytes) || *Internal::as_const_int(bytes) > on_stack));
    Expr &now = in_task_ ? task_now_ : serial_now_, &most = in_task_ ? task : serial;
    const Expr before = now;
    if (heap) now = Internal::simplify(now + bytes + slack), most = Internal::simplify(max(most, now));
    IRVisitor::visit(op);
    now = before;
  }

  void visit(const Internal::For *op) override {
    Internal::ScopedBinding<Internal::Interval> bind(bounds_, op->name, between(op->min, op->min + op->extent - 1));
    IRVisitor::visit(op);
  }

  void visit(const Internal::LetStmt *op) override {
    op->value.accept(this);
    // The body of a parallel loop reads what was known around the loop, under the same names, from its closure.
    Internal::Interval interval = between(op->value, op->value);
    if (interval.is_everything() && known_.count(op->name)) interval = known_.at(op->name);
    else known_[op->name] = interval;
    Internal::ScopedBinding<Internal::Interval> bind(bounds_, op->name, interval);
    op->body.accept(this);
  }

  // halide_do_par_for(::body, min, extent, closure)
  void visit(const Internal::Call *op) override {
    IRVisitor::visit(op);
    if (op->name != "halide_do_par_for") return;
    const Internal::Variable *body = op->args.at(0).as<Internal::Variable>();
    if (!body || body->name.substr(0, 2) != "::") throw std::logic_error("workspace: a parallel loop without a body");
    parallel_loops_[body->name.substr(2)] = between(op->args[1], op->args[1] + op->args[2] - 1);
  }

  // A number where there is one, else an expression of what no loop and no name within the function sets.
  Expr end_of(const Expr &e, Internal::Direction direction) const {
    const Expr number = Internal::find_constant_bound(e, direction, bounds_);
    if (number.defined() && Internal::as_const_int(number)) return number;
    const Internal::Interval i = Internal::bounds_of_expr_in_scope(e, bounds_);
    if (direction == Internal::Direction::Upper) return i.has_upper_bound() ? Internal::simplify(i.max) : Expr();
    return i.has_lower_bound() ? Internal::simplify(i.min) : Expr();
  }

  Internal::Interval between(const Expr &first, const Expr &last) const {
    Internal::Interval i = Internal::Interval::everything();
    if (!first.type().is_int_or_uint()) return i;
    const Expr lo = end_of(first, Internal::Direction::Lower), hi = end_of(Internal::simplify(last), Internal::Direction::Upper);
    if (lo.defined()) i.min = lo;
    if (hi.defined()) i.max = hi;
    return i;
  }

  Internal::Scope<Internal::Interval> bounds_;
  std::map<std::string, Internal::Interval> known_;
  std::map<std::string, Internal::Interval> parallel_loops_;
  Expr serial_now_ = Internal::make_zero(Int(64)), task_now_ = Internal::make_zero(Int(64));
  bool in_task_ = false;
};

// halide_API_run(module, name, blocks in x, y, z, threads in x, y, z, bytes of shared memory, …)
class Launches : public Internal::IRVisitor {
 public:
  std::vector<KernelLaunch> found;

 private:
  using IRVisitor::visit;
  void visit(const Internal::Call *op) override {
    IRVisitor::visit(op);
    if (op->name.size() < 4 || op->name.rfind("halide_", 0) || op->name.substr(op->name.size() - 4) != "_run" || op->args.size() < 9) return;
    const auto *name = op->args[1].as<Internal::StringImm>();
    const auto number = [&](size_t i) { return int(Internal::as_const_int(Internal::simplify(op->args[i])).value_or(-1)); };
    const int x = number(5), y = number(6), z = number(7);
    found.push_back({name ? name->value : "", x < 0 || y < 0 || z < 0 ? -1 : x * y * z, number(8)});
  }
};

std::string text_of(const Expr &e, const std::map<std::string, int> &sizes) {
  if (const auto number = Internal::as_const_int(e)) return std::to_string(*number);
  return CText(sizes)(e);
}

}  // namespace

Workspace workspace_of(const Module &module, const Problem &p, const std::vector<int> &sizes) {
  std::map<std::string, int> named;
  for (const int size : sizes) named["size_" + size_name(p, size)] = size;
  const Allocations a(module, named);
  return {text_of(a.serial, named), text_of(a.task, named)};
}

std::vector<KernelLaunch> launches_of(const Module &module) {
  Launches l;
  for (const Internal::LoweredFunc &f : module.functions()) f.body.accept(&l);
  return l.found;
}

}  // namespace convsmith
