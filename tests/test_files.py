"""Files are replaced whole or not at all."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from urzoo.errors import UrzooError, UsageError
from urzoo.files import new_folder, packaged, whole_folder, write_bytes, write_files, write_json, write_text


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
        from urzoo.errors import UrzooError, UsageError
        from urzoo.files import whole_folder, write_bytes
        from safetensors.numpy import save_file
        import numpy
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        target = Path(sys.argv[1])
        try:
            write_bytes(target, bytes(100_000))
        except UrzooError as error:
            print(error)
        try:
            with whole_folder(target.parent / "checkpoint") as made:
                save_file({"weight": numpy.zeros(100_000)}, made / "model.safetensors")
        except UrzooError as error:
            print(error)
    """
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), target], capture_output=True, text=True, check=True
    )
    assert [line.count("File too large") for line in done.stdout.splitlines()] == [1, 1]
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


def make(place: Path, content: str) -> None:
    with new_folder(place) as folder:
        (folder / "config.json").write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", ["absent", "empty"])
@pytest.mark.parametrize("arrival", ["a file in it", "a file in its place"])
def test_what_arrives_meanwhile_in_a_users_folder_stays(tmp_path: Path, before: str, arrival: str) -> None:
    place = tmp_path / "out"
    if before == "empty":
        place.mkdir()

    def write() -> None:
        with new_folder(place) as folder:
            (folder / "ours").write_text("a")
            if arrival == "a file in it":
                place.mkdir(exist_ok=True)
                (place / "mine").write_text("keep")
            else:
                place.rmdir() if place.exists() else None
                place.write_text("keep")

    with pytest.raises(UsageError, match="was free and holds something by now; all of it was left alone"):
        write()
    assert (place / "mine" if place.is_dir() else place).read_text() == "keep"
    assert names(tmp_path) == ["out"]


def test_of_two_that_make_one_folder_one_fails_and_the_other_is_whole(tmp_path: Path) -> None:
    def attempt(content: str) -> str | None:
        try:
            make(tmp_path / "out", content)
        except UsageError:
            return None
        return content

    for _ in range(20):
        with ThreadPoolExecutor(4) as threads:
            won = [content for content in threads.map(attempt, "abcd") if content]
        assert len(won) == 1
        assert (tmp_path / "out" / "config.json").read_text() == won[0]
        assert names(tmp_path) == ["out"]
        (tmp_path / "out" / "config.json").unlink()  # leaves it empty, which is as good as absent


def test_the_current_folder_is_filled_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    with new_folder(Path()) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("a")
        (folder / "config.json").write_text("b")
    assert names(tmp_path) == ["config.json", "deep"]
    assert tmp_path.stat().st_ino == inode
    with pytest.raises(UsageError, match="is not empty"):
        make(Path(), "c")


def test_what_arrives_in_the_current_folder_stays_and_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        (tmp_path / "config.json").write_text("mine")
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(UsageError, match="holds something by now"):
        make(Path(), "ours")
    assert names(tmp_path) == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "mine"


# Is killed in the middle: of writing, or with the old folder moved aside and the new one not yet in its place.
KILLED = """
import os, signal, sys
from pathlib import Path
from urzoo import files
moment, place = sys.argv[1], Path(sys.argv[2])
if moment == "between":
    rename = Path.rename
    def stop(self, target):
        if self.name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)
    Path.rename = stop
with files.whole_folder(place) as folder:
    (folder / "half").write_text("a")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_what_a_kill_leaves_is_cleared_by_the_next_and_nothing_is_lost(tmp_path: Path, moment: str) -> None:
    place = tmp_path / "made"
    make(place, "of before")
    (tmp_path / ".made.more.abcdefgh.part").mkdir()  # another folder's, and a user's own
    (tmp_path / ".made.abcdefgh.part").mkdir()
    (tmp_path / ".made.abcdefgh.part" / "thesis.txt").write_text("keep")
    done = subprocess.run([sys.executable, "-c", KILLED, moment, place], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert place.exists() == (moment == "writing")
    with whole_folder(place) as folder:
        assert (place / "config.json").read_text() == "of before"
        (folder / "config.json").write_text("of after")
    assert names(tmp_path) == [".made.abcdefgh.part", ".made.more.abcdefgh.part", "made"]


def test_several_files_are_replaced_together_and_what_a_kill_left_of_them_is_cleared(tmp_path: Path) -> None:
    code = "import os; from urzoo import files; files.write_bytes = lambda *_: os.kill(os.getpid(), 9); "
    call = f"from pathlib import Path; files.write_files(Path({str(tmp_path)!r}), {{'a/b': b'new'}})"
    done = subprocess.run([sys.executable, "-c", code + call], check=False)
    assert done.returncode == -signal.SIGKILL
    [leftover] = tmp_path.iterdir()
    assert leftover.name.endswith(".part")
    (tmp_path / "mine").write_text("keep")
    write_files(tmp_path, {"a/b": b"new", "c": b"newer"})
    assert names(tmp_path) == ["a", "c", "mine"]
    (tmp_path / "c").unlink()
    (tmp_path / "c").mkdir()
    with pytest.raises(UrzooError, match="cannot write"):
        write_files(tmp_path, {"c": b"in the place of a folder"})
    assert (tmp_path / "a" / "b").read_bytes() == b"new"


def test_a_package_without_its_files_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").touch()
    (tmp_path / "a.yaml").touch()
    assert packaged(tmp_path, "*.yaml") == [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    with pytest.raises(UrzooError, match=r"urzoo does not run from a zip file: install it with pip\."):
        packaged(tmp_path / "urzoo.zip" / "tasks", "*.yaml")


def test_what_another_is_writing_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    def slow() -> None:
        with new_folder(tmp_path / "out") as folder:
            make(tmp_path / "out", "quick")
            assert folder.is_dir()

    with pytest.raises(UsageError):
        slow()
    assert (tmp_path / "out" / "config.json").read_text() == "quick"


def test_a_name_of_many_bytes_is_written(tmp_path: Path) -> None:
    name = "\u6f22" * 85  # 255 bytes, the most there are
    write_text(tmp_path / name, "new")
    assert (tmp_path / name).read_text() == "new"
    with new_folder(tmp_path / f"{name[1:]}b") as folder:
        (folder / "config.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name[1:]}b"])
