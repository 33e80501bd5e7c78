/* The types through which an emitted library is called. Every emitted header begins with this text, so a program
   that links the library needs no other file. */
#ifndef CONVSMITH_ABI
#define CONVSMITH_ABI 5
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum convsmith_status {
  CONVSMITH_OK = 0,
  CONVSMITH_BAD_ARGUMENT = 1,  /* a tensor does not fit the kernel; nothing was written */
  CONVSMITH_OUT_OF_MEMORY = 2,
  CONVSMITH_UNSUPPORTED = 3, /* this processor lacks what the asked instruction level needs, or there is no such device */
  CONVSMITH_FAILED = 4       /* the kernel itself reported an error */
} convsmith_status;

/* Details of a failure, written only where the call did not return CONVSMITH_OK. */
typedef struct convsmith_error {
  convsmith_status status;
  char message[256];
} convsmith_error;

typedef enum convsmith_type {
  CONVSMITH_F32 = 0,
  CONVSMITH_F16 = 1,
  CONVSMITH_BF16 = 2,
  CONVSMITH_U8 = 3,
  CONVSMITH_S8 = 4,
  CONVSMITH_I32 = 5
} convsmith_type;

enum {
  CONVSMITH_MAX_RANK = 9,
  CONVSMITH_RUN_TIME = -1, /* an extent known only when run */
  CONVSMITH_ANY_LEVEL = -1 /* the first that is to be had, of the processor too */
};

/* Axes run from outermost to innermost as people name them (N, C, D, H, W; weights OC, IC/groups, KD, KH, KW),
   whatever their order in memory is: the strides, in elements, say that. */
typedef struct convsmith_tensor {
  void *data;
  int32_t type; /* a convsmith_type */
  int32_t rank;
  int64_t extent[CONVSMITH_MAX_RANK];
  int64_t stride[CONVSMITH_MAX_RANK];
  void *device; /* null: in `data`; else on a GPU, where to_device put it: calls neither read nor write `data` */
} convsmith_tensor;

/* One pass of one kernel. `init` fills the descriptors with the types, extents and dense strides that the pass takes and
   leaves `data` null; the arguments come in the order of `argument_names`, the last `outputs` of them are written.
   `sizes` are the extents that the problem leaves open, in the order of `size_names` (n, then the input's in_d, in_h,
   in_w; those of the output follow from them). Null leaves them CONVSMITH_RUN_TIME, with strides that say the order in
   memory only. */
typedef struct convsmith_pass {
  const char *kernel;
  const char *pass;
  const char *problem;
  int32_t arguments;
  int32_t outputs;
  const char *const *argument_names;
  int32_t size_count;
  const char *const *size_names;
  void (*init)(convsmith_tensor *arguments, const int64_t *sizes);
  convsmith_status (*run)(const convsmith_tensor *arguments, convsmith_error *error);
  size_t (*workspace)(const int64_t *sizes, int32_t threads); /* bytes that one call asks of the allocator, at most */
} convsmith_pass;

/* Runs body(context, i) for every i in [0, count), in any order, on any threads; returns the first status not 0. */
typedef int (*convsmith_parallel_for)(void *user, int (*body)(void *context, int32_t i), void *context,
                                      int32_t count);

typedef struct convsmith_allocator {
  void *(*allocate)(void *user, size_t bytes); /* aligned to 64 bytes; null where there is no memory */
  void (*release)(void *user, void *memory);
  void *user;
} convsmith_allocator;

/* How many bytes the library's calls have moved between host and device. */
typedef struct convsmith_copies {
  int64_t to_device;
  int64_t to_host;
} convsmith_copies;

/* Of a library with a level for CUDA: sharing the program's own context, streams and memory. */
typedef struct convsmith_cuda {
  /* This thread's calls from now on, of kernels and of convsmith_device, are in this context (CUcontext; null: the library's
     own) and on this stream of it (CUstream; null: the default one). */
  convsmith_status (*use)(void *context, void *stream, convsmith_error *error);
  /* Before a context that was used is destroyed: gives back the code, and the memory kept for later calls, that the library
     has in it. No call may be using it, and this thread no longer does. Tensors there are released first. */
  convsmith_status (*leave)(void *context, convsmith_error *error);
  /* Makes a tensor that is on no device one of the caller's own memory there (CUdeviceptr), which `release` leaves alone. */
  convsmith_status (*wrap)(convsmith_tensor *tensor, uint64_t memory, convsmith_error *error);
  /* Where a tensor is on the device (CUdeviceptr); 0 where it is not. */
  uint64_t (*memory)(const convsmith_tensor *tensor);
} convsmith_cuda;

/* Of a library with a level for a GPU. Tensors stay on the device from call to call; nothing is copied unless asked. */
typedef struct convsmith_device {
  int32_t levels; /* the first so many of the library's are GPUs' */
  /* Makes room for a tensor on the device in use, once, and copies `data` there unless it is null. */
  convsmith_status (*to_device)(convsmith_tensor *tensor, convsmith_error *error);
  /* Copies it back to `data`, when all calls before have ended. */
  convsmith_status (*to_host)(const convsmith_tensor *tensor, convsmith_error *error);
  /* Gives its room back; nothing where it is not on a device. */
  void (*release)(convsmith_tensor *tensor);
  /* Calls on tensors of the device may return before they are done: waits for all of them. */
  convsmith_status (*synchronize)(convsmith_error *error);
  convsmith_copies (*copies)(void);
  const convsmith_cuda *cuda; /* null: no level is CUDA's */
} convsmith_device;

typedef struct convsmith_library {
  int32_t abi; /* CONVSMITH_ABI of the emitter */
  const char *name;
  const char *version;
  int32_t pass_count;
  const convsmith_pass *passes;
  int32_t level_count; /* instruction levels: of GPUs, then of the processor, best first */
  const char *const *levels;
  int32_t (*level)(void); /* the one in use; level_count where none is to be had */
  convsmith_status (*set_level)(int32_t level, convsmith_error *error);
  void (*set_threads)(int32_t threads); /* 0: one a processor */
  void (*set_parallel_for)(convsmith_parallel_for run, void *user); /* null: the library's own threads */
  /* The caller's own loop on the threads that kernels run on: with other threads of its own it would wait for these, which
     look for the next loop for a while. As convsmith_parallel_for; not from within a loop of a caller's set_parallel_for. */
  int (*parallel_for)(int (*body)(void *context, int32_t i), void *context, int32_t count);
  void (*set_allocator)(const convsmith_allocator *allocator);      /* null: malloc */
  const convsmith_device *device; /* null: no level is a GPU's */
} convsmith_library;

#ifdef __cplusplus
}
#endif
#endif /* CONVSMITH_ABI */
