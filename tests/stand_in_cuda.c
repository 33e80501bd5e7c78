/* Stands in for the driver of a CUDA device, libcuda.so.1: it has memory, contexts and streams, and does what a driver does
   with them, but no kernel does anything. What was asked of it is written to STAND_IN_CUDA_LOG, a line a call. On a stream
   copies are made when the stream is waited for, as those of pinned memory may be. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201 };

static void say(const char *what, const void *a, const void *b) {
  const char *path = getenv("STAND_IN_CUDA_LOG");
  FILE *f = path ? fopen(path, "a") : NULL;
  if (!f) return;
  fprintf(f, "%s %p %p\n", what, a, b);
  fclose(f);
}

static int number(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

static void *stack[16];
static int depth;
static size_t used;

static int current_is_none(void) { return depth == 0 || !stack[depth - 1]; }

int cuInit(unsigned flags) { return (void)flags, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char *name, int length, int device) { return (void)device, snprintf(name, (size_t)length, "stand-in"), 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = 1 << 20, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
    case 75: *value = number("STAND_IN_CUDA_CAPABILITY", 90) / 10; break;
    case 76: *value = number("STAND_IN_CUDA_CAPABILITY", 90) % 10; break;
    case 16: *value = 100; break;        /* multiprocessors */
    case 13: *value = 1000000; break;    /* kHz */
    case 36: *value = 2000000; break;    /* kHz, of the memory */
    case 37: *value = 1000; break;       /* bits of its bus */
    default: *value = 1;
  }
  return 0;
}

int cuCtxCreate_v2(void **context, unsigned flags, int device) {
  (void)flags, (void)device;
  *context = calloc(1, 1);
  say("create", *context, NULL);
  stack[depth++] = *context;
  return 0;
}
int cuCtxDestroy_v2(void *context) { return say("destroy", context, NULL), free(context), 0; }
int cuCtxGetApiVersion(void *context, unsigned *version) { return (void)context, *version = 12000, 0; }
int cuCtxGetDevice(int *device) { return *device = 0, 0; }
int cuCtxSynchronize(void) { return 0; }
int cuCtxPushCurrent_v2(void *context) { return stack[depth++] = context, 0; }
int cuCtxPopCurrent_v2(void **context) { return *context = stack[--depth], 0; }
int cuProfilerStop(void) { return 0; }

int cuModuleLoadData(void **module, const void *image) { return *module = calloc(1, 1), say("load", *module, stack[depth - 1]), (void)image, 0; }
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options, void **values) {
  return (void)count, (void)options, (void)values, cuModuleLoadData(module, image);
}
int cuModuleUnload(void *module) { return say("unload", module, NULL), free(module), 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return (void)name, *function = module, 0; }
int cuPointerGetAttribute(void *result, int query, uint64_t pointer) { return (void)result, (void)query, (void)pointer, 0; }

int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  size_t *memory;
  if (current_is_none()) return INVALID_CONTEXT;
  if (used + bytes > (size_t)number("STAND_IN_CUDA_BYTES", 1 << 20)) return OUT_OF_MEMORY;
  memory = (size_t *)calloc(1, bytes + 64);
  memory[0] = bytes, used += bytes;
  *pointer = (uint64_t)(uintptr_t)(memory + 8);
  say("alloc", (void *)(uintptr_t)*pointer, stack[depth - 1]);
  return 0;
}
int cuMemFree_v2(uint64_t pointer) {
  size_t *memory = (size_t *)(uintptr_t)pointer - 8;
  say("free", (void *)(uintptr_t)pointer, NULL);
  used -= memory[0];
  free(memory);
  return 0;
}

/* What a stream has still to copy. */
static struct {
  void *to;
  const void *from;
  size_t bytes;
} waiting[4096];
static int waiting_count;

static int copy(void *to, const void *from, size_t bytes) { return memcpy(to, from, bytes), 0; }
static int copy_later(void *to, const void *from, size_t bytes) {
  waiting[waiting_count].to = to, waiting[waiting_count].from = from, waiting[waiting_count].bytes = bytes;
  return waiting_count++, 0;
}
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { return copy((void *)(uintptr_t)to, from, bytes); }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { return copy(to, (void *)(uintptr_t)from, bytes); }
int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) { return copy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes); }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { return (void)stream, copy_later((void *)(uintptr_t)to, from, bytes); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) { return (void)stream, copy_later(to, (void *)(uintptr_t)from, bytes); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) { return (void)stream, copy_later((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes); }
int cuMemcpy3D_v2(const void *what) { return (void)what, 1; }
int cuStreamSynchronize(void *stream) {
  int i;
  for (i = 0; i < waiting_count; i++) memcpy(waiting[i].to, waiting[i].from, waiting[i].bytes);
  waiting_count = 0;
  say("wait", stream, stack[depth - 1]);
  return 0;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                   void **parameters, void **extra) {
  (void)function, (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)parameters, (void)extra;
  say("launch", stream, stack[depth - 1]);
  return 0;
}
