"""How a process that trains uses memory."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from urzoo.training.memory import keep_freed_memory

if {kept}:
    keep_freed_memory()

def step():
    torch.ones(10_000_000)

for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    done = subprocess.run([sys.executable, "-c", STEPS.format(kept=kept)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_step_finds_the_memory_of_the_step_before():
    assert faults(kept=False) > 10_000
    assert faults(kept=True) < 100
