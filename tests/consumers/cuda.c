/* A program that has a context and a stream of CUDA already, and memory there, and calls a kernel in and on them. */
#include <stdint.h>
#include <stdio.h>
#include "photo.h"

int main(void) {
  static float x[192], y[48], weight[9], context[1], stream[1]; /* their addresses stand for the driver's */
  static float pixels[6 * 33], room[48 + 3];
  float *memory = (float *)(((uintptr_t)room + 15) / 16 * 16); /* as a device's is */
  photo_blur_forward_args call;
  photo_mix_forward_args mix;
  convsmith_error error;
  const convsmith_device *gpu = photo_library()->device;
  int i;
  printf("at %p %p\n", (void *)context, (void *)stream);
  if (gpu->cuda->use(context, stream, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  printf("%s\n", photo_level());
  for (i = 0; i < 48; i++) x[i] = (float)i;
  photo_blur_forward_init(&call);
  call.x.data = x, call.weight.data = weight;
  if (gpu->to_device(&call.x, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  for (i = 0; i < 48; i++) x[i] = 0; /* what to_device has read is ours again */
  if (gpu->cuda->wrap(&call.y, (uint64_t)(uintptr_t)memory, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  printf("wrapped %d\n", gpu->cuda->memory(&call.y) == (uint64_t)(uintptr_t)memory);
  if (photo_blur_forward(&call, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  if (gpu->to_host(&call.x, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  printf("back %g\n", x[47]);
  memory[47] = 3, call.y.data = y;
  if (gpu->to_host(&call.y, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  printf("from ours %g\n", y[47]);
  gpu->release(&call.x), gpu->release(&call.y);
  if (gpu->cuda->wrap(&call.y, (uint64_t)(uintptr_t)(memory + 1), &error) != CONVSMITH_OK) printf("%.44s\n", error.message);
  photo_mix_forward_init(&mix);
  mix.x.data = pixels, mix.weight.data = memory, mix.y.data = x;
  mix.x.stride[2] = 33; /* four channels, but not every row at a multiple of four */
  if (photo_mix_forward(&mix, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  if (gpu->cuda->leave(context, &error) != CONVSMITH_OK) printf("%s\n", error.message);
  return 0;
}
