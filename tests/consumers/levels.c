/* Which instruction level a processor gets, and whether every level that it can take is right: a 3x3 layer on small
   integers against the plain loops, in which every sum is exact. */
#include <stdio.h>
#include <string.h>
#include "demo.h"

enum { ic = 5, oc = 7, height = 9, width = 11 };

static float x[height][width][ic], y[height][width][oc], weight[oc][ic][3][3], bias[oc], packed[oc * ic * 9];

static float expected(int i, int j, int o) {
  float sum = bias[o];
  int c, a, b;
  for (c = 0; c < ic; c++)
    for (a = 0; a < 3; a++)
      for (b = 0; b < 3; b++) {
        const int from_i = i + a - 1, from_j = j + b - 1;
        if (from_i < 0 || from_i >= height || from_j < 0 || from_j >= width) continue;
        sum += x[from_i][from_j][c] * weight[o][c][a][b];
      }
  return sum > 0 ? sum : 0;
}

static void check_layer(const char *level) {
  demo_odd_pack_weight_args pack;
  demo_odd_forward_args forward;
  convsmith_error error = {CONVSMITH_OK, ""};
  int i, j, o, wrong = 0;
  demo_odd_pack_weight_init(&pack);
  demo_odd_forward_init(&forward);
  pack.from.data = weight, pack.weight.data = packed;
  forward.x.data = x, forward.weight.data = packed, forward.bias.data = bias, forward.y.data = y;
  memset(packed, 0, sizeof packed);
  memset(y, 0, sizeof y);
  if (demo_odd_pack_weight(&pack, &error) != CONVSMITH_OK || demo_odd_forward(&forward, &error) != CONVSMITH_OK)
    printf("%s: %s\n", level, error.message);
  for (i = 0; i < height; i++)
    for (j = 0; j < width; j++)
      for (o = 0; o < oc; o++) wrong += y[i][j][o] != expected(i, j, o);
  printf("%s: %d wrong\n", level, wrong);
}

int main(void) {
  const convsmith_library *library = demo_library();
  int i;
  for (i = 0; i < (int)(sizeof x / sizeof(float)); i++) (&x[0][0][0])[i] = (float)(i * 7 % 11 - 5);
  for (i = 0; i < (int)(sizeof weight / sizeof(float)); i++) (&weight[0][0][0][0])[i] = (float)(i * 5 % 13 - 6);
  for (i = 0; i < oc; i++) bias[i] = (float)(i - 3);
  printf("chosen: %s\n", demo_level());
  check_layer(demo_level());
  for (i = 0; i < library->level_count; i++) {
    const char *name = library->levels[i], *before = demo_level();
    convsmith_error error = {CONVSMITH_OK, ""};
    const convsmith_status status = demo_set_level(name, &error);
    if (status != CONVSMITH_OK) {
      printf("%s: status %d, stays %s: %s\n", name, (int)status, demo_level() == before ? "so" : "not", error.message);
      continue;
    }
    check_layer(demo_level());
  }
  return 0;
}
