
/* ---- Devices: the levels that run on a GPU ---- */

#include <dlfcn.h>

extern int halide_device_malloc(void *call, halide_buffer *buffer, const void *interface);
extern int halide_device_free(void *call, halide_buffer *buffer);
extern int halide_copy_to_host(void *call, halide_buffer *buffer);
extern int halide_copy_to_device(void *call, halide_buffer *buffer, const void *interface);
extern int halide_device_sync_global(void *call, const void *interface);
extern int halide_reuse_device_allocations(void *call, _Bool yes);

enum { HOST_DIRTY = 1, DEVICE_DIRTY = 2 }; /* of a buffer's flags */

/* In place of halide_device_malloc(), also in the kernels: by whole multiples of 256 bytes. Halide's Vulkan run-time cuts pieces
   of other sizes from its blocks that are shorter than was asked for, and what is written past their end is lost. */
int convsmith_device_malloc(void *call, halide_buffer *buffer, const void *interface);
int convsmith_device_malloc(void *call, halide_buffer *buffer, const void *interface) {
  int64_t bytes = 1;
  halide_buffer whole = *buffer;
  halide_dim dim = {0, 0, 1, 0};
  int i, code;
  if (buffer->device) return 0;
  for (i = 0; i < buffer->dimensions; i++) bytes += (int64_t)buffer->dim[i].stride * (buffer->dim[i].extent - 1);
  bytes = (bytes * (buffer->type_bits / 8) + 255) / 256 * 256;
  if (bytes > INT32_MAX) return halide_device_malloc(call, buffer, interface);
  dim.extent = (int32_t)bytes;
  whole.type_code = 1, whole.type_bits = 8, whole.dimensions = 1, whole.dim = &dim;
  code = halide_device_malloc(call, &whole, interface);
  buffer->device = whole.device, buffer->device_interface = whole.device_interface;
  return code;
}

/* What a tensor's `device` points at. */
typedef struct {
  halide_buffer buffer;
  halide_dim dim[CONVSMITH_MAX_RANK];
  int64_t span;  /* elements from the first to the last, for which there is room */
  int8_t wrapped; /* the memory is the caller's */
} device_tensor;

/* INT64_MAX: more than Halide can address. */
static int64_t span_of(const convsmith_tensor *t) {
  int64_t span = 1;
  int i;
  for (i = 0; i < t->rank; i++) {
    if (t->extent[i] <= 1) continue;
    if (t->extent[i] > INT32_MAX || t->stride[i] > INT32_MAX || span > INT64_MAX / 4) return INT64_MAX;
    span += t->stride[i] * (t->extent[i] - 1);
  }
  return span;
}

static convsmith_copies the_copies;

static void count_copy(int64_t *counter, const convsmith_tensor *t) {
  __atomic_fetch_add(counter, elements_of(t) * (type_bits[t->type] / 8), __ATOMIC_RELAXED);
}

/* ---- CUDA in the caller's own context and on its streams ---- */

#if CUDA
typedef int (*cuda_acquire)(void *call, void **context, _Bool create);
typedef int (*cuda_get_stream)(void *call, void *context, void **stream);
extern int halide_default_cuda_acquire_context(void *call, void **context, _Bool create);
extern cuda_acquire halide_set_cuda_acquire_context(cuda_acquire handler);
extern cuda_get_stream halide_set_cuda_get_stream(cuda_get_stream handler);
extern int halide_cuda_device_release(void *call);
extern int halide_cuda_compute_capability(void *call, int *major, int *minor);

/* Of this thread. */
static __thread void *cuda_context, *cuda_stream;
static __thread int8_t cuda_leaving;

/* Older devices cannot run what was made for newer ones. */
static int has_capability(int32_t level, call_state *state) {
  int major = 0, minor = 0;
  const char *made_for = level_names[level] + 5; /* as in 8.6 */
  return halide_cuda_compute_capability(state, &major, &minor) == 0 && 10 * major + minor >= 10 * (made_for[0] - '0') + made_for[2] - '0';
}

/* Without `create` Halide asks what it is to release: when the library is unloaded the callers' contexts may be gone. */
static int acquire_context(void *call, void **context, _Bool create) {
  if (!cuda_context || (!create && !cuda_leaving)) return halide_default_cuda_acquire_context(call, context, create);
  *context = cuda_context;
  return 0;
}

static int get_stream(void *call, void *context, void **stream) {
  (void)call, (void)context;
  *stream = cuda_stream;
  return 0;
}

/* On a stream the driver copies pinned memory when it gets to it. */
static int end_copies(call_state *state, int32_t level) {
  return is_cuda(level) && cuda_stream ? halide_device_sync_global(state, device_interface[level]()) : 0;
}

__attribute__((constructor)) static void ask_for_cuda(void) {
  halide_set_cuda_acquire_context(acquire_context), halide_set_cuda_get_stream(get_stream);
}

static convsmith_status use_cuda(void *context, void *stream, convsmith_error *error) {
  (void)error;
  cuda_context = context, cuda_stream = stream;
  return CONVSMITH_OK;
}
#else
static int end_copies(call_state *state, int32_t level) { return (void)state, (void)level, 0; }
#endif

/* Whether a device of the level's kind is there: asked once, as it loads a driver. */
static int has_device(int32_t level) {
  static int8_t answers[DEVICES]; /* 1: there is none, 2: there is one */
  int8_t answer = __atomic_load_n(&answers[level], __ATOMIC_ACQUIRE);
  if (!answer) {
    uint8_t byte = 0;
    halide_dim dim = {0, 1, 1, 0};
    halide_buffer b;
    call_state state = new_call(NULL);
    memset(&b, 0, sizeof b);
    b.host = &byte, b.type_code = 1, b.type_bits = 8, b.type_lanes = 1, b.dimensions = 1, b.dim = &dim;
    halide_reuse_device_allocations(&state, 1); /* else each call would wait for room for what it computes on the way */
    answer = halide_device_malloc(&state, &b, device_interface[level]()) == 0 ? 2 : 1;
    if (b.device) halide_device_free(&state, &b);
#if CUDA
    if (answer == 2 && is_cuda(level) && !has_capability(level, &state)) answer = 1;
#endif
    __atomic_store_n(&answers[level], answer, __ATOMIC_RELEASE);
  }
  return answer == 2;
}

/* A failure that Halide may have told about, or not. */
static convsmith_status device_failed(const char *what, int code, const call_state *state, convsmith_error *error) {
  if (code == OUT_OF_DEVICE_MEMORY || state->out_of_memory) return fail(error, CONVSMITH_OUT_OF_MEMORY, "%s: out of memory on the device", what);
  if (!state->reported) return fail(error, CONVSMITH_FAILED, "%s: the device's run-time returned %d", what, code);
  return CONVSMITH_FAILED;
}

/* What only a device asks of a tensor. */
static convsmith_status check_for_device(const char *who, const char *name, int32_t level, const convsmith_tensor *t,
                                         convsmith_error *error) {
  const device_tensor *d = (const device_tensor *)t->device;
  int i;
  if (d && (level >= DEVICES || d->buffer.device_interface != device_interface[level]()))
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: is on another device than that of level %s", who, name, level_names[level]);
  for (i = 0; i < t->rank; i++)
    if (level < DEVICES && t->extent[i] > 1 && t->stride[i] < 0)
      return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: expected no negative stride on a device, got %lld", who, name, i,
                  (long long)t->stride[i]);
  if (d && span_of(t) > d->span * d->buffer.type_bits / type_bits[t->type])
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected at most the %lld elements that it was put on the device with, got %lld",
                who, name, (long long)d->span, (long long)span_of(t));
  return CONVSMITH_OK;
}

static convsmith_status check_devices(const pass_spec *p, int32_t level, const convsmith_tensor *tensors, convsmith_error *error) {
  convsmith_status status = CONVSMITH_OK;
  int i;
  for (i = 0; i < p->arguments && status == CONVSMITH_OK; i++)
    status = check_for_device(p->function, p->argument[i].name, level, &tensors[i], error);
  return status;
}

/* Tensors that are not on the device are copied there, or back, by the call. */
static int call_on_device(const pass_spec *p, int32_t level, const convsmith_tensor *tensors, void **arguments,
                          halide_buffer *buffers, call_state *state) {
  const int inputs = p->arguments - p->outputs;
  int i, code = 0, freed, copied = 0;
  for (i = 0; i < p->arguments; i++) {
    const device_tensor *d = (const device_tensor *)tensors[i].device;
    copied |= !d;
    if (d) buffers[i].device = d->buffer.device, buffers[i].device_interface = d->buffer.device_interface;
    else if (code == 0) code = convsmith_device_malloc(state, &buffers[i], device_interface[level]());
    if (!d && i < inputs) buffers[i].flags |= HOST_DIRTY, count_copy(&the_copies.to_device, &tensors[i]);
  }
  if (code == 0) code = p->kernel[level](arguments);
  for (i = inputs; i < p->arguments && code == 0; i++) {
    if (tensors[i].device) continue;
    code = halide_copy_to_host(state, &buffers[i]);
    count_copy(&the_copies.to_host, &tensors[i]);
  }
  if (code == 0 && copied) code = end_copies(state, level);
  for (i = 0; i < p->arguments; i++) {
    freed = buffers[i].device && !tensors[i].device ? halide_device_free(state, &buffers[i]) : 0;
    if (code == 0) code = freed;
  }
  return code;
}

/* A tensor's description for the device, as yet with no room there. */
static convsmith_status describe_for_device(const char *who, const convsmith_tensor *t, device_tensor **made, convsmith_error *error) {
  device_tensor *d;
  int i;
  const int32_t level = chosen_level();
  convsmith_status status;
  if (level >= DEVICES) return fail(error, CONVSMITH_UNSUPPORTED, "%s: the level in use, %s, is not a device's", who,
                                    level < LEVELS ? level_names[level] : "none");
  if (!t || t->type < 0 || t->type > 5 || t->rank < 0 || t->rank > CONVSMITH_MAX_RANK || elements_of(t) < 1)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: expected a tensor of at least one element", who);
  status = check_for_device(who, "the tensor", level, t, error);
  if (status != CONVSMITH_OK) return status;
  d = *made = (device_tensor *)calloc(1, sizeof *d);
  if (!d) return fail(error, CONVSMITH_OUT_OF_MEMORY, "%s: out of memory", who);
  d->buffer.type_code = type_codes[t->type], d->buffer.type_bits = type_bits[t->type], d->buffer.type_lanes = 1;
  d->buffer.dimensions = t->rank, d->buffer.dim = d->dim;
  d->buffer.host = (uint8_t *)t->data, d->span = span_of(t);
  for (i = 0; i < t->rank; i++)
    d->dim[i].extent = (int32_t)t->extent[i], d->dim[i].stride = t->extent[i] > 1 ? (int32_t)t->stride[i] : 1;
  return CONVSMITH_OK;
}

static convsmith_status tensor_to_device(convsmith_tensor *t, convsmith_error *error) {
  const int32_t level = chosen_level();
  call_state state = new_call(error);
  device_tensor *d = t ? (device_tensor *)t->device : NULL;
  convsmith_status status;
  int code = 0;
  if (d) {
    status = check_for_device("to_device", "the tensor", level, t, error);
    if (status != CONVSMITH_OK) return status;
  } else {
    status = describe_for_device("to_device", t, &d, error);
    if (status != CONVSMITH_OK) return status;
    code = d->span > INT64_MAX / 64 ? OUT_OF_DEVICE_MEMORY : convsmith_device_malloc(&state, &d->buffer, device_interface[level]());
    if (code != 0) {
      free(d);
      return device_failed("to_device", code, &state, error);
    }
    t->device = d;
  }
  if (!t->data) return CONVSMITH_OK;
  d->buffer.host = (uint8_t *)t->data, d->buffer.flags = HOST_DIRTY;
  code = halide_copy_to_device(&state, &d->buffer, device_interface[level]());
  if (code == 0) code = end_copies(&state, level);
  if (code != 0) return device_failed("to_device", code, &state, error);
  count_copy(&the_copies.to_device, t);
  return CONVSMITH_OK;
}

static convsmith_status tensor_to_host(const convsmith_tensor *t, convsmith_error *error) {
  call_state state = new_call(error);
  device_tensor *d = t ? (device_tensor *)t->device : NULL;
  int code;
  if (!d || !t->data) return fail(error, CONVSMITH_BAD_ARGUMENT, "to_host: expected a tensor on a device, with data to copy it to");
  d->buffer.host = (uint8_t *)t->data, d->buffer.flags = DEVICE_DIRTY;
  code = halide_copy_to_host(&state, &d->buffer);
  if (code == 0) code = end_copies(&state, chosen_level());
  if (code != 0) return device_failed("to_host", code, &state, error);
  count_copy(&the_copies.to_host, t);
  return CONVSMITH_OK;
}

static void release_tensor(convsmith_tensor *t) {
  call_state state = new_call(NULL);
  device_tensor *d = t ? (device_tensor *)t->device : NULL;
  if (!d) return;
  if (!d->wrapped) halide_device_free(&state, &d->buffer);
  free(d);
  t->device = NULL;
}

static convsmith_status synchronize(convsmith_error *error) {
  const int32_t level = chosen_level();
  call_state state = new_call(error);
  const int code = level < DEVICES ? halide_device_sync_global(&state, device_interface[level]()) : 0;
  return code == 0 ? CONVSMITH_OK : device_failed("synchronize", code, &state, error);
}

static convsmith_copies copies_so_far(void) {
  convsmith_copies c;
  c.to_device = __atomic_load_n(&the_copies.to_device, __ATOMIC_RELAXED);
  c.to_host = __atomic_load_n(&the_copies.to_host, __ATOMIC_RELAXED);
  return c;
}

#if CUDA
static convsmith_status leave_cuda(void *context, convsmith_error *error) {
  call_state state = new_call(error);
  void *const before = cuda_context;
  int code;
  if (!context) return fail(error, CONVSMITH_BAD_ARGUMENT, "leave: expected a context, got null");
  cuda_context = context, cuda_leaving = 1;
  code = halide_cuda_device_release(&state);
  cuda_leaving = 0, cuda_context = before == context ? NULL : before;
  if (before == context) cuda_stream = NULL;
  return code == 0 ? CONVSMITH_OK : device_failed("leave", code, &state, error);
}

static convsmith_status wrap_cuda(convsmith_tensor *t, uint64_t memory, convsmith_error *error) {
  const int32_t level = chosen_level();
  device_tensor *d = NULL;
  convsmith_status status;
  if (!is_cuda(level))
    return fail(error, CONVSMITH_UNSUPPORTED, "wrap: the level in use, %s, is not one of CUDA", level < LEVELS ? level_names[level] : "none");
  if (!memory || (t && t->device))
    return fail(error, CONVSMITH_BAD_ARGUMENT, "wrap: expected a tensor that is on no device, and memory there");
  if (memory % 16)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "wrap: expected memory aligned to 16 bytes, got 0x%llx", (unsigned long long)memory);
  status = describe_for_device("wrap", t, &d, error);
  if (status != CONVSMITH_OK) return status;
  d->buffer.device = memory, d->buffer.device_interface = device_interface[level](), d->wrapped = 1;
  t->device = d;
  return CONVSMITH_OK;
}

static uint64_t cuda_memory(const convsmith_tensor *t) {
  const device_tensor *d = t ? (const device_tensor *)t->device : NULL;
  int32_t level;
  for (level = 0; d && level < DEVICES; level++)
    if (is_cuda(level) && d->buffer.device_interface == device_interface[level]()) return d->buffer.device;
  return 0;
}

static const convsmith_cuda the_cuda = {use_cuda, leave_cuda, wrap_cuda, cuda_memory};
#endif

static const convsmith_device the_device = {DEVICES, tensor_to_device, tensor_to_host, release_tensor, synchronize, copies_so_far,
#if CUDA
                                            &the_cuda};
#else
                                            NULL};
#endif

/* In place of getenv() in Halide's run-time. Its Vulkan part takes its settings from the environment alone, and by default hands
   out pieces of one block that are not aligned as some devices need: kernels then read wrong numbers and nobody notices. */
extern char *convsmith_getenv(const char *name);
char *convsmith_getenv(const char *name) {
  static char allocation[] = "0:32:0:0:256";
  char *value = getenv(name);
  return value || strcmp(name, "HL_VK_ALLOC_CONFIG") ? value : allocation;
}

/* In place of dlopen() there. It looks for libcuda.so, which is a developer's name: a driver alone brings libcuda.so.1. */
extern void *convsmith_dlopen(const char *name, int flags);
void *convsmith_dlopen(const char *name, int flags) {
  char numbered[64];
  void *library = dlopen(name, flags);
  if (library || !name || snprintf(numbered, sizeof numbered, "%s.1", name) >= (int)sizeof numbered) return library;
  return dlopen(numbered, flags);
}

/* In place of Halide's: a library does not print. */
void halide_print(void *call, const char *message);
void halide_print(void *call, const char *message) { (void)call, (void)message; }
