#include "convsmith/loss.h"
#include "convsmith/error.h"
#include "rows.h"

namespace convsmith {
namespace {

void check(const Tensor &y, const Tensor &other, const char *name) {
  if (y.type() == CONVSMITH_F32 && other.type() == CONVSMITH_F32 && y.shape() == other.shape() && other.defined())
    return;
  throw Error(std::string("loss: expected ") + name + " of " + shape_text(y.shape()) + " and f32, got " +
              shape_text(other.shape()) + " of " + type_name(other.type()));
}

double scale_of(Loss::Kind kind, const Tensor &y) {
  return kind == Loss::Kind::sum_squared || y.elements() == 0 ? 1 : 1 / static_cast<double>(y.elements());
}

}  // namespace

Loss Loss::parse(std::string_view text) {
  for (Loss loss : {Loss{Kind::sum_squared}, Loss{Kind::mean_squared}}) {
    if (text == loss.name()) return loss;
  }
  throw Error("loss: expected sum_squared or mean_squared, got " + std::string(text));
}

const char *Loss::name() const { return kind == Kind::sum_squared ? "sum_squared" : "mean_squared"; }

double Loss::operator()(const Tensor &y, const Tensor &target, const Tensor &dy) const {
  check(y, y, "y");
  check(y, target, "the target");
  check(y, dy, "dy");
  const double scale = scale_of(kind, y);
  const float *from = y.data<float>(), *wanted = target.data<float>();
  float *gradient = dy.data<float>();
  double sum = 0;
  for_each_row<3>(y.shape(), {y.strides(), target.strides(), dy.strides()}, [&](const Row<3> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      const double difference =
          static_cast<double>(from[row.offset[0] + i * row.step[0]]) - wanted[row.offset[1] + i * row.step[1]];
      sum += difference * difference;
      gradient[row.offset[2] + i * row.step[2]] = static_cast<float>(2 * scale * difference);
    }
  });
  return scale * sum;
}

double Loss::value(const Tensor &y, const Tensor &target) const {
  check(y, y, "y");
  check(y, target, "the target");
  const float *from = y.data<float>(), *wanted = target.data<float>();
  double sum = 0;
  for_each_row<2>(y.shape(), {y.strides(), target.strides()}, [&](const Row<2> &row) {
    for (std::int64_t i = 0; i < row.length; i++) {
      const double difference =
          static_cast<double>(from[row.offset[0] + i * row.step[0]]) - wanted[row.offset[1] + i * row.step[1]];
      sum += difference * difference;
    }
  });
  return scale_of(kind, y) * sum;
}

}  // namespace convsmith
