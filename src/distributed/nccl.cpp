// NCCL's backend, in a library of its own: it needs libtorch's CUDA half, which is loaded at run
// time and only where there is a GPU.

#include "c10d.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

char* cadwright_message(const char* text) {
  return strdup(text);
}

extern "C" char* cadwright_c10d_nccl(
    CadwrightStore* store,
    int rank,
    int size,
    int64_t timeout_ms,
    CadwrightGroup** out) {
  return cadwright_guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>("nccl", store->store);
    *out = new CadwrightGroup{c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank, size, options)};
  });
}
