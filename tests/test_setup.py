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


def build(folder: Path, answer: int, variants: str = "baseline") -> None:
    """Build in place, from sources that hold one function."""
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
    environment = {**os.environ, "CXX": "g++", "CC": "gcc", "URZOO_BUILD_VARIANTS": variants}
    command = [sys.executable, str(SETUP), "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)


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


def built(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "urzoo" / "recurrence" / "cpu").glob("*.so"))


def test_a_clone_compiles_the_best_variant_alone_and_what_it_is_told_to(tmp_path: Path):
    """Each takes half a minute: compiling one that the machine would not use is time lost."""
    processor = Path("/proc/cpuinfo").read_text().split()
    best = next(
        variant
        for variant, needs in (
            ("avx512bf16", {"avx512_bf16", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}),
            ("avx512", {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}),
            ("avx2", {"avx2", "fma"}),
            ("baseline", set[str]()),
        )
        if needs <= set(processor)
    )
    for variants, expected in (
        ("", {f"_fused_{best}", "_variants"}),
        ("none", set[str]()),
        ("baseline,native", {"_fused_baseline", f"_fused_{best}", "_variants"}),
    ):
        folder = tmp_path / (variants or "default")
        build(folder, 1, variants)
        assert set(built(folder)) == expected


def test_an_unknown_variant_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(subprocess.CalledProcessError) as failure:
        build(tmp_path, 1, "native,avx3")
    assert failure.value.stderr.splitlines() == [
        "error: URZOO_BUILD_VARIANTS names 'avx3', expected all, none, or some of native,"
        "baseline,avx2,avx512,avx512bf16: URZOO_BUILD_VARIANTS=native"
    ]
