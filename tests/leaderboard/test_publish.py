"""What is published: a Space that needs nothing else, and a data set from which the board can be built again."""

import re
from pathlib import Path

import yaml

from urzoo.leaderboard.build import build
from urzoo.leaderboard.publish import is_published, is_source, published_files

from .conftest import BuiltBoard, write_checkpoint, write_result
from .test_problem_curves import write_curves


def front_matter(card: bytes) -> dict[str, object]:
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_the_space_holds_the_page_and_everything_it_links_to(built: BuiltBoard):
    write_curves(built.out / "curves", "copy")
    space, _ = published_files("alice/board", built.out, checkpoints=built.checkpoints)
    card = front_matter(space["README.md"])
    assert (card["sdk"], card["app_file"], card["datasets"]) == ("static", "index.html", ["alice/board"])
    page = space["index.html"].decode()
    links = {link for link in re.findall(r'href="([^"#:]+)"', page) if not link.startswith(("http", "data"))}
    assert links <= set(space)
    assert any(link.startswith("results/") for link in links)
    assert set(re.findall(r"\]\((plots/[^)]+|curves/[^)]+)\)", space["README.md"].decode())) <= set(space)


def test_the_board_can_be_built_again_from_the_data_set(built: BuiltBoard, tmp_path: Path):
    write_result(built.results, "tiny-seed0", "smnist", model__source="study")
    write_checkpoint(built.out / "gating_study" / "tiny-seed0", "smnist", "a" * 64, [0.5, 0.9])
    (built.out / "gating_study" / "tiny-seed0" / "model.safetensors").write_bytes(b"large")
    space, data_set = published_files("alice/board", built.out, checkpoints=built.checkpoints)
    assert not any("safetensors" in path for path in (*space, *data_set))
    assert front_matter(data_set["README.md"])["configs"][0]["data_files"] == "leaderboard.csv"
    other = tmp_path / "again"
    for path, content in data_set.items():
        if is_source(path):
            (other / path).parent.mkdir(parents=True, exist_ok=True)
            (other / path).write_bytes(content)
    build(other / "results", other, checkpoints=built.checkpoints)
    for file in ("index.html", "leaderboard.json", "REPORT.md"):
        assert (other / file).read_bytes() == space[file]
    assert "tiny-seed0" in space["leaderboard.json"].decode().partition('"curves"')[2]


def test_partial_and_local_results_and_what_is_no_part_of_the_board_stay_here(built: BuiltBoard):
    (built.out / "notes.txt").write_text("mine")
    (built.out / "measured").mkdir()
    (built.out / "measured" / "x.json").write_text("{}")
    write_result(built.results, "mine+12345678", "smnist", data__source="local", data__name="patients")
    write_checkpoint(built.out / "gating_study" / "mine-seed0", "smnist", "a" * 64, [0.5, 0.9])
    left_out = build(built.results, built.out, checkpoints=built.checkpoints).left_out
    assert left_out["mine+12345678/smnist.json"] == "on data of your own"
    for files in published_files("alice/board", built.out, checkpoints=built.checkpoints):
        assert not any("urlstm-32" in path or "mine" in path or "notes" in path or "measured" in path for path in files)
        assert not any(str(built.out).encode() in content for content in files.values())
        assert not any(b"patients" in content for content in files.values())


def test_only_names_of_results_and_curves_are_taken():
    assert is_source("results/urlstm-128-smnist/smnist.json")
    assert is_source("results/someone__model+0a1b2c3d/smnist.json")
    assert is_source("curves/copy.csv")
    for path in (
        "results/../x/smnist.json",
        "results/a/b/c.json",
        "a.json",
        "results/a/x.py",
        "curves/../x.csv",
        "/etc/passwd",
    ):
        assert not is_source(path)
        assert not is_published(path)
    assert is_published("plots/overview.svg")
    assert not is_published("README.md")
