/* Blurs a photograph (PPM, 512x512) with the kernel that was learnt and compiled in: blur in.ppm out.ppm */
#include "photo.h"
#include <math.h>
#include <stdio.h>

enum { SIDE = 512, PIXELS = SIDE * SIDE };
static unsigned char rgb[3 * PIXELS];
static float before[3 * PIXELS], after[3 * PIXELS];

int main(int argc, char **argv) {
  int i, c;
  photo_blur_forward_args call;
  convsmith_error error;
  FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out;
  if (!in || fscanf(in, "P6 512 512 255%*c") != 0 || fread(rgb, 1, sizeof rgb, in) != sizeof rgb)
    return fprintf(stderr, "usage: blur in.ppm out.ppm, the former 512x512\n"), 2;
  fclose(in);
  for (i = 0; i < PIXELS; i++)
    for (c = 0; c < 3; c++) before[c * PIXELS + i] = rgb[3 * i + c] / 255.0f;

  photo_blur_forward_init(&call); /* extents and strides; the pointers are ours */
  call.x.data = before, call.y.data = after;
  if (photo_blur_forward(&call, &error) != CONVSMITH_OK) return fprintf(stderr, "%s\n", error.message), 1;

  for (i = 0; i < PIXELS; i++)
    for (c = 0; c < 3; c++) rgb[3 * i + c] = (unsigned char)lrintf(255 * fminf(fmaxf(after[c * PIXELS + i], 0), 1));
  out = fopen(argv[2], "wb");
  if (!out || fprintf(out, "P6\n512 512\n255\n") < 0 || fwrite(rgb, 1, sizeof rgb, out) != sizeof rgb || fclose(out))
    return fprintf(stderr, "%s: could not be written\n", argv[2]), 2;
  printf("blurred at level %s\n", photo_level());
  return 0;
}
