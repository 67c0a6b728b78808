"""Building the fused CPU back end: what setup.py promises beside compiling it."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "setup.py"
pytestmark = [
    pytest.mark.skipif(not SETUP.is_file(), reason="needs a checkout"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def build(folder: Path, answer: int) -> None:
    """Build in place, from sources that hold one function; all variants at once."""
    source = folder / "urzoo" / "recurrence" / "cpu" / "source"
    source.mkdir(parents=True, exist_ok=True)
    for path in (SETUP.parent / "urzoo" / "recurrence" / "cpu" / "source").glob("*.cpp"):
        (source / path.name).write_text("")
    # Large, so that copying it takes long enough to be seen.
    (source / "interface.cpp").write_text(
        f'extern "C" __attribute__((visibility("default"))) int answer() {{ return {answer}; }}\n'
        '__attribute__((visibility("default"))) extern const char filler[1 << 25];\n'
        "const char filler[1 << 25] = {1};\n"
    )
    environment = {**os.environ, "CXX": "g++", "CC": "gcc"}
    command = [sys.executable, str(SETUP), "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def test_a_library_that_is_built_anew_is_replaced_at_once(tmp_path: Path):
    """A process that opens it in the middle gets the old one or the new one, and one that has it keeps it."""
    build(tmp_path, 1)
    path = tmp_path / "urzoo" / "recurrence" / "cpu" / "_fused_baseline.so"
    old = ctypes.CDLL(str(path))
    seen: set[int | None] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(path.stat().st_size)
            except FileNotFoundError:
                seen.add(None)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        build(tmp_path, 2)
    finally:
        done.set()
        watcher.join()
    assert seen == {path.stat().st_size}
    assert old.answer() == 1
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r}).answer())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"2\n"
    assert not [other.name for other in path.parent.iterdir() if other.name.startswith(".")]
