#include "c10d.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using std::chrono::milliseconds;

char* cadwright_message(const char* text) {
  return strdup(text);
}

extern "C" {

void cadwright_c10d_free(char* message) {
  free(message);
}

/// Silences c10d's warnings, which repeat, with a stack, what its functions return as errors.
void cadwright_c10d_quiet() {
  FLAGS_caffe2_log_level = 2; // errors
}

/// Connects to the store at host:port, which this process also serves if `is_server`. If `workers`
/// is not 0, returns only after as many processes have connected.
char* cadwright_c10d_store(
    const char* host,
    uint16_t port,
    bool is_server,
    size_t workers,
    const char* prefix,
    int64_t timeout_ms,
    CadwrightStore** out) {
  return cadwright_guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    options.waitWorkers = workers > 0;
    if (workers > 0) {
      options.numWorkers = workers;
    }
    options.timeout = milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new CadwrightStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store)};
  });
}

void cadwright_c10d_store_close(CadwrightStore* store) {
  cadwright_guarded([&] { delete store; });
}

/// Adds `amount` to the number under `key`, which begins at 0, and reads the sum.
char* cadwright_c10d_store_add(CadwrightStore* store, const char* key, int64_t amount, int64_t* sum) {
  return cadwright_guarded([&] { *sum = store->store->add(key, amount); });
}

char* cadwright_c10d_store_set(CadwrightStore* store, const char* key, const uint8_t* bytes, size_t length) {
  return cadwright_guarded([&] { store->store->set(key, std::vector<uint8_t>(bytes, bytes + length)); });
}

/// Reads the text under `key`: null if there is none. The text is freed like a message.
char* cadwright_c10d_store_find(CadwrightStore* store, const char* key, char** text) {
  return cadwright_guarded([&] {
    *text = nullptr;
    if (store->store->check({key})) {
      auto bytes = store->store->get(key);
      *text = cadwright_message(std::string(bytes.begin(), bytes.end()).c_str());
    }
  });
}

/// Connects the ranks by Gloo. It listens on the network interface `interface`, else at `address`,
/// else where the name of this machine leads.
char* cadwright_c10d_gloo(
    CadwrightStore* store,
    int rank,
    int size,
    const char* interface,
    const char* address,
    int64_t timeout_ms,
    CadwrightGroup** out) {
  return cadwright_guarded([&] {
    using c10d::ProcessGroupGloo;
    auto options = ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(
        *interface     ? ProcessGroupGloo::createDeviceForInterface(interface)
            : *address ? ProcessGroupGloo::createDeviceForHostname(address)
                       : ProcessGroupGloo::createDefaultDevice());
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>("gloo", store->store);
    *out = new CadwrightGroup{c10::make_intrusive<ProcessGroupGloo>(prefixed, rank, size, options)};
  });
}

void cadwright_c10d_group_close(CadwrightGroup* group) {
  cadwright_guarded([&] { delete group; });
}

/// Replaces `tensor` by its sum over the ranks.
char* cadwright_c10d_all_reduce(CadwrightGroup* group, at::Tensor* tensor) {
  return cadwright_guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    group->backend->allreduce(tensors)->wait();
  });
}

/// Replaces `tensor` by that of the rank `root`.
char* cadwright_c10d_broadcast(CadwrightGroup* group, at::Tensor* tensor, int root) {
  return cadwright_guarded([&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->backend->broadcast(tensors, options)->wait();
  });
}

/// Writes the tensors `own` of all ranks to `all`, one after another.
char* cadwright_c10d_all_gather(CadwrightGroup* group, at::Tensor* all, at::Tensor* own) {
  return cadwright_guarded([&] { group->backend->_allgather_base(*all, *own)->wait(); });
}

/// Sums `all` over the ranks and writes this rank's part, one of as many as there are ranks, to
/// `own`.
char* cadwright_c10d_reduce_scatter(CadwrightGroup* group, at::Tensor* own, at::Tensor* all) {
  return cadwright_guarded([&] { group->backend->_reduce_scatter_base(*own, *all)->wait(); });
}

} // extern "C"
