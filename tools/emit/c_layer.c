/* ---- The same in every library: checks and dispatch, and behind them memory and threads. ---- */

/* The layout of Halide's own descriptor, halide_buffer_t. */
typedef struct {
  int32_t min, extent, stride;
  uint32_t flags;
} halide_dim;
typedef struct {
  uint64_t device;
  const void *device_interface;
  uint8_t *host;
  uint64_t flags;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int32_t dimensions;
  halide_dim *dim;
  void *padding;
} halide_buffer;

/* Of the run-time that is linked into this library, all of it private. */
typedef int (*task_function)(void *call, int index, uint8_t *closure);
extern int halide_host_cpu_count(void);
void halide_error(void *call, const char *message);
void *halide_malloc(void *call, size_t bytes);
void halide_free(void *call, void *memory);
int halide_do_par_for(void *call, task_function task, int min, int size, uint8_t *closure);

/* What a running kernel knows of its caller: Halide's user context. */
typedef struct {
  convsmith_error *error;
  int reported;
  int loop_status; /* of a caller's parallel loop that failed: a kernel without assertions does not look */
  int loop_failed; /* by itself, and not for what a task of it returned */
  int out_of_memory; /* as a driver told it, or a task */
} call_state;

static call_state new_call(convsmith_error *error) {
  call_state state;
  memset(&state, 0, sizeof state);
  state.error = error;
  return state;
}

static convsmith_allocator the_allocator;
static convsmith_parallel_for the_parallel_for;
static void *the_parallel_for_user;
static int32_t the_level = -1;   /* not chosen yet */
static int32_t the_threads = -1; /* not set yet */

#if DEVICES
static int has_device(int32_t level);
static convsmith_status check_devices(const pass_spec *p, int32_t level, const convsmith_tensor *tensors, convsmith_error *error);
static int call_on_device(const pass_spec *p, int32_t level, const convsmith_tensor *tensors, void **arguments,
                          halide_buffer *buffers, call_state *state);
#endif

static convsmith_status fail(convsmith_error *error, convsmith_status status, const char *format, ...) {
  if (error) {
    va_list arguments;
    error->status = status;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return status;
}

/* Called by kernels, maybe from several threads at once: the first message is kept. */
void halide_error(void *call, const char *message) {
  call_state *state = (call_state *)call;
  if (!state || __atomic_exchange_n(&state->reported, 1, __ATOMIC_ACQ_REL)) return;
  state->out_of_memory = strstr(message, "OUT_OF_MEMORY") != NULL; /* of CUDA Halide's run-time has one code for all */
  fail(state->error, CONVSMITH_FAILED, "%s", message);
}

/* Of Halide's error codes. */
enum { OUT_OF_HOST_MEMORY = -11, OUT_OF_DEVICE_MEMORY = -16 };

typedef struct {
  void *call;
  task_function task;
  int min;
  uint8_t *closure;
  int status; /* of a task that failed, 0: of none */
} loop_state;

static int loop_body(void *context, int32_t i) {
  loop_state *loop = (loop_state *)context;
  const int status = loop->task(loop->call, loop->min + i, loop->closure);
  if (status) __atomic_store_n(&loop->status, status, __ATOMIC_RELEASE);
  return status;
}

static int callers_do_par_for(void *call, task_function task, int min, int size, uint8_t *closure) {
  loop_state loop;
  int status;
  loop.call = call, loop.task = task, loop.min = min, loop.closure = closure, loop.status = 0;
  status = the_parallel_for(the_parallel_for_user, loop_body, &loop, size);
  if (status && call) {
    call_state *state = (call_state *)call;
    __atomic_store_n(&state->loop_status, status, __ATOMIC_RELEASE);
    if (status != loop.status) __atomic_store_n(&state->loop_failed, 1, __ATOMIC_RELEASE);
    if (loop.status == OUT_OF_HOST_MEMORY) __atomic_store_n(&state->out_of_memory, 1, __ATOMIC_RELEASE);
  }
  return status;
}

/* ---- Instruction levels: of the processor, and before them those of a GPU ---- */

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct {
  unsigned leaf, subleaf;
  int reg; /* 0: eax, 1: ebx, 2: ecx, 3: edx */
  unsigned bits;
} feature;

static int has(const feature *features, size_t count, unsigned state) {
  unsigned r[4], low, high;
  size_t i;
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3]) || !(r[2] & (1u << 27))) return 0; /* the system saves no AVX state */
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  (void)high;
  if ((low & state) != state) return 0;
  for (i = 0; i < count; i++) {
    if (!__get_cpuid_count(features[i].leaf, features[i].subleaf, &r[0], &r[1], &r[2], &r[3])) return 0;
    if ((r[features[i].reg] & features[i].bits) != features[i].bits) return 0;
  }
  return 1;
}

static int has_instructions(int32_t level) {
  /* Everything that the compiler may use at a level, not only what Halide names: x86-64-v3, x86-64-v4, and the latter
     with IFMA, VBMI, VBMI2, GFNI, VNNI, BITALG, VPOPCNTDQ and BF16, then SSE4A, which AMD alone has, or FP16, AVX-VNNI, VAES,
     VPCLMULQDQ and SHA. */
  static const feature avx2[] = {
      {1, 0, 2, 1u << 0 | 1u << 9 | 1u << 12 | 1u << 19 | 1u << 20 | 1u << 22 | 1u << 23 | 1u << 28 | 1u << 29},
      {7, 0, 1, 1u << 3 | 1u << 5 | 1u << 8},
      {0x80000001u, 0, 2, 1u << 5}};
  static const feature avx512[] = {{7, 0, 1, 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31}};
  static const feature both[] = {{7, 0, 1, 1u << 21},
                                 {7, 0, 2, 1u << 1 | 1u << 6 | 1u << 8 | 1u << 11 | 1u << 12 | 1u << 14},
                                 {7, 1, 0, 1u << 5}};
  static const feature vnni[] = {{0x80000001u, 0, 2, 1u << 6}};
  static const feature fp16[] = {{7, 0, 1, 1u << 29}, {7, 0, 2, 1u << 9 | 1u << 10}, {7, 0, 3, 1u << 23}, {7, 1, 0, 1u << 4}};
  const char *name = level_names[level];
  if (!strcmp(name, "x86-64")) return 1;
  if (!has(avx2, sizeof avx2 / sizeof *avx2, 0x6)) return 0;
  if (!strcmp(name, "x86-64-avx2")) return 1;
  if (!has(avx512, sizeof avx512 / sizeof *avx512, 0xe6)) return 0;
  if (!strcmp(name, "x86-64-avx512")) return 1;
  if (!has(both, sizeof both / sizeof *both, 0xe6)) return 0;
  if (!strcmp(name, "x86-64-avx512-vnni")) return has(vnni, sizeof vnni / sizeof *vnni, 0xe6);
  return has(fp16, sizeof fp16 / sizeof *fp16, 0xe6) && !strcmp(name, "x86-64-avx512-fp16");
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static int has_instructions(int32_t level) {
  const unsigned long asimddp = 1ul << 20; /* HWCAP_ASIMDDP */
  const char *name = level_names[level];
  if (!strcmp(name, "arm-64")) return 1;
  return !strcmp(name, "arm-64-dotprod") && (getauxval(AT_HWCAP) & asimddp) != 0;
}
#else
static int has_instructions(int32_t level) { return level == 0; }
#endif

static int supports_level(int32_t level) {
#if DEVICES
  if (level < DEVICES) return has_device(level);
#endif
  return has_instructions(level);
}

/* The first of the levels below `end` that is to be had here; LEVELS where none is. */
static int32_t best_level(int32_t end) {
  int32_t level;
  for (level = 0; level < end; level++)
    if (supports_level(level)) return level;
  return LEVELS;
}

/* The best level that is to be had, LEVELS where there is none; of a library for a GPU only that will do, until a caller says
   otherwise. Every caller finds the same. */
static int32_t chosen_level(void) {
  int32_t level = __atomic_load_n(&the_level, __ATOMIC_ACQUIRE);
  if (level >= 0) return level;
  level = best_level(DEVICES ? DEVICES : LEVELS);
  __atomic_store_n(&the_level, level, __ATOMIC_RELEASE);
  return level;
}

static convsmith_status no_level(const char *who, convsmith_error *error) {
  if (DEVICES)
    return fail(error, CONVSMITH_UNSUPPORTED, "%s: no device was found for %s%s", who, level_names[0],
                LEVELS > DEVICES ? "; the level \"any\" allows the processor" : "");
  return fail(error, CONVSMITH_UNSUPPORTED, "%s: this processor has none of the levels in the library", who);
}

static convsmith_status select_level(int32_t level, convsmith_error *error) {
  if (level == CONVSMITH_ANY_LEVEL && (level = best_level(LEVELS)) == LEVELS) return no_level("level any", error);
  if (level < 0 || level >= LEVELS)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "level: expected 0 to %d, got %d", LEVELS - 1, (int)level);
  if (!supports_level(level))
    return fail(error, CONVSMITH_UNSUPPORTED, level < DEVICES ? "level %s: no such device was found"
                                                              : "level %s: this processor lacks some of its instructions",
                level_names[level]);
  __atomic_store_n(&the_level, level, __ATOMIC_RELEASE);
  return CONVSMITH_OK;
}

static void select_threads(int32_t threads) {
  __atomic_store_n(&the_threads, threads > 0 ? threads : halide_host_cpu_count(), __ATOMIC_RELEASE);
}

/* ---- Calls ---- */

static const char *const type_names[] = {"f32", "f16", "bf16", "u8", "s8", "i32"};
static const uint8_t type_codes[] = {2, 2, 4, 1, 0, 0}, type_bits[] = {32, 16, 16, 8, 8, 32};

/* The extents known only when run, s[Size]: n, then those of the input and of the output, each in the order D, H, W. */
enum { SIZE_N, SIZE_IN, SIZE_OUT = SIZE_IN + 3, SIZES = SIZE_OUT + 3 };

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
/* Rounded down, and what is left. */
static inline int64_t quotient(int64_t a, int64_t b) { return b ? a / b - (a % b && (a < 0) != (b < 0)) : 0; }
static inline int64_t modulo(int64_t a, int64_t b) { return b ? a - quotient(a, b) * b : 0; }

static int64_t output_extent(const problem_spec *problem, int axis, int64_t in) {
  const axis_spec *a = &problem->axis[axis];
  in = smaller(in, (int64_t)1 << 32); /* more is refused anyway */
  if (problem->transposed) return (in - 1) * a->stride - a->lo - a->hi + a->window + a->out_pad;
  return quotient(in + a->lo + a->hi - a->window, a->stride) + 1;
}

/* From the sizes that a caller gives, those that follow from them too. */
static void all_sizes(const problem_spec *problem, const int64_t *given, int64_t *s) {
  int i;
  for (i = 0; i < SIZES; i++) s[i] = CONVSMITH_RUN_TIME;
  for (i = 0; given && i < problem->size_count; i++) {
    const int size = problem->size[i];
    s[size] = given[i];
    if (size >= SIZE_IN) s[size - SIZE_IN + SIZE_OUT] = output_extent(problem, size - SIZE_IN, given[i]);
  }
}

static void describe(const pass_spec *p, const int64_t *given, convsmith_tensor *tensors) {
  int64_t s[SIZES];
  int i, d;
  all_sizes(p->problem, given, s);
  for (i = 0; i < p->arguments; i++) {
    const argument_spec *a = &p->argument[i];
    convsmith_tensor *t = &tensors[i];
    int64_t stride = 1;
    memset(t, 0, sizeof *t);
    t->type = a->type, t->rank = a->rank;
    for (d = 0; d < a->rank; d++) {
      const int axis = a->memory[d];
      t->extent[axis] = a->extent[axis] == CONVSMITH_RUN_TIME ? s[a->size[axis]] : a->extent[axis];
      t->stride[axis] = given ? stride : a->stride[axis];
      if (t->extent[axis] > 1) stride = stride > INT64_MAX / t->extent[axis] ? INT64_MAX : stride * t->extent[axis];
    }
  }
}

static convsmith_status expect_extent(const pass_spec *p, int argument, int axis, int64_t expected, int64_t got,
                                      convsmith_error *error) {
  if (expected == got) return CONVSMITH_OK;
  return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: expected %lld elements, got %lld", p->function,
              p->argument[argument].name, axis, (long long)expected, (long long)got);
}

/* Whether a kernel that takes any extent of an input's axis takes this one. */
static convsmith_status check_input_extent(const pass_spec *p, int axis, int64_t in, convsmith_error *error) {
  const problem_spec *problem = p->problem;
  const axis_spec *a = &problem->axis[axis];
  const char *name = a->name;
  /* What a negative padding leaves of an input; of a transposed one it crops the output. */
  const int64_t left = problem->transposed ? in : in + smaller(a->lo, 0) + smaller(a->hi, 0), pad = larger(a->lo, a->hi);
  const int64_t most = problem->reflect ? left - 1 : left;
  if (in < 1 || left < 1)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected at least %lld elements, got %lld", p->function, name,
                (long long)(1 + in - left), (long long)in);
  if (in + larger(a->lo, 0) + larger(a->hi, 0) + a->window + a->stride > 1 << 30)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: %lld elements, padded, pass 2^30", p->function, name, (long long)in);
  if ((problem->reflect || problem->wrap) && pad > most)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected at least %lld elements for the padding of %lld, got %lld",
                p->function, name, (long long)(in + pad - most), (long long)pad, (long long)in);
  if (output_extent(problem, axis, in) < 1)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected an extent that the window fits into, got %lld", p->function,
                name, (long long)in);
  return CONVSMITH_OK;
}

/* Reads the sizes off the tensors, and holds the tensors against them: those of the input first, from which those of the
   output follow. */
static convsmith_status bind_sizes(const pass_spec *p, const convsmith_tensor *tensors, int64_t *s, convsmith_error *error) {
  int from, i, axis, d, status;
  for (i = 0; i < SIZES; i++) s[i] = CONVSMITH_RUN_TIME;
  for (from = SIZE_N; from != SIZES; from = from == SIZE_N ? SIZE_OUT : SIZES) {
    for (i = 0; i < p->arguments; i++) {
      const argument_spec *a = &p->argument[i];
      for (axis = 0; axis < a->rank; axis++) {
        const int size = a->size[axis];
        const int64_t got = tensors[i].extent[axis];
        if (size < 0) {
          status = from == SIZE_N ? expect_extent(p, i, axis, a->extent[axis], got, error) : CONVSMITH_OK;
          if (status) return (convsmith_status)status;
          continue;
        }
        if ((size >= SIZE_OUT) != (from == SIZE_OUT)) continue;
        if (got < 0 || (got < 1 && size != SIZE_N) || got > INT32_MAX)
          return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: expected from %d to 2^31-1 elements, got %lld",
                      p->function, a->name, axis, size != SIZE_N, (long long)got);
        for (d = 0; d < a->dims; d++)
          if (a->dim[d].interleaved && axis == a->rank - 1 && got > (1 << 30) / a->dim[d].interleaved)
            return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: rows of %lld positions by %d channels pass 2^30", p->function, a->name,
                        axis, (long long)got, a->dim[d].interleaved);
        if (s[size] == CONVSMITH_RUN_TIME) s[size] = a->extent[axis] == CONVSMITH_RUN_TIME ? got : a->extent[axis];
        status = expect_extent(p, i, axis, s[size], got, error);
        if (status) return (convsmith_status)status;
      }
    }
    for (axis = 0; axis < 3 && from == SIZE_N; axis++) {
      if (s[SIZE_IN + axis] == CONVSMITH_RUN_TIME) continue;
      status = check_input_extent(p, axis, s[SIZE_IN + axis], error);
      if (status) return (convsmith_status)status;
      s[SIZE_OUT + axis] = output_extent(p->problem, axis, s[SIZE_IN + axis]);
    }
  }
  return CONVSMITH_OK;
}

static int64_t elements_of(const convsmith_tensor *t) {
  int64_t count = 1;
  int i;
  for (i = 0; i < t->rank; i++) count = t->extent[i] && count > INT64_MAX / t->extent[i] ? INT64_MAX : count * t->extent[i];
  return count;
}

/* Type, rank, alignment and strides; the extents come after. The innermost `fixed` axes lie densely; of the others, one
   must clear what lies within it, and every stride must fit Halide's 32 bits. Where nothing is fixed (packing reads any
   order) any stride that fits will do. */
static convsmith_status check_type(const pass_spec *p, const argument_spec *a, const convsmith_tensor *t,
                                   convsmith_error *error) {
  if (t->type != a->type || t->rank != a->rank)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected %s of %d axes, got %s of %d", p->function, a->name,
                type_names[a->type], a->rank, t->type < 0 || t->type > 5 ? "an unknown type" : type_names[t->type],
                (int)t->rank);
  return CONVSMITH_OK;
}

#if CUDA
static int is_cuda(int32_t level) { return level < DEVICES && !strncmp(level_names[level], "cuda-", 5); }
#endif

static convsmith_status check_memory(const pass_spec *p, const argument_spec *a, const convsmith_tensor *t,
                                     convsmith_error *error) {
  int i;
#if CUDA
  int fours = 0;
#endif
  int64_t clear = 1;
  if (elements_of(t) == 0) return CONVSMITH_OK;
#if !DEVICES
  if (t->device)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: is on a device, and this library has no level for one", p->function, a->name);
#endif
  if (!t->data && !t->device)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: expected data, got a null pointer", p->function, a->name);
  if ((uintptr_t)t->data % (uintptr_t)(type_bits[a->type] / 8))
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: the data is not aligned to its elements", p->function, a->name);
  for (i = 0; i < a->rank; i++) {
    const int axis = a->memory[i];
    const int64_t stride = t->stride[axis], extent = t->extent[axis];
    /* What lies within the dense axes has known extents. */
    if (i < a->fixed ? extent > 1 && stride != a->stride[axis] : a->fixed && extent > 1 && stride < clear)
      return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: expected a stride of %s%lld, got %lld", p->function,
                  a->name, axis, i < a->fixed ? "" : "at least ",
                  (long long)(i < a->fixed ? a->stride[axis] : clear), (long long)stride);
#if CUDA
    /* Its kernels read four channels at once where whole pixels keep them in step: the rest must too. */
    if (i == a->fixed) fours = a->memory[0] == 1 && clear % 4 == 0 && is_cuda(chosen_level());
    if (fours && extent > 1 && stride % 4)
      return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: expected a stride that is a multiple of 4 with CUDA, got %lld", p->function, a->name,
                  axis, (long long)stride);
#endif
    if (extent > 1 && (stride > INT32_MAX || stride < -INT32_MAX || stride > INT64_MAX / 4 / extent ||
                       stride < INT64_MIN / 4 / extent || stride * (extent - 1) > INT32_MAX ||
                       stride * (extent - 1) < -INT32_MAX))
      return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: axis %d: a stride of %lld leads past 2^31 elements",
                  p->function, a->name, axis, (long long)stride);
    if (i < a->fixed) clear = a->stride[axis] * extent;
    else if (extent > 1 && stride > 0) clear = stride * extent;
  }
  /* Halide addresses a whole tensor with 32 bits too. */
  clear = 0;
  for (i = 0; i < a->rank; i++)
    if (t->extent[i] > 1) clear += (t->stride[i] < 0 ? -t->stride[i] : t->stride[i]) * (t->extent[i] - 1);
  if (clear > INT32_MAX)
    return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: the tensor spans more than 2^31 elements", p->function, a->name);
  return CONVSMITH_OK;
}

/* First and last byte that a tensor touches; 0 where it has gaps, in which another tensor may lie, or repeats itself. */
static int span(const convsmith_tensor *t, uintptr_t *first, uintptr_t *last) {
  int i;
  int64_t elements = 1;
  const intptr_t bytes = type_bits[t->type] / 8;
  *first = *last = (uintptr_t)t->data;
  for (i = 0; i < t->rank; i++) {
    const intptr_t reach = (intptr_t)(t->stride[i] * (t->extent[i] - 1)) * bytes;
    if (reach < 0) *first += (uintptr_t)reach;
    else *last += (uintptr_t)reach;
    elements *= t->extent[i];
  }
  *last += (uintptr_t)bytes - 1;
  return *last - *first + 1 == (uintptr_t)elements * (uintptr_t)bytes;
}

/* Whether two tensors share an element: halves the one with gaps, the longer first, until the parts are apart or dense. */
static int overlap(const convsmith_tensor *a, const convsmith_tensor *b) {
  uintptr_t a_first, a_last, b_first, b_last;
  const int a_dense = span(a, &a_first, &a_last), b_dense = span(b, &b_first, &b_last);
  convsmith_tensor part = *a;
  int64_t most = -1;
  int i, axis = 0;
  if (a->device || b->device) return a->device == b->device;
  if (a_first > b_last || b_first > a_last) return 0;
  if (a_dense && b_dense) return 1;
  if (a_dense || (!b_dense && b_last - b_first > a_last - a_first)) return overlap(b, a);
  for (i = 0; i < a->rank; i++) {
    const int64_t stride = a->extent[i] > 1 ? a->stride[i] : 0, distance = stride < 0 ? -stride : stride;
    if (a->extent[i] > 1 && distance > most) most = distance, axis = i;
  }
  part.extent[axis] = a->extent[axis] / 2;
  if (overlap(&part, b)) return 1;
  part.data = (char *)a->data + part.extent[axis] * a->stride[axis] * (type_bits[a->type] / 8);
  part.extent[axis] = a->extent[axis] - part.extent[axis];
  return overlap(&part, b);
}

static convsmith_status check(const pass_spec *p, const convsmith_tensor *tensors, int64_t *s, convsmith_error *error) {
  int i, o, status;
  for (i = 0; i < p->arguments; i++)
    if ((status = check_type(p, &p->argument[i], &tensors[i], error)) != CONVSMITH_OK) return (convsmith_status)status;
  if ((status = bind_sizes(p, tensors, s, error)) != CONVSMITH_OK) return (convsmith_status)status;
  for (i = 0; i < p->arguments; i++)
    if ((status = check_memory(p, &p->argument[i], &tensors[i], error)) != CONVSMITH_OK) return (convsmith_status)status;
  for (o = p->arguments - p->outputs; o < p->arguments; o++)
    for (i = 0; i < o; i++)
      if (elements_of(&tensors[o]) && elements_of(&tensors[i]) && overlap(&tensors[o], &tensors[i]))
        return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s must not overlap %s", p->function, p->argument[o].name,
                    p->argument[i].name);
  return CONVSMITH_OK;
}

/* Whether every tensor comes just as `init` describes it, apart from the others, as in most calls: then a closer look
   would find nothing, and costs more than a small kernel does. */
static int as_described(const pass_spec *p, const convsmith_tensor *tensors) {
  uintptr_t first[MOST_ARGUMENTS], end[MOST_ARGUMENTS];
  int i, o, axis;
  if (p->problem->size_count) return 0;
  for (o = 0; o < p->arguments; o++) {
    const argument_spec *a = &p->argument[o];
    const convsmith_tensor *t = &tensors[o];
    first[o] = (uintptr_t)t->data, end[o] = first[o] + (uintptr_t)a->bytes;
    if (t->type != a->type || t->rank != a->rank || !first[o] || t->device || !a->bytes ||
        first[o] % (uintptr_t)(type_bits[a->type] / 8))
      return 0;
    for (axis = 0; axis < a->rank; axis++)
      if (t->extent[axis] != a->extent[axis] || t->stride[axis] != a->stride[axis]) return 0;
    for (i = 0; i < o && o >= p->arguments - p->outputs; i++)
      if (first[i] < end[o] && first[o] < end[i]) return 0;
  }
  return 1;
}

/* An element's bytes for each of a tensor's elements, from the same place of another tensor, or zero. */
static void copy_or_zero(const convsmith_tensor *to, const convsmith_tensor *from) {
  const int64_t bytes = type_bits[to->type] / 8, count = elements_of(to);
  int64_t i;
  for (i = 0; i < count; i++) {
    int64_t rest = i, t = 0, f = 0;
    int d;
    for (d = to->rank - 1; d >= 0; d--) {
      const int64_t at = rest % to->extent[d];
      rest /= to->extent[d], t += at * to->stride[d];
      if (from) f += at * from->stride[d];
    }
    if (from) memcpy((char *)to->data + t * bytes, (const char *)from->data + f * bytes, (size_t)bytes);
    else memset((char *)to->data + t * bytes, 0, (size_t)bytes);
  }
}

/* Of an empty batch nothing is read: a sum over it is zero, and a training step leaves weight_out and bias_out as they
   came in. */
static convsmith_status run_empty(const pass_spec *p, const convsmith_tensor *tensors, convsmith_error *error) {
  int o, i;
  for (i = 0; i < p->arguments; i++)
    if (tensors[i].device)
      return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: %s: an empty batch has nothing to do on a device", p->function, p->argument[i].name);
  for (o = p->arguments - p->outputs; o < p->arguments; o++) {
    const convsmith_tensor *from = NULL;
    const char *name = p->argument[o].name;
    for (i = 0; i < p->arguments - p->outputs; i++) {
      const size_t length = strlen(p->argument[i].name);
      if (!strncmp(name, p->argument[i].name, length) && !strcmp(name + length, "_out")) from = &tensors[i];
    }
    copy_or_zero(&tensors[o], from);
  }
  return CONVSMITH_OK;
}

static size_t workspace_of(const pass_spec *p, const int64_t *given, int32_t threads) {
  const int32_t level = chosen_level();
  int64_t s[SIZES];
  if (level >= LEVELS) return 0;
  all_sizes(p->problem, given, s);
  return (size_t)larger(0, p->serial_bytes[level](s)) +
         (size_t)larger(0, p->task_bytes[level](s)) * (size_t)(threads > 0 ? threads : halide_host_cpu_count());
}

static convsmith_status run_pass(const pass_spec *p, const convsmith_tensor *tensors, convsmith_error *error) {
  halide_buffer buffers[MOST_ARGUMENTS];
  halide_dim dims[MOST_ARGUMENTS][CONVSMITH_MAX_RANK];
  void *arguments[MOST_ARGUMENTS + SIZES + 1];
  int64_t s[SIZES];
  int32_t numbers[SIZES];
  call_state state = new_call(error);
  void *context = &state;
  const int32_t level = chosen_level();
  int i, d, code, next = 0;
  convsmith_status status;
  if (level >= LEVELS)
    return no_level(p->function, error);
  if (!tensors) return fail(error, CONVSMITH_BAD_ARGUMENT, "%s: expected arguments, got a null pointer", p->function);
  if (!as_described(p, tensors)) {
    status = check(p, tensors, s, error);
    if (status != CONVSMITH_OK) return status;
    if (s[SIZE_N] == 0) return run_empty(p, tensors, error);
  }
#if DEVICES
  status = check_devices(p, level, tensors, error);
  if (status != CONVSMITH_OK) return status;
#endif
  arguments[next++] = &context;
  for (i = 0; i <= p->arguments; i++) {
    const argument_spec *a = &p->indexed[level][i];
    halide_buffer *b = &buffers[i];
    /* The numbers stand between what is read and what is written. */
    if (i == p->arguments - p->outputs)
      for (d = 0; d < p->number_count; d++) numbers[d] = (int32_t)s[p->number[d]], arguments[next++] = &numbers[d];
    if (i == p->arguments) break;
    memset(b, 0, sizeof *b);
    b->host = (uint8_t *)tensors[i].data;
    b->type_code = type_codes[a->type], b->type_bits = type_bits[a->type], b->type_lanes = 1;
    b->dimensions = a->dims, b->dim = dims[i];
    for (d = 0; d < a->dims; d++) {
      const dim_spec *spec = &a->dim[d];
      /* The stride of an axis of one element is free: give the kernel the one it knows. */
      const int64_t stride = tensors[i].extent[spec->axis] > 1 ? tensors[i].stride[spec->axis] : a->stride[spec->axis];
      dims[i][d].min = 0, dims[i][d].flags = 0;
      dims[i][d].extent = spec->interleaved            ? (int32_t)tensors[i].extent[a->rank - 1] * spec->interleaved
                          : a->size[spec->axis] >= 0 ? (int32_t)tensors[i].extent[spec->axis]
                                                     : spec->extent;
      dims[i][d].stride = (int32_t)(stride * spec->multiple);
    }
    arguments[next++] = b;
  }
  if (__atomic_load_n(&the_threads, __ATOMIC_ACQUIRE) < 0) select_threads(0);
#if DEVICES
  code = level < DEVICES ? call_on_device(p, level, tensors, arguments, buffers, &state) : p->kernel[level](arguments);
#else
  code = p->kernel[level](arguments);
#endif
  if (code == 0) code = state.loop_status;
  if (code == 0) return CONVSMITH_OK;
  if (state.out_of_memory || (!state.loop_failed && (code == OUT_OF_HOST_MEMORY || code == OUT_OF_DEVICE_MEMORY)))
    return fail(error, CONVSMITH_OUT_OF_MEMORY, "%s: out of memory", p->function);
  if (state.loop_failed && !state.reported)
    return fail(error, CONVSMITH_FAILED, "%s: the parallel loop returned %d", p->function, state.loop_status);
  if (!state.reported) return fail(error, CONVSMITH_FAILED, "%s: the kernel returned %d", p->function, code);
  return CONVSMITH_FAILED;
}
