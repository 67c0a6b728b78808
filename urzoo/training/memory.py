"""How a process that trains uses memory."""

import contextlib
import ctypes

# The names of malloc.h for when glibc gives memory back, and from which size a block is asked of the system itself.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next one, for the rest of this process.

    glibc gives large blocks back to the system at once, and every step of a small network spends a tenth of its time
    on faulting the same pages in again. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 2**30)
