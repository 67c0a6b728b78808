"""How the fused CPU back end shares work among threads, on more than any machine here has: by simulation.

`shares.cpp` asks the source how it would share; nothing is multiplied.
"""

import ctypes
import functools
import itertools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recurrence.conftest import gating_id, make_problem
from urzoo.recurrence import Gating, backends
from urzoo.recurrence.cpu import library

SOURCE = Path(library.__file__).with_name("source")
LINE = 64
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
    "avx512bf16": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx512bf16"],
}

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile the question")
every_variant = pytest.mark.parametrize("variant", [name for name in FLAGS if name in library.variants()])


@dataclass(frozen=True)
class Share:
    """What one thread computes at every step."""

    rows: range
    units: range

    @property
    def work(self) -> int:
        """In products of a row with the weights of a unit."""
        return len(self.rows) * len(self.units)

    def lines(self, value_bytes: int) -> set[int]:
        """The lines of the cache that it writes in a row of values, one a unit."""
        return {unit * value_bytes // LINE for unit in self.units}


@functools.cache
def question(variant: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "shares.so")
        command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-pthread", *FLAGS[variant], f"-I{SOURCE}"]
        files = [Path(__file__).with_name("shares.cpp"), SOURCE / "threads.cpp", SOURCE / "tiles.cpp"]
        subprocess.run([*command, "-o", str(target), *map(str, files)], check=True)
        compiled = ctypes.CDLL(str(target))
    for name in ("vector_width", "stride_of", "barriers_apart"):
        getattr(compiled, name).restype = ctypes.c_int64
    return compiled


def shares(variant: str, threads: int, *, batch: int, hidden: int, bf16: bool = False, time: int = 784) -> list[Share]:
    found = (ctypes.c_int64 * 4 * threads)()
    sizes = (ctypes.c_int64(size) for size in (batch, time, 1, hidden, bf16))
    used = question(variant).share_out(*sizes, threads, found)
    assert 1 <= used <= threads
    return [Share(range(part[0], part[1]), range(part[2], part[3])) for part in found[:used]]


def common(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


@needs_compiler
@every_variant
@settings(max_examples=100, deadline=None, derandomize=True)
@given(threads=st.integers(1, 64), batch=st.integers(1, 300), hidden=st.integers(1, 1100), bf16=st.booleans())
def test_every_unit_of_every_row_is_one_threads_and_no_line_of_the_cache_is_two_threads(
    variant: str, threads: int, batch: int, hidden: int, bf16: bool
):
    found = shares(variant, threads, batch=batch, hidden=hidden, bf16=bf16)
    value_bytes = 2 if bf16 and variant == "avx512bf16" else 4  # of the hidden state as factors
    assert question(variant).stride_of(ctypes.c_int64(hidden)) * 4 % LINE == 0
    assert sum(share.work for share in found) == batch * hidden
    for one, other in itertools.combinations(found, 2):
        if common(one.rows, other.rows):
            assert not common(one.units, other.units)
            assert not one.lines(value_bytes) & other.lines(value_bytes)


def slowest(found: list[Share], threads: int) -> float:
    """The work of the thread that has most, over an equal share for as many threads as were asked."""
    return max(share.work for share in found) * threads / sum(share.work for share in found)


@needs_compiler
@every_variant
@pytest.mark.parametrize("threads", [2, 4, 6, 8, 12, 16, 24, 32, 48, 64])
def test_no_thread_of_a_machine_has_much_more_than_its_share(variant: str, threads: int):
    for hidden in (128, 256, 512, 1024):
        for batch, most in ((16, 1.5), (64, 1.13), (256, 1.13)):
            assert slowest(shares(variant, threads, batch=batch, hidden=hidden), threads) <= most
        # Of a single row each thread has one line of units at least, and more threads than that are left alone.
        assert len(shares(variant, threads, batch=1, hidden=hidden)) >= min(threads, 8) / 1.5


@needs_compiler
@every_variant
@settings(max_examples=100, deadline=None, derandomize=True)
@given(threads=st.integers(1, 64), batch=st.integers(1, 300), hidden=st.integers(100, 1100), bf16=st.booleans())
def test_no_share_is_thrice_another_where_there_is_enough_for_all(
    variant: str, threads: int, batch: int, hidden: int, bf16: bool
):
    lines = batch * hidden // (LINE // (2 if bf16 and variant == "avx512bf16" else 4))
    found = shares(variant, threads, batch=batch, hidden=hidden, bf16=bf16)
    assert lines < threads or slowest(found, threads) < 3


@needs_compiler
@every_variant
def test_threads_are_not_woken_for_what_is_over_before(variant: str):
    assert len(shares(variant, 8, batch=4, hidden=64, time=2)) == 1
    assert len(shares(variant, 8, batch=4, hidden=64, time=784)) > 1


@needs_compiler
@every_variant
def test_who_waits_and_who_arrives_do_not_share_a_line_of_the_cache(variant: str):
    assert question(variant).barriers_apart() == 2 * LINE


@torch.no_grad()
@pytest.mark.parametrize("gating", [Gating("UR"), Gating("OM"), Gating("UR", "gru")], ids=gating_id)
def test_many_more_threads_than_processors_give_the_bits_of_one(gating: Gating):
    problem = make_problem(gating, batch=5, time=9, input_size=3, hidden_size=300).to(torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 12, 64):
            torch.set_num_threads(threads)
            found.append(problem.run(backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for outputs, final in found[1:]:
        assert torch.equal(outputs, found[0][0])
        assert all(map(torch.equal, final, found[0][1]))
