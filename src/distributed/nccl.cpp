// NCCL's backend, in a library of its own: it needs libtorch's CUDA half, which is loaded at run
// time and only where there is a GPU.

#include "c10d.h"

#include <cstdlib>
#include <cstring>

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

char* cadwright_message(const char* text) {
  return strdup(text);
}

/// Connects the ranks by NCCL. `device` is the GPU of this rank.
extern "C" char* cadwright_c10d_nccl(
    CadwrightStore* store,
    int rank,
    int size,
    int device,
    int64_t timeout_ms,
    CadwrightGroup** out) {
  return cadwright_guarded([&] {
    // An operation then returns when it has ended or its time is over. Otherwise it only queues
    // work on the GPU, and after its time a thread of c10d ends the process.
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>("nccl", store->store);
    *out = new CadwrightGroup{c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank, size, options)};
  });
}
