/* A mean filter applied twice on a GPU: its tensors are copied there once, and the last result back. */
#include <stdio.h>
#include "photo.h"

int main(void) {
  static float x[48], y[48], weight[9];
  photo_blur_forward_args call;
  convsmith_error error;
  convsmith_copies before, copies;
  const convsmith_device *gpu = photo_library()->device;
  int i;
  if (photo_set_level("any", &error) != CONVSMITH_OK) printf("%s\n", error.message);
  printf("%s\n", photo_level());
  for (i = 0; i < 48; i++) x[i] = (float)(i % 8);
  for (i = 0; i < 9; i++) weight[i] = 1;
  photo_blur_forward_init(&call);
  call.x.data = x, call.weight.data = weight, call.y.data = y;
  before = gpu->copies();
  if (gpu->to_device(&call.x, &error) != CONVSMITH_OK || gpu->to_device(&call.weight, &error) != CONVSMITH_OK ||
      gpu->to_device(&call.y, &error) != CONVSMITH_OK)
    printf("%s\n", error.message);
  for (i = 0; i < 2; i++) {
    convsmith_tensor written = call.y;
    if (photo_blur_forward(&call, &error) != CONVSMITH_OK) printf("%s\n", error.message);
    call.y = call.x, call.x = written;
  }
  if (gpu->to_host(&call.x, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  copies = gpu->copies();
  printf("%ld bytes there, %ld back\n", (long)(copies.to_device - before.to_device), (long)(copies.to_host - before.to_host));
  /* In the middle each application multiplies a ramp by nine. */
  printf("%g %g\n", ((float *)call.x.data)[3 * 8 + 3], ((float *)call.x.data)[3 * 8 + 4] - ((float *)call.x.data)[3 * 8 + 3]);
  gpu->release(&call.x), gpu->release(&call.y), gpu->release(&call.weight);
  return 0;
}
