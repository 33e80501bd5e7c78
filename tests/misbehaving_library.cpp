// A kernel library whose kernels misbehave, each in the way that its name says. All claim to be the forward pass of
// "in=6x8 kernel=1x2"; `sound` is.
#include <sys/mman.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>
#include "convsmith/abi.h"

namespace {

enum Fault {
  sound, segmentation_fault, illegal_instruction, aborts, exits, prints_garbage, endless, grandchild, closes_output,
  prints_a_gigabyte, takes_ten_gigabytes, out_of_bounds, writes_its_input, one_wrong_element, nan_element,
  uninitialised_read, depends_on_threads, other_each_run, wrong_later
};
constexpr const char *names[] = {"sound", "segmentation_fault", "illegal_instruction", "aborts", "exits", "prints_garbage", "endless",
                                 "grandchild", "closes_output", "prints_a_gigabyte", "takes_ten_gigabytes", "out_of_bounds",
                                 "writes_its_input", "one_wrong_element", "nan_element", "uninitialised_read",
                                 "depends_on_threads", "other_each_run", "wrong_later"};
constexpr const char *argument_names[] = {"x", "weight", "y"};

int32_t threads = 1;

convsmith_tensor dense(int64_t h, int64_t w) { return {nullptr, CONVSMITH_F32, 4, {1, 1, h, w}, {h * w, h * w, w, 1}, nullptr}; }

void init(convsmith_tensor *a, const int64_t *) { a[0] = dense(6, 8), a[1] = dense(1, 2), a[2] = dense(6, 7); }

void flood(size_t bytes) {
  static char text[1 << 16];
  std::memset(text, 'x', sizeof text);
  for (size_t written = 0; written < bytes; written += sizeof text)
    if (write(STDOUT_FILENO, text, sizeof text) < 0) return;
}

template<Fault fault>
convsmith_status run(const convsmith_tensor *a, convsmith_error *) {
  static int calls = 0;
  calls++;
  auto *x = static_cast<float *>(a[0].data);
  const auto *w = static_cast<const float *>(a[1].data);
  auto *y = static_cast<float *>(a[2].data);
  if (fault == segmentation_fault) *static_cast<volatile int *>(nullptr) = 1;
  if (fault == illegal_instruction) __builtin_trap();
  if (fault == aborts) std::abort();
  if (fault == exits) _exit(0);
  if (fault == prints_garbage) std::printf("{\"number\": 3, \"min_us\"\n\n%c%c", 1, 2), std::fflush(stdout);
  if (fault == endless) {
    std::signal(SIGTERM, SIG_IGN);
    for (volatile bool on = true; on;) {}
  }
  if (fault == grandchild && fork() == 0) {
    setsid();
    sleep(5);
    _exit(0);
  }
  if (fault == grandchild) _exit(1);
  if (fault == closes_output) {
    for (int fd = 1; fd < 256; fd++) close(fd);
  }
  if (fault == prints_a_gigabyte) flood(size_t{1} << 30);
  if (fault == takes_ten_gigabytes) {
    auto *memory = static_cast<char *>(mmap(nullptr, size_t{10} << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < size_t{10} << 30; i += 4096) memory[i] = 1;
  }
  float old = y[20];
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 7; j++) y[i * 7 + j] = w[0] * x[i * 8 + j] + w[1] * x[i * 8 + j + 1];
  if (fault == out_of_bounds) y[42] = 1;
  if (fault == writes_its_input) x[3] = 0;
  if (fault == one_wrong_element) y[41] += 1;
  if (fault == nan_element) y[7] = __builtin_nanf("");
  if (fault == uninitialised_read) y[20] += 0 * old;  // 0, but for an infinity or a NaN
  if (fault == depends_on_threads && threads > 1) y[9] = y[9] * (1 + 0x1p-23f);
  if (fault == other_each_run && calls % 2) y[9] = y[9] * (1 + 0x1p-23f);
  if (fault == wrong_later && calls > 200) y[0] += 1;
  return CONVSMITH_OK;
}

size_t workspace(const int64_t *, int32_t) { return 0; }

template<int... faults>
const convsmith_pass *passes_of(std::integer_sequence<int, faults...>) {
  static const convsmith_pass passes[] = {{names[faults], "forward", "in=6x8 kernel=1x2", 3, 1, argument_names, 0, nullptr, init,
                                           run<Fault(faults)>, workspace}...};
  return passes;
}

const char *const levels[] = {"plain"};

}  // namespace

extern "C" __attribute__((visibility("default"))) const convsmith_library *misbehaving_library(void) {
  static const convsmith_library table{CONVSMITH_ABI,
                                       "misbehaving",
                                       "1.0",
                                       int32_t(std::size(names)),
                                       passes_of(std::make_integer_sequence<int, int(std::size(names))>()),
                                       1,
                                       levels,
                                       [] { return int32_t{0}; },
                                       [](int32_t, convsmith_error *) { return CONVSMITH_OK; },
                                       [](int32_t count) { threads = count; },
                                       [](convsmith_parallel_for, void *) {},
                                       [](int (*)(void *, std::int32_t), void *, std::int32_t) { return 0; },
                                       [](const convsmith_allocator *) {},
                                       nullptr};
  return &table;
}
