"""A push or pull killed at any moment leaves the repository, and the local folder, complete or untouched."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .checkpoints import image_checkpoint
from .conftest import client_environment
from .server import HubServer

# Imports once, then forks for each line it reads: "ACT FOLDER". Says the child's pid, then how it ended.
PROGRAM = """
import os, sys
from pathlib import Path
from urzoo.hub.pull import pull
from urzoo.hub.push import push
for line in sys.stdin:
    act, folder = line.split()
    child = os.fork()
    if child == 0:
        push(Path(folder), "alice/m") if act == "push" else pull("alice/m", out=Path(folder))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Client:
    """A process that pushes and pulls on demand, and whose work can be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, act: str, folder: Path, *, kill_after: float | None = None) -> int:
        """The wait status of the work: 0 if it ended well, 9 if it was killed."""
        self.process.stdin.write(f"{act} {folder}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())


@pytest.fixture
def worker(hub: HubServer, tmp_path: Path) -> Iterator[Client]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=client_environment(hub, tmp_path / "home"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Client(process)
        process.stdin.close()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_at_moments(hub: HubServer, worker: Client, tmp_path: Path, *, count: int, seed: int) -> None:
    moments = random.Random(seed)
    hub.fail(delay_seconds=0.02, times=10**6)  # stretches the work, so that the moments spread over its requests
    old, new = (image_checkpoint(tmp_path / f"in-{number}", seed=number, hidden_size=64) for number in (1, 2))
    hub.store.write("alice/m", content(old))
    assert worker.run("push", new) == 0  # and with it the imports
    hub.store.repositories.clear()
    start = time.monotonic()
    assert worker.run("push", new) == 0
    seconds = time.monotonic() - start
    ends = []
    for number in range(count):
        hub.store.repositories.clear()
        hub.store.write("alice/m", content(old))
        before = hub.store.model("alice/m").commit("main").oid
        ends.append(worker.run("push", new, kill_after=moments.uniform(0, seconds)))
        # The server may still be at work on what the killed client had sent in full.
        time.sleep(0.1)
        repository = hub.store.model("alice/m")
        if repository.commit("main").oid == before:
            assert repository.files() == content(old)
        else:
            assert repository.files() == content(new)
            assert repository.commit("main").parent == before

        hub.store.write("alice/m", content(new))
        out = tmp_path / f"out-{number}"
        ends.append(worker.run("pull", out, kill_after=moments.uniform(0, seconds)))
        assert not out.exists() or content(out) == content(new)
    assert signal.SIGKILL in ends
    # A kill while the folder is put in its place leaves a hidden one beside it, until the next pull to that name.
    for number in range(count):
        if not (tmp_path / f"out-{number}").exists():
            assert worker.run("pull", tmp_path / f"out-{number}") == 0
    assert not list(tmp_path.glob(".*"))
    assert worker.run("push", new) == worker.run("pull", tmp_path / "out") == 0
    repository = hub.store.model("alice/m")
    assert repository.files() == content(tmp_path / "out") == content(new)
    assert [repository.files(tag) for tag in repository.tags] == [content(new)]
    assert not list((tmp_path / "home" / "urzoo" / "alice--m" / "commits").glob(".*"))


def test_a_kill_leaves_all_or_nothing(hub: HubServer, worker: Client, tmp_path: Path) -> None:
    kill_at_moments(hub, worker, tmp_path, count=4, seed=0)


@pytest.mark.slow
def test_fifty_kills_leave_all_or_nothing(hub: HubServer, worker: Client, tmp_path: Path) -> None:
    kill_at_moments(hub, worker, tmp_path, count=50, seed=1)
