"""Learning curves on the synthetic problems, from tables that anyone may have edited."""

import re
from pathlib import Path

import pytest

from urzoo.errors import ResultError
from urzoo.leaderboard.build import build, make_board
from urzoo.leaderboard.charts import charts
from urzoo.leaderboard.collect import current_tasks
from urzoo.leaderboard.problem_curves import problem_curves
from urzoo.recurrence.gates import GATINGS

HEADS = {"copy": "accuracy", "adding": "mean_squared_error"}


def write_curves(
    folder: Path, task: str, gates: tuple[str, ...] = ("UR", "--"), seeds: int = 3, steps: int = 4
) -> Path:
    """A table in which a gating's score depends on its place, the seed and the step."""
    lines = [f"task,gate,seed,step,{HEADS[task]}"]
    for place, gate in enumerate(gates):
        for seed in range(seeds):
            lines += [
                f"{task},{gate},{seed},{step},{0.5 - 0.1 * place - 0.01 * seed / step}" for step in range(1, steps + 1)
            ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_curve_is_the_median_and_the_range_over_the_seeds(tmp_path: Path):
    write_curves(tmp_path, "copy")
    plain, ur = problem_curves(tmp_path, current_tasks())["copy"]
    assert (plain.gate, ur.gate, ur.seeds, ur.metric, ur.steps) == ("--", "UR", 3, "accuracy", (1, 2, 3, 4))
    assert ur.median[0] == pytest.approx(49.0)
    assert (ur.low[0], ur.high[0]) == (pytest.approx(48.0), pytest.approx(50.0))


def test_a_long_run_is_thinned_and_keeps_its_end(tmp_path: Path):
    write_curves(tmp_path, "adding", steps=1001)
    curve = problem_curves(tmp_path, current_tasks())["adding"][0]
    assert len(curve.steps) <= 121
    assert curve.steps[-1] == 1001


def test_the_board_draws_and_lists_them(tmp_path: Path):
    out = tmp_path / "board"
    for task in HEADS:
        write_curves(out / "curves", task, ("UR", "--", "-R", "C-", "U-"))
    board, _ = make_board(out / "results", out)
    drawn = [chart for chart in charts(board) if chart.kind == "problem_curves"]
    assert {chart.task for chart in drawn} == set(HEADS)
    assert [section.task for section in board.sections[-2:]] == ["copy", "adding"]
    for chart in drawn:
        assert [line.gate for line in chart.lines] == ["UR", "U-", "C-", "-R", "--"]
        assert [name for name, _ in chart.references] == ["chance"]
        assert all(0 <= chart.y.position(y) <= 1 for line in chart.lines for _, y in line.points)
    built = build(out / "results", out)
    assert (out / "plots" / "problem_curves.svg") in built.files
    text = (out / "README.md").read_text()
    assert "plots/problem_curves.svg" in text
    assert "curves/copy.csv" in text
    page = (out / "index.html").read_text()
    assert len(re.findall(r'<path class="band hue\d"', page)) == 10
    assert 'href="curves/adding.csv"' in page


def test_many_gatings_stand_in_a_panel_for_each_primary_gate_beside_the_standard_one(tmp_path: Path):
    out = tmp_path / "board"
    write_curves(out / "curves", "copy", GATINGS)
    board, _ = make_board(out / "results", out)
    panels = [chart for chart in charts(board) if chart.kind == "problem_curves"]
    assert [[line.gate for line in panel.lines] for panel in panels] == [
        ["UR", "UM", "U-", "--"],
        ["OR", "OM", "O-", "--"],
        ["CR", "CM", "C-", "--"],
        ["-R", "-M", "--"],
    ]
    assert len({(panel.x, panel.y) for panel in panels}) == 1
    assert [line.gate for panel in panels for line in panel.lines if line.low] == [*reversed(GATINGS)]
    assert len({panel.panel for panel in panels}) == 4
    built = build(out / "results", out)
    assert (out / "plots" / "problem_curves.svg") in built.files
    page = (out / "index.html").read_text()
    for panel in panels:
        assert f"Gatings by training step, {panel.panel}</figcaption>" in page
        assert f">{panel.title}, {panel.panel}</text>" in (out / "plots" / "problem_curves.svg").read_text()
    named = re.findall(r' id="(plot-[^"]*)"', page)
    assert len(set(named)) == len(named) == 8


def test_the_report_lists_what_solved_first_and_of_the_rest_the_best(tmp_path: Path):
    (tmp_path / "curves").mkdir()
    ends = {"--": 0.5, "-R": 0.9, "CR": 0.995, "UR": 1.0, "OM": 0.7}
    lines = [f"copy,{gate},0,{step},{0.1 if step == 1 else end}" for gate, end in ends.items() for step in (1, 2)]
    lines.append("copy,UR,0,3,0.4")
    (tmp_path / "curves" / "copy.csv").write_text("\n".join(["task,gate,seed,step,accuracy", *lines, ""]))
    build(tmp_path / "results", tmp_path)
    report = (tmp_path / "REPORT.md").read_text()
    table = report.split("### Copy memory, learning curves")[1]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
    assert [row[0].removeprefix("| ").replace("&#45;", "-") for row in rows] == ["CR", "UR", "-R", "OM", "--"]
    assert [row[4].removesuffix(" |") for row in rows] == ["99.50", "40.00", "90.00", "70.00", "50.00"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("copy.csv", "", "line 1: expected task,gate,seed,step"),
        ("copy.csv", "task,gate,seed,step,loss\n", "line 1"),
        ("copy.csv", "task,gate,seed,step,accuracy\ncopy,UR,0,1\n", "line 2"),
        ("copy.csv", "task,gate,seed,step,accuracy\ncopy,UR,0,1,nan\n", "line 2"),
        ("copy.csv", "task,gate,seed,step,accuracy\ncopy,<b>,0,1,0.5\n", "line 2"),
        ("copy.csv", "task,gate,seed,step,accuracy\ncopy,UR,-1,1,0.5\n", "line 2"),
        ("copy.csv", "task,gate,seed,step,accuracy\nadding,UR,0,1,0.5\n", "line 2"),
        ("cpoy.csv", "task,gate,seed,step,accuracy\n", "named after no task"),
    ],
)
def test_a_damaged_table_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, complaint: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(ResultError, match=complaint) as caught:
        problem_curves(tmp_path, current_tasks())
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
