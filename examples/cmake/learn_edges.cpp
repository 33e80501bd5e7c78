// Learns the kernel [1, -1] from an image of a dark band and its edges, with kernels that are linked in.
#include <cstdio>
#include "convsmith/error.h"
#include "convsmith/trainer.h"
#include "filters.h"

using convsmith::Conv, convsmith::Tensor;

namespace {

Tensor row(float left, float right) {
  const Tensor weight({1, 1, 1, 2});
  weight.at({0, 0, 0, 0}) = left;
  weight.at({0, 0, 0, 1}) = right;
  return weight;
}

void learn() {
  const convsmith::Library library(filters_library());
  Conv conv(library, "edges");

  const Tensor image({1, 1, 6, 8});  // ones, with columns 2 to 5 zero
  for (int h = 0; h < 6; h++)
    for (int w : {0, 1, 6, 7}) image.at({0, 0, h, w}) = 1;
  conv.set_weight(row(1, -1));
  const Tensor edges = conv.forward(image).clone();

  conv.set_weight(row(-0.58187f, 0.03947f));
  convsmith::TrainOptions options;
  options.steps = 10;
  options.rate = 0.03;
  options.loss = convsmith::Loss::parse("sum_squared");
  convsmith::train(conv, image, edges, options, [](const convsmith::Progress &p) {
    std::printf("step %2d: loss %.3f\n", p.step, p.loss);
    return true;
  });
  std::printf("learnt: %.4f %.4f\n", conv.weight().at({0, 0, 0, 0}), conv.weight().at({0, 0, 0, 1}));
}

}  // namespace

int main() {
  try {
    learn();
  } catch (const convsmith::Error &e) {
    std::fprintf(stderr, "learn_edges: %s\n", e.what());
    return 1;
  }
}
