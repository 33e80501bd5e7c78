/* ---- Threads: workers that take the tasks of one parallel loop at a time ---- */

/* Each thread has a share of the tasks, which lie beside each other, and takes those of others when its own are taken:
   the loops of a call, and calls that follow each other, find their data in the same core's cache. The caller takes tasks
   too, so a loop ends even where no worker ever wakes up: after a fork, or with a thread limit reached. Workers look for
   the next loop for some 50 us before they sleep: a call that follows soon finds them awake. A second caller at the same
   time, or a loop within a task, runs its tasks by itself. */

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { MOST_WORKERS = 1023, MOST_SHARES = 64, SPINS = 2000 };

/* A share's ticket holds the number of a loop and the next task, from 0; only who raises the ticket past tasks may run them. */
static struct {
  uint64_t ticket; /* number << 32 | next task */
} __attribute__((aligned(64))) the_shares[MOST_SHARES];

/* A loop. As long as one of its tasks is missing nothing here changes, so what was read before a ticket was raised belongs
   to it. */
static struct {
  uint32_t number;
  int32_t shares;
  void *call;
  task_function task;
  uint8_t *closure;
  int32_t min, size;
  int32_t left;   /* tasks that have not ended */
  int32_t status; /* the first that was not 0 */
} the_loop;

static int32_t the_loop_taken;
static int32_t sleeping_workers, sleeping_caller; /* or about to be */
static int32_t the_pool_ends;
static int the_workers; /* changed only by who has taken the loop */
static pthread_t worker_threads[MOST_WORKERS];
static pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t a_loop_begins = PTHREAD_COND_INITIALIZER, the_loop_ends = PTHREAD_COND_INITIALIZER;
static pid_t the_process; /* whose the workers are: after a fork the child has none */

static void rest(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Sequentially consistent, as who sleeps counts itself first and looks then, and who begins a loop does it the other way
   round: one of the two sees the other. */
static uint32_t loop_number(void) { return __atomic_load_n(&the_loop.number, __ATOMIC_SEQ_CST); }

static void wake(int32_t *sleeping, pthread_cond_t *signal) {
  if (!__atomic_load_n(sleeping, __ATOMIC_SEQ_CST)) return;
  pthread_mutex_lock(&the_lock);
  pthread_cond_broadcast(signal);
  pthread_mutex_unlock(&the_lock);
}

static int no_other_loop(uint32_t number) {
  return loop_number() == number && !__atomic_load_n(&the_pool_ends, __ATOMIC_SEQ_CST);
}

static int tasks_are_left(uint32_t number) {
  (void)number;
  return __atomic_load_n(&the_loop.left, __ATOMIC_SEQ_CST) > 0;
}

static void wait_while(int (*waits)(uint32_t), uint32_t number, int32_t *sleeping, pthread_cond_t *signal) {
  int spin;
  for (spin = 0; spin < SPINS; spin++) {
    if (!waits(number)) return;
    rest();
  }
  pthread_mutex_lock(&the_lock);
  __atomic_fetch_add(sleeping, 1, __ATOMIC_SEQ_CST);
  while (waits(number)) pthread_cond_wait(signal, &the_lock);
  __atomic_fetch_sub(sleeping, 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&the_lock);
}

/* The first task of a share, or of the one behind the last. */
static int32_t share_begins(int32_t share, int32_t shares, int32_t size) { return (int32_t)((int64_t)size * share / shares); }

/* Runs the next tasks of a share of the loop with a number; 0 where it has none to give. A sixteenth of what is left at once: each
   turn costs a line that all threads write to, which is more than a short task does. */
static int take_task(uint32_t number, int32_t share) {
  uint64_t ticket = __atomic_load_n(&the_shares[share].ticket, __ATOMIC_ACQUIRE);
  void *call = __atomic_load_n(&the_loop.call, __ATOMIC_RELAXED);
  const task_function task = __atomic_load_n(&the_loop.task, __ATOMIC_RELAXED);
  uint8_t *closure = __atomic_load_n(&the_loop.closure, __ATOMIC_RELAXED);
  const int32_t shares = __atomic_load_n(&the_loop.shares, __ATOMIC_RELAXED);
  const int32_t min = __atomic_load_n(&the_loop.min, __ATOMIC_RELAXED);
  const int32_t size = __atomic_load_n(&the_loop.size, __ATOMIC_RELAXED), first = (int32_t)(uint32_t)ticket,
                end = share_begins(share + 1, shares, size), count = (end - first - 1) / 16 + 1;
  int32_t i;
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  if ((uint32_t)(ticket >> 32) != number || first >= end) return 0;
  if (!__atomic_compare_exchange_n(&the_shares[share].ticket, &ticket, ticket + (uint32_t)count, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) return 1;
  for (i = first; i < first + count; i++) {
    int none = 0;
    const int status = task(call, min + i, closure);
    if (status) __atomic_compare_exchange_n(&the_loop.status, &none, status, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  }
  if (__atomic_sub_fetch(&the_loop.left, count, __ATOMIC_SEQ_CST) == 0) wake(&sleeping_caller, &the_loop_ends);
  return 1;
}

/* Tasks of the loop with a number, until it has none to give: of the thread's own share first. */
static void take_tasks(uint32_t number, int32_t own) {
  const int32_t shares = __atomic_load_n(&the_loop.shares, __ATOMIC_RELAXED); /* a later loop's gives no task of this one */
  int32_t k;
  for (k = 0; k < shares; k++)
    while (take_task(number, (own + k) % shares)) continue;
}

/* Beginning with the number of a loop, below the thread's own share. */
static void *worker(void *start) {
  uint32_t number = (uint32_t)(uintptr_t)start;
  const int32_t own = (int32_t)((uint64_t)(uintptr_t)start >> 32);
  for (;;) {
    wait_while(no_other_loop, number, &sleeping_workers, &a_loop_begins);
    if (__atomic_load_n(&the_pool_ends, __ATOMIC_SEQ_CST)) return NULL;
    number = loop_number();
    take_tasks(number, own);
  }
}

static int take_loop(void) { return !__atomic_exchange_n(&the_loop_taken, 1, __ATOMIC_ACQUIRE); }
static void give_loop(void) { __atomic_store_n(&the_loop_taken, 0, __ATOMIC_RELEASE); }

/* Of who has taken the loop. */
static void end_workers(void) {
  __atomic_store_n(&the_pool_ends, 1, __ATOMIC_SEQ_CST);
  wake(&sleeping_workers, &a_loop_begins);
  while (the_workers > 0) pthread_join(worker_threads[--the_workers], NULL);
  __atomic_store_n(&the_pool_ends, 0, __ATOMIC_SEQ_CST);
}

/* Of who has taken the loop, in a process that has no workers: after a fork the lock may be held, and a signal waited for,
   by threads that are not in the child. */
static void begin_anew(void) {
  pthread_mutex_init(&the_lock, NULL);
  pthread_cond_init(&a_loop_begins, NULL);
  pthread_cond_init(&the_loop_ends, NULL);
  sleeping_workers = sleeping_caller = 0;
  the_workers = 0;
  the_process = getpid();
}

static void start_workers(int wanted) {
  sigset_t all, before;
  if (the_process != getpid()) begin_anew();
  if (wanted > MOST_WORKERS) wanted = MOST_WORKERS;
  if (wanted < the_workers) end_workers();
  if (wanted == the_workers) return;
  sigfillset(&all); /* signals are the caller's threads', but for a worker's own faults */
  sigdelset(&all, SIGSEGV), sigdelset(&all, SIGBUS), sigdelset(&all, SIGFPE), sigdelset(&all, SIGILL);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (the_workers < wanted &&
         pthread_create(&worker_threads[the_workers], NULL, worker,
                        (void *)(uintptr_t)((uint64_t)(the_workers + 1) << 32 | loop_number())) == 0)
    the_workers++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int own_do_par_for(void *call, task_function task, int min, int size, uint8_t *closure) {
  const int threads = __atomic_load_n(&the_threads, __ATOMIC_ACQUIRE);
  uint32_t number;
  int status = 0, shares, i;
  if (size < 1) return 0;
  if (size == 1 || threads < 2 || !take_loop()) {
    for (i = 0; i < size && status == 0; i++) status = task(call, min + i, closure);
    return status;
  }
  start_workers(threads - 1);
  number = loop_number() + 1;
  /* Closed, before what belongs to them changes. */
  for (i = 0; i < the_loop.shares; i++)
    __atomic_store_n(&the_shares[i].ticket, ((uint64_t)(number - 1) << 32) | INT32_MAX, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  shares = threads < size ? threads : size;
  if (shares > MOST_SHARES) shares = MOST_SHARES;
  __atomic_store_n(&the_loop.shares, shares, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.call, call, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.task, task, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.closure, closure, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.min, min, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.size, size, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.status, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&the_loop.left, size, __ATOMIC_RELAXED);
  for (i = 0; i < shares; i++)
    __atomic_store_n(&the_shares[i].ticket, (uint64_t)number << 32 | (uint32_t)share_begins(i, shares, size), __ATOMIC_SEQ_CST);
  __atomic_store_n(&the_loop.number, number, __ATOMIC_SEQ_CST);
  wake(&sleeping_workers, &a_loop_begins);
  take_tasks(number, 0);
  wait_while(tasks_are_left, number, &sleeping_caller, &the_loop_ends);
  status = __atomic_load_n(&the_loop.status, __ATOMIC_ACQUIRE);
  give_loop();
  return status;
}

/* What kernels call. */
int halide_do_par_for(void *call, task_function task, int min, int size, uint8_t *closure) {
  return the_parallel_for ? callers_do_par_for(call, task, min, size, closure)
                          : own_do_par_for(call, task, min, size, closure);
}

typedef struct {
  int (*body)(void *context, int32_t i);
  void *context;
} callers_loop;

static int callers_task(void *call, int i, uint8_t *closure) {
  const callers_loop *loop = (const callers_loop *)closure;
  (void)call;
  return loop->body(loop->context, i);
}

/* What callers call. */
static int run_loop(int (*body)(void *context, int32_t i), void *context, int32_t count) {
  callers_loop loop;
  loop.body = body, loop.context = context;
  return halide_do_par_for(NULL, callers_task, 0, count, (uint8_t *)&loop);
}

/* The library may be unloaded: no thread may run its code then. */
__attribute__((destructor)) static void end_threads(void) {
  if (the_workers > 0 && the_process == getpid() && take_loop()) end_workers(), give_loop();
}
