"""Files are replaced whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from urzoo.errors import UrzooError
from urzoo.files import whole_folder, write_bytes, write_json, write_text


def test_content_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    write_text(target, "first\n")
    write_text(target, "second\n")
    assert target.read_bytes() == b"second\n"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_json_keeps_key_order_and_refuses_nan(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"b": 1, "a": "é"})
    assert target.read_text("utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError):
        write_json(target, {"a": float("nan")})
    assert target.read_text("utf-8").startswith('{\n  "b"')


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old\n")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UrzooError, match="No space left on device") as caught:
        write_text(target, "new\n")
    assert "\n" not in str(caught.value)
    assert target.read_text() == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_really_full_file_system_leaves_the_old_content(tmp_path: Path) -> None:
    """With a limit on the size of files the kernel itself refuses the write in its middle."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from urzoo.errors import UrzooError
        from urzoo.files import write_bytes
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_bytes(Path(sys.argv[1]), bytes(100_000))
        except UrzooError as error:
            print(error)
    """
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), target], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UrzooError, match="cannot write"):
        write_text(tmp_path / "taken" / "file.txt", "x")


def test_files_follow_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file.bin", b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o666 & ~umask


def test_a_whole_folder_takes_its_place_only_when_complete(tmp_path):
    place = tmp_path / "made"

    def stop_half_way():
        with whole_folder(place) as folder:
            (folder / "half").write_text("a")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with whole_folder(place) as folder:
            (folder / content).write_text(content)
        assert [file.name for file in place.iterdir()] == [content]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_old_folder_survives_a_failed_replacement(tmp_path):
    place = tmp_path / "made"
    with whole_folder(place) as folder:
        (folder / "old").write_text("a")
    with pytest.raises(UrzooError, match="cannot write"), whole_folder(place) as folder:
        raise OSError(28, "No space left on device")
    assert [file.name for file in place.iterdir()] == ["old"]
