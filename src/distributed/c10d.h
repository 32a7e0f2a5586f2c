// The functions of c10d that `c10d.rs` calls, with C linkage. A function that can fail returns its
// message, to be freed with `cadwright_c10d_free`, or null.

#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

/// A key-value store that all ranks share.
struct CadwrightStore {
  c10::intrusive_ptr<c10d::Store> store;
};

/// The ranks, connected by one backend.
struct CadwrightGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
};

/// The message of an error, on the heap.
char* cadwright_message(const char* text);

/// Runs `work` and returns the message of what it throws, or null.
template <typename Work>
char* cadwright_guarded(Work&& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const c10::Error& error) {
    return cadwright_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return cadwright_message(error.what());
  } catch (...) {
    return cadwright_message("unknown exception");
  }
}
