/* A layer of bytes at every level that this processor can take, against the plain loops. */
#include <stdio.h>
#include <string.h>
#include "demo.h"

enum { ic = 13, oc = 20, height = 7, width = 9 };

static uint8_t x[height][width][ic];
static int8_t weight[oc][ic][3][3], packed[4 * oc * ((ic + 3) / 4) * 9];
static int32_t y[height][width][oc], x_zero = 131, w_zero = -3;

static int32_t expected(int i, int j, int o) {
  int32_t sum = 0;
  int c, a, b;
  for (c = 0; c < ic; c++)
    for (a = 0; a < 3; a++)
      for (b = 0; b < 3; b++) {
        const int from_i = i + a - 1, from_j = j + b - 1;
        if (from_i < 0 || from_i >= height || from_j < 0 || from_j >= width) continue;
        sum += (x[from_i][from_j][c] - x_zero) * (weight[o][c][a][b] - w_zero);
      }
  return sum;
}

int main(void) {
  const convsmith_library *library = demo_library();
  demo_bytes_pack_weight_args pack;
  demo_bytes_forward_args forward;
  convsmith_error error = {CONVSMITH_OK, ""};
  int i, j, o, level;
  for (i = 0; i < (int)sizeof x; i++) (&x[0][0][0])[i] = (uint8_t)(i * 89 % 256);
  for (i = 0; i < (int)sizeof weight; i++) (&weight[0][0][0][0])[i] = (int8_t)(i * 61 % 256 - 128);
  demo_bytes_pack_weight_init(&pack);
  demo_bytes_forward_init(&forward);
  pack.from.data = weight, pack.weight.data = packed;
  forward.x.data = x, forward.weight.data = packed, forward.y.data = y;
  forward.x_zero.data = &x_zero, forward.w_zero.data = &w_zero;
  for (level = 0; level < library->level_count; level++) {
    int wrong = 0;
    if (demo_set_level(library->levels[level], &error) != CONVSMITH_OK) continue;
    memset(y, 0, sizeof y);
    if (demo_bytes_pack_weight(&pack, &error) != CONVSMITH_OK || demo_bytes_forward(&forward, &error) != CONVSMITH_OK)
      printf("%s\n", error.message);
    for (i = 0; i < height; i++)
      for (j = 0; j < width; j++)
        for (o = 0; o < oc; o++) wrong += y[i][j][o] != expected(i, j, o);
    printf("%s: %d wrong\n", demo_level(), wrong);
  }
  return 0;
}
