"""The largest memory a process has used."""

import resource

import torch


def peak_memory_mib() -> float:
    """MiB: of the GPU where there is one, otherwise the largest resident set of this process (Linux counts KiB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
