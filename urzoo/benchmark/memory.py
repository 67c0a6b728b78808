"""Peak memory of one training step, measured in a fresh process for each contender.

On a CPU it is the peak of the resident set during the step above its size before it; before, a step on a
sequence of two tokens loads the code and starts the threads. A fresh process, because an allocator that
has served another contender keeps memory that would not show as growth. On a GPU it is the allocator's
own peak above what was allocated before.

Run as `python -m urzoo.benchmark.memory SPECIFICATION`, with the specification in JSON.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import torch

from urzoo.benchmark.contenders import CONTENDERS, Contender, Layer, Workload
from urzoo.benchmark.shapes import Shape
from urzoo.errors import UrzooError
from urzoo.recurrence import Gating

TIMEOUT_SECONDS = 900
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory_mib(contender: Contender, shape: Shape, gating: Gating, *, device: str, threads: int) -> float:
    """Peak memory in MiB of one forward and backward pass of `contender`, beyond what its process held before.

    Raises:
        UrzooError: The process failed; the message has its last line.
    """
    specification = json.dumps(
        {
            "contender": contender.name,
            "shape": dataclasses.asdict(shape),
            "gating": dataclasses.asdict(gating),
            "device": device,
            "threads": threads,
        }
    )
    try:
        process = subprocess.run(
            [sys.executable, "-m", "urzoo.benchmark.memory", specification],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UrzooError(
            f"measuring the memory of {contender.name!r} on shape {shape.name!r} took over {TIMEOUT_SECONDS} s."
        ) from error
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise UrzooError(
            f"measuring the memory of {contender.name!r} on shape {shape.name!r} failed "
            f"(exit code {process.returncode}): {last}"
        )
    return float(json.loads(process.stdout.strip().splitlines()[-1])["peak_memory_mib"])


def measure(contender: Contender, shape: Shape, gating: Gating, *, device: torch.device) -> float:
    """Peak memory in MiB of one training step in this process; meaningful once per process."""
    warm_up = dataclasses.replace(shape, time=min(2, shape.time))
    Layer(contender, Workload(warm_up, gating, device)).train()
    layer = Layer(contender, Workload(shape, gating, device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        layer.train()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before_mib = _reset_peak_mib()
    layer.train()
    return max(0.0, _status_mib("VmHWM") - before_mib)


def _reset_peak_mib() -> float:
    """Set the peak of this process's resident set back to its size, and return that."""
    _CLEAR.write_text("5")
    return _status_mib("VmRSS")


def _status_mib(key: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise UrzooError(f"{_STATUS} has no {key}; peak memory can be measured on Linux only.")


def _main(specification: str) -> None:
    asked = json.loads(specification)
    torch.set_num_threads(asked["threads"])
    peak = measure(
        CONTENDERS[asked["contender"]],
        Shape(**asked["shape"]),
        Gating(**asked["gating"]),
        device=torch.device(asked["device"]),
    )
    sys.stdout.write(json.dumps({"peak_memory_mib": peak}) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
