#include "cuda_device.h"
#include <dlfcn.h>
#include <cstdlib>

namespace convsmith {
namespace {

// CUdevice_attribute
constexpr int clock_khz = 13, multiprocessors = 16, memory_clock_khz = 36, memory_bus_bits = 37, capability_major = 75, capability_minor = 76;

// f32 multiply-adds that a multiprocessor starts in a cycle: the programming guide's table of arithmetic throughput.
int lanes_of(int major, int minor) { return major == 7 || (major == 8 && minor == 0) ? 64 : 128; }

template<class Function> bool find(void *library, const char *name, Function *&function) {
  function = reinterpret_cast<Function *>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

std::optional<CudaDevice> cuda_device() {
  void *library = dlopen("libcuda.so.1", RTLD_LAZY);  // never closed: it may have started threads
  if (!library) return std::nullopt;
  int (*init)(unsigned), (*count)(int *), (*get)(int *, int), (*attribute)(int *, int, int), (*name_of)(char *, int, int);
  if (!find(library, "cuInit", init) || !find(library, "cuDeviceGetCount", count) || !find(library, "cuDeviceGet", get) ||
      !find(library, "cuDeviceGetAttribute", attribute) || !find(library, "cuDeviceGetName", name_of))
    return std::nullopt;
  int devices = 0;
  if (init(0) != 0 || count(&devices) != 0) return std::nullopt;
  const char *asked = std::getenv("HL_GPU_DEVICE");
  std::optional<CudaDevice> found;
  int most = -1;
  for (int i = 0; i < devices; i++) {
    int device = 0;
    if ((asked && std::atoi(asked) != i) || get(&device, i) != 0) continue;
    const auto value = [&](int which) {
      int v = 0;
      return attribute(&v, which, device) == 0 ? double(v) : 0;
    };
    if (value(multiprocessors) <= most) continue;
    most = int(value(multiprocessors));
    CudaDevice d;
    char name[256] = "";
    name_of(name, sizeof name, device);
    d.name = name, d.major = int(value(capability_major)), d.minor = int(value(capability_minor));
    d.roof.gflops = most * lanes_of(d.major, d.minor) * 2 * value(clock_khz) / 1e6;
    d.roof.copies = {{1, 2 * value(memory_clock_khz) * value(memory_bus_bits) / 8 / 1e6}};  // two transfers a cycle
    found = d;
  }
  return found;
}

}  // namespace convsmith
