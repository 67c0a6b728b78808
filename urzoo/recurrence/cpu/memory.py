"""Large tensors out of a pool of memory in huge pages.

A training step over 784 time steps saves hundreds of MiB. Fresh from the system they arrive in pages of
4 KiB, and faulting these in can cost as much as the arithmetic. Blocks therefore return here when their
tensor dies and serve the next step; one that was of no use for a while goes back to the system.
"""

import math
import mmap
import threading
import weakref
from collections import deque

import torch
from torch import Tensor

HUGE_PAGE_BYTES = 1 << 21
_PATIENCE = 16  # requests that a free block waits through before it is given back

_lock = threading.Lock()
_requests = 0
_free: list[tuple[int, mmap.mmap]] = []  # (request after which it was last seen in use, block)
# Tensors die in any thread and at any moment, also while this module holds its lock: a deque needs none.
_returned: deque[mmap.mmap] = deque()


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An uninitialised CPU tensor, as `torch.empty` gives it; from the pool if it is large."""
    count = math.prod(shape)
    size_bytes = count * dtype.itemsize
    if size_bytes < HUGE_PAGE_BYTES:
        return torch.empty(shape, dtype=dtype, device="cpu")  # whatever the defaults are
    block = _take(-(-size_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES)
    lease = memoryview(block)
    # The storage of the tensor holds the lease, and only it does.
    weakref.finalize(lease, _returned.append, block).atexit = False
    tensor = torch.frombuffer(lease, dtype=dtype, count=count).view(shape)
    if torch.are_deterministic_algorithms_enabled() and torch._C._get_deterministic_fill_uninitialized_memory():
        tensor.fill_(math.nan)
    return tensor


def release() -> None:
    """Give all free blocks back to the system."""
    with _lock:
        _collect()
        _free.clear()


def _collect() -> None:
    while _returned:
        _free.append((_requests, _returned.popleft()))


def _take(size_bytes: int) -> mmap.mmap:
    """The smallest free block that fits and wastes at most a quarter, else a new one."""
    global _requests
    with _lock:
        _collect()
        _requests += 1
        fitting = [entry for entry in _free if size_bytes <= len(entry[1]) <= size_bytes + size_bytes // 4]
        chosen = min(fitting, key=lambda entry: len(entry[1]), default=None)
        _free[:] = [entry for entry in _free if entry is not chosen and _requests - entry[0] <= _PATIENCE]
    if chosen is not None:
        return chosen[1]
    block = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
