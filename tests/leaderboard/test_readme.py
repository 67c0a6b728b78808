from pathlib import Path

import pytest

from urzoo.errors import StaleError, UrzooError
from urzoo.leaderboard.build import build, check
from urzoo.leaderboard.readme import BEGIN, END, embedded_board, update_readme

TEXT = f"# Project\n\nBefore.\n\n{BEGIN}\n{END}\n\nAfter \\1 stays.\n"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    return path


def test_the_boards_head_goes_between_the_marks(example: Path, checkpoints: Path, readme: Path):
    build(example, example.parent, readme=readme, checkpoints=checkpoints)
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    head, after = rest.split(END)
    assert (before, after) == ("# Project\n\nBefore.\n\n", "\n\nAfter \\1 stays.\n")
    assert (
        "| Sequential MNIST | Accuracy, %, higher is better | **98.71** (98.51 to 98.89), someone/urgru-256 |" in head
    )
    assert "(board/plots/overview.svg)" in head


def test_a_second_update_changes_nothing(example: Path, checkpoints: Path, readme: Path):
    board = build(example, example.parent, checkpoints=checkpoints).board
    assert update_readme(readme, board, example.parent)
    assert not update_readme(readme, board, example.parent)
    assert embedded_board(readme, board, example.parent) is None


def test_the_check_notices_a_stale_readme(example: Path, checkpoints: Path, readme: Path):
    build(example, example.parent, checkpoints=checkpoints)
    with pytest.raises(StaleError, match=r"README.md. Type: urzoo leaderboard"):
        check(example, example.parent, readme=readme, checkpoints=checkpoints)


@pytest.mark.parametrize("text", ["# Project\n", f"{END}\n{BEGIN}\n", TEXT + TEXT, f"{BEGIN}\n"])
def test_a_readme_without_the_marks_is_refused_before_anything_is_written(
    example: Path, checkpoints: Path, readme: Path, text: str
):
    readme.write_text(text)
    with pytest.raises(UrzooError, match="must hold the lines"):
        build(example, example.parent, readme=readme, checkpoints=checkpoints)
    assert readme.read_text() == text
    assert not (example.parent / "README.md").exists()


def test_a_missing_readme_is_one_line(example: Path, checkpoints: Path, tmp_path: Path):
    with pytest.raises(UrzooError, match=r"cannot read .*nowhere.md"):
        build(example, example.parent, readme=tmp_path / "nowhere.md", checkpoints=checkpoints)
