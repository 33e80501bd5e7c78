/* A program that has nothing but an emitted archive and a C compiler: finds the edges of a dark band, then learns the
   kernel that found them. */
#include <stdio.h>
#include <string.h>
#include "demo.h"

enum { height = 6, width = 8 };

static int failed(const convsmith_error *error) {
  printf("%d: %s\n", (int)error->status, error->message);
  return 1;
}

int main(void) {
  static float x[height][width], y[height][width - 1];
  const float edge[2] = {1, -1};
  float weight[2] = {-0.58187f, 0.03947f}, next[2], rate = 0.03f, loss;
  demo_edge_forward_args forward;
  demo_edge_train_step_args step;
  convsmith_error error;
  int i, j;

  for (i = 0; i < height; i++)
    for (j = 0; j < width; j++) x[i][j] = j < 2 || j > 5;
  demo_edge_forward_init(&forward);
  forward.x.data = x, forward.weight.data = (void *)edge, forward.y.data = y;
  if (demo_edge_forward(&forward, &error) != CONVSMITH_OK) return failed(&error);
  for (i = 0; i < height; i++)
    for (j = 0; j < width - 1; j++) printf("%g%c", y[i][j], j < width - 2 ? ' ' : '\n');

  demo_edge_train_step_init(&step);
  step.x.data = x, step.weight.data = weight, step.target.data = y, step.rate.data = &rate;
  step.weight_out.data = next, step.loss.data = &loss;
  for (i = 1; i <= 10; i++) {
    if (demo_edge_train_step(&step, &error) != CONVSMITH_OK) return failed(&error);
    memcpy(weight, next, sizeof weight);
    if (i % 2 == 0) printf("step %d, loss %.3f\n", i, loss);
  }
  printf("%.4f %.4f\n", weight[0], weight[1]);
  return 0;
}
