"""`urzoo card` of several checkpoints: a mistyped name writes nothing, a check names every stale card."""

import shutil
from pathlib import Path

import pytest

from urzoo.cli import main
from urzoo.hub.export import export
from urzoo.zoo import path


def test_several_cards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    results.mkdir()
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        export(path("urlstm-128-smnist"), Path(folder))
        (Path(folder) / "README.md").write_text("mine\n", encoding="utf-8")

    assert main(["card", *folders, "nope", "--results", str(results)]) != 0
    assert all((Path(folder) / "README.md").read_text(encoding="utf-8") == "mine\n" for folder in folders)

    capsys.readouterr()
    assert main(["card", *folders, "--check", "--results", str(results)]) == 1
    message = capsys.readouterr().err
    assert all(f"urzoo card {folder}" in message for folder in folders)

    assert main(["card", *folders, "--results", str(results)]) == 0
    assert main(["card", *folders, "--check", "--results", str(results)]) == 0


def test_a_card_that_cannot_be_rendered_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    whole, damaged = (tmp_path / name for name in ("whole", "damaged"))
    for folder in (whole, damaged):
        export(path("urlstm-128-smnist"), folder)
    (whole / "README.md").write_text("mine\n", encoding="utf-8")
    (damaged / "training.json").write_text("{}", encoding="utf-8")
    assert main(["card", str(whole), str(damaged), "--results", str(results)]) == 1
    assert (whole / "README.md").read_text(encoding="utf-8") == "mine\n"


def test_a_card_keeps_its_results_under_another_name_and_never_loses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy goes by another name in results; those of the checkpoint itself are its results, too."""
    copy, results = tmp_path / "copy", Path("leaderboard/results")
    for name in ("urlstm-128-smnist", "urlstm-128-ur-adding"):  # with files in the Hub's format, and without
        export(path(name), copy)
        before = (copy / "README.md").read_bytes()
        assert main(["card", str(copy), "--check", "--results", str(results)]) == 0
        (tmp_path / "none").mkdir(exist_ok=True)
        assert main(["card", str(copy), "--results", str(tmp_path / "none")]) == 2
        assert "holds no result of copy, whose card shows some" in capsys.readouterr().err
        assert main(["card", str(copy), "--results", str(results)]) == 0
        assert (copy / "README.md").read_bytes() == before
        shutil.rmtree(copy)
