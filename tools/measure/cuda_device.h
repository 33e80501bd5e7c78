// What CUDA's driver says of the device that Halide's run-time takes: HL_GPU_DEVICE, else the one of most multiprocessors.
#pragma once
#include <optional>
#include <string>
#include "roof.h"

namespace convsmith {

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // its compute capability
  Roof roof;                 // f32 multiply-adds of all lanes at the highest clock, and the memory's data rate: nominal
};

/// None where there is no driver, or no device.
std::optional<CudaDevice> cuda_device();

}  // namespace convsmith
