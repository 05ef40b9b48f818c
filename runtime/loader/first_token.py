"""What makes the first steps on mapped weights fast: pages mapped at once, and a better kernel for one row. Step 8.

Touched one by one, the pages of a 1.2 GB copy cost 0.1 s and more of faults in the first step. Asked for at once, in a
thread beside the rest of the build, they cost 0.04 s. oneDNN multiplies a single row (a decode of one request) by
weights in plain layout at about half the plain kernel's speed. On two cores it is 16 and 27 GB/s. Neither changes what
is computed: both accumulate in 32 bits.
"""

from __future__ import annotations

import ctypes
import mmap
import threading

import torch

MADV_POPULATE_READ = 22  # Linux 5.14; older kernels refuse it, and pages then come as they are touched


def populate(mapped: mmap.mmap) -> None:
    """Have every page of a mapping read and in this process's page table, soon. Returns at once."""
    mapped.madvise(mmap.MADV_WILLNEED)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    arguments = (ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), MADV_POPULATE_READ)
    # By ctypes: mmap's own madvise would hold the interpreter's lock all the while.
    threading.Thread(target=ctypes.CDLL(None).madvise, args=arguments, name="populate", daemon=True).start()


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (…, in) @ weight (out, in)ᵀ + bias, as `torch.nn.functional.linear`."""
    if x.numel() != x.shape[-1]:
        return torch.nn.functional.linear(x, weight, bias)
    torch._C._set_mkldnn_enabled(False)  # of this thread's process; the engine computes in one thread
    try:
        return torch.nn.functional.linear(x, weight, bias)
    finally:
        torch._C._set_mkldnn_enabled(True)
