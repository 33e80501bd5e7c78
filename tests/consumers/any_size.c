/* One kernel at two sizes: a 5x5 mean over reflected borders of small integers, against the plain loops. */
#include <stdio.h>
#include <stdlib.h>
#include "open.h"

static int reflected(int i, int count) { return i < 0 ? -i : i >= count ? 2 * (count - 1) - i : i; }

static int wrong_at(int height, int width) {
  float *x = (float *)malloc((size_t)(height * width) * sizeof(float));
  float *y = (float *)malloc((size_t)(height * width) * sizeof(float)), weight[25];
  open_mirror_forward_args call;
  convsmith_error error;
  int i, j, a, b, wrong = 0;
  for (i = 0; i < height * width; i++) x[i] = (float)(i * 7 % 11 - 5), y[i] = 77;
  for (i = 0; i < 25; i++) weight[i] = (float)(i % 5 - 2);
  open_mirror_forward_init(&call, height, width);
  call.x.data = x, call.weight.data = weight, call.y.data = y;
  if (open_mirror_forward(&call, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  if (open_mirror_forward_workspace(height, width, 1) > (size_t)1 << 20) printf("that much memory?\n");
  for (i = 0; i < height; i++)
    for (j = 0; j < width; j++) {
      float sum = 0;
      for (a = 0; a < 5; a++)
        for (b = 0; b < 5; b++)
          sum += weight[a * 5 + b] * x[reflected(i + a - 2, height) * width + reflected(j + b - 2, width)];
      wrong += y[i * width + j] != sum;
    }
  free(x), free(y);
  return wrong;
}

int main(void) {
  printf("5x6: %d wrong\n", wrong_at(5, 6));
  printf("31x17: %d wrong\n", wrong_at(31, 17));
  return 0;
}
