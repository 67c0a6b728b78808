"""Loops recorded as CUDA graphs: a shape that comes back is replayed by one launch in place of thousands.

A graph reads and writes the tensors it was recorded on. What is to outlive the call is therefore copied out of
them, which costs a few per cent of the loop and lets layers and forward passes of one shape share one graph.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from urzoo.recurrence.triton.loops import Scan, Tensors

Loop = Callable[[Scan, Tensors], None]

CALLS_BEFORE_RECORDING = 2
"""Plain runs of a shape before it is recorded: they compile the kernels, and show that the shape repeats."""
RECORDED_SHAPES = 8
"""Graphs kept per loop; the one not used for longest makes room."""


@dataclass
class Workspace:
    """The tensors of one run of a loop; fixed ones belong to a recorded graph."""

    scan: Scan
    backward: bool
    tensors: Tensors
    replay: Callable[[], None] | None = None

    def tensor(self, name: str) -> Tensor:
        """One tensor to be written to, allocated where it does not exist yet."""
        if name not in self.tensors:
            shape, dtype = self.scan.shapes(backward=self.backward)[name]
            self.tensors[name] = torch.empty(shape, dtype=dtype, device=self.scan.device)
        return self.tensors[name]

    def put(self, name: str, tensor: Tensor) -> None:
        """Give the loop a tensor it only reads, converted to the dtype it reads."""
        if self.replay is not None:
            self.tensors[name].copy_(tensor)
            return
        _, dtype = self.scan.shapes(backward=self.backward)[name]
        self.tensors[name] = tensor.to(dtype).contiguous()

    def take(self, name: str) -> Tensor:
        """A result that may be kept."""
        return self.tensors[name] if self.replay is None else self.tensors[name].clone()


class Recorder:
    """Runs one of the two loops, plainly at first and by replaying a graph once a shape has repeated."""

    def __init__(self, loop: Loop, *, backward: bool) -> None:
        self._loop = loop
        self._backward = backward
        self._lock = threading.Lock()
        self._calls: Counter[Hashable] = Counter()
        self._recorded: OrderedDict[Hashable, Workspace] = OrderedDict()

    @contextmanager
    def workspace(self, scan: Scan) -> Iterator[Workspace]:
        """The tensors to fill, to run on and to take results from, for the time of the `with` block."""
        if not can_record(scan.device):
            yield Workspace(scan, self._backward, {})
            return
        # Work on another stream may still be reading the tensors of this one.
        key = (scan, torch.cuda.current_stream(scan.device).cuda_stream if scan.device.type == "cuda" else 0)
        with self._lock:
            if key in self._recorded:
                self._recorded.move_to_end(key)
                yield self._recorded[key]
                return
            self._calls[key] += 1
            yield Workspace(scan, self._backward, {})
            if self._calls[key] == CALLS_BEFORE_RECORDING:
                self._record(key, scan)

    def run(self, workspace: Workspace) -> None:
        """Run the loop over a workspace that has been filled."""
        if workspace.replay is not None:
            workspace.replay()
            return
        for name in workspace.scan.shapes(backward=self._backward):
            workspace.tensor(name)
        self._loop(workspace.scan, workspace.tensors)

    def release(self) -> None:
        """Forget all recorded shapes."""
        with self._lock:
            self._recorded.clear()
            self._calls.clear()

    def _record(self, key: Hashable, scan: Scan) -> None:
        workspace = Workspace(scan, self._backward, {})
        try:
            for name in scan.shapes(backward=self._backward):
                workspace.tensor(name)
            workspace.replay = record(lambda: self._loop(scan, workspace.tensors))
        except torch.cuda.OutOfMemoryError:
            # The plain run fits where a second set of tensors does not: this shape stays with it.
            return
        self._recorded[key] = workspace
        while len(self._recorded) > RECORDED_SHAPES:
            self._recorded.popitem(last=False)


def can_record(device: torch.device) -> bool:
    """Whether a loop may be recorded: on a CUDA device, unless the caller is recording a graph already."""
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def record(run: Callable[[], None]) -> Callable[[], None]:
    """Record what `run` launches, without running it; returns what replays it."""
    graph = torch.cuda.CUDAGraph()
    # Other threads, such as one that pins batches, may go on using the device.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay
