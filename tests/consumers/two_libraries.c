/* A host program with a Halide run-time of its own and two emitted libraries: none of the three knows of the others. */
#include <stdio.h>
#include <stdlib.h>
#include "demo.h"
#include "other.h"

/* The host's own run-time. */
extern int halide_set_num_threads(int n);
extern void halide_error(void *user_context, const char *message);
extern void *halide_malloc(void *user_context, size_t bytes);
extern void halide_free(void *user_context, void *memory);
extern void (*halide_set_error_handler(void (*handler)(void *, const char *)))(void *, const char *);
extern void *(*halide_set_custom_malloc(void *(*allocate)(void *, size_t)))(void *, size_t);
extern void (*halide_set_custom_free(void (*release)(void *, void *)))(void *, void *);

static int host_errors, host_allocations, refused;

static void on_host_error(void *user_context, const char *message) {
  (void)user_context, (void)message;
  host_errors++;
}

static void *host_allocate(void *user_context, size_t bytes) {
  (void)user_context;
  host_allocations++;
  return malloc(bytes);
}

static void host_release(void *user_context, void *memory) {
  (void)user_context;
  free(memory);
}

static void *no_memory(void *user, size_t bytes) {
  (void)user, (void)bytes;
  refused++;
  return NULL;
}

static void nothing_to_release(void *user, void *memory) { (void)user, (void)memory; }

static float x[64 * 30 * 30], weight[64 * 64 * 9], y[64 * 28 * 28];

int main(void) {
  const convsmith_allocator none = {no_memory, nothing_to_release, NULL};
  float image[6][8] = {{0}}, taps[2] = {2, 3}, sums[6][7];
  demo_edge_forward_args edge;
  other_layer_forward_args layer;
  convsmith_error error = {CONVSMITH_OK, ""};
  convsmith_status status;
  size_t i;

  halide_set_error_handler(on_host_error);
  halide_set_custom_malloc(host_allocate);
  halide_set_custom_free(host_release);
  halide_set_num_threads(3);

  demo_set_threads(1);
  other_set_threads(2);
  image[2][3] = 5;
  demo_edge_forward_init(&edge);
  edge.x.data = image, edge.weight.data = taps, edge.y.data = sums;
  status = demo_edge_forward(&edge, &error);
  printf("demo: %d, %g %g\n", (int)status, sums[2][2], sums[2][3]);

  for (i = 0; i < sizeof x / sizeof *x; i++) x[i] = 1;
  for (i = 0; i < sizeof weight / sizeof *weight; i++) weight[i] = 1;
  other_layer_forward_init(&layer);
  layer.x.data = x, layer.weight.data = weight, layer.y.data = y;
  status = other_layer_forward(&layer, &error);
  printf("other: %d, %g %g\n", (int)status, y[0], y[sizeof y / sizeof *y - 1]);

  other_set_allocator(&none);
  status = other_layer_forward(&layer, &error);
  printf("other without memory: %d, %s, %s\n", (int)status, refused ? "asked" : "not asked", error.message);
  other_set_allocator(NULL);
  printf("host after the libraries: %d errors, %d allocations\n", host_errors, host_allocations);

  halide_error(NULL, "the host's own");
  halide_free(NULL, halide_malloc(NULL, 100));
  printf("host's own: %d errors, %d allocations, %d threads\n", host_errors, host_allocations,
         halide_set_num_threads(3));
  return 0;
}
