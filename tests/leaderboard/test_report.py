"""The report: every number from its source, words from the remarks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.errors import StaleError, UrzooError
from urzoo.leaderboard.build import build, check
from urzoo.leaderboard.report import REMARKS, REPORT

from .conftest import BuiltBoard, write_checkpoint
from .test_problem_curves import write_curves


def report_of(results: Path, checkpoints: Path) -> str:
    build(results, results.parent, checkpoints=checkpoints)
    return (results.parent / REPORT).read_text()


def row_of(report: str, *cells: str) -> list[str]:
    """The cells of the table row that begins with these."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    [row] = [line for line in lines if line[: len(cells)] == list(cells)]
    return row


def test_it_says_what_was_trained_and_where_it_stands(example: Path, checkpoints: Path):
    report = report_of(example, checkpoints)
    row = row_of(report, "urlstm-128-smnist")
    assert row[1:8] == ["Sequential MNIST", "UR LSTM", "102,154", "30", "1", "1.5 h", "900 MiB"]
    assert row[9:] == ["98.46 %", "98.62 %"]
    assert row_of(report, "Sequential MNIST", "someone/urgru-256")[2:4] == ["98.71 %", "98.51 to 98.89"]
    assert row_of(report, "Sequential MNIST", "someone/urgru-256")[5] == "-0.56, worse"
    assert "Sequential MNIST: 0.56 from the published UR-GRU" in report
    assert "google/vit-tiny" not in report


def test_it_names_what_an_aggregator_alone_lists_apart_from_what_is_published(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    put("urlstm-256-pmnist", "pmnist", 0.97)
    report = report_of(results, checkpoints)
    row = row_of(report, "Permuted MNIST", "urlstm-256-pmnist")
    assert row[5].startswith("+0.04")
    assert row[6] == "97.58 % (the variant is not named)"
    assert "0.58 from the 97.58 listed by the aggregator (the variant is not named)." in report
    assert "from the published UR-LSTM" not in report


def test_the_validation_of_other_weights_is_not_claimed(put: Callable[..., Path], results: Path, tmp_path: Path):
    put("urlstm-128-smnist", "smnist", model__weights_sha256="9" * 64)
    write_checkpoint(tmp_path / "zoo" / "urlstm-128-smnist", "smnist", "8" * 64, [0.9, 0.97])
    assert row_of(report_of(results, tmp_path / "zoo"), "urlstm-128-smnist")[9] == ""


def test_it_tells_the_gatings_apart_over_their_seeds(put: Callable[..., Path], results: Path, checkpoints: Path):
    for name, gate, scores in (("ur", "UR", (0.98, 0.984)), ("plain", "--", (0.97, 0.97))):
        for seed, score in enumerate(scores):
            put(f"urlstm-128-{name}-seed{seed}-smnist", "smnist", score, model__gate=gate, model__training__seed=seed)
    report = report_of(results, checkpoints)
    row = row_of(report, "UR LSTM", "2")
    # Deviation 0.2828 over two seeds, and none of the other: a standard error of 0.2.
    assert row[2:] == ["98.20 ± 0.28 %", "98.00 to 98.40", "+1.20 ± 0.20"]
    assert "urlstm-128-ur-smnist has the best mean and urlstm-128-plain-smnist the worst, 1.20 apart." in report


def test_it_says_which_gating_solves_a_problem_and_when(results: Path, checkpoints: Path):
    path = write_curves(results.parent / "curves", "adding", steps=1)
    lines = ["task,gate,seed,step,mean_squared_error"]
    lines += [f"adding,UR,0,{step},{0.1 / step}" for step in (1, 5, 10, 20)] + ["adding,--,0,20,0.16"]
    path.write_text("\n".join(lines) + "\n")
    report = report_of(results, checkpoints)
    assert row_of(report, "UR", "1") == ["UR", "1", "20", "10", "0.005000"]
    assert row_of(report, "&#45;-", "1")[3] == "not solved"
    assert "First to solve it: UR. Not solved within the steps trained: &#45;-." in report


def test_an_empty_board_has_a_report(results: Path, checkpoints: Path):
    report = report_of(results, checkpoints)
    assert "Nothing that is on the board yet." in report
    assert "No ranked figure yet: " in report


def test_remarks_are_taken_in_and_may_hold_no_figure(built: BuiltBoard):
    remarks = built.out / REMARKS
    remarks.write_text("The refine gate alone was *unstable* with 2 of 3 seeds.\n")
    with pytest.raises(StaleError, match=r"REPORT\.md"):
        check(built.results, built.out, checkpoints=built.checkpoints)
    build(built.results, built.out, checkpoints=built.checkpoints)
    assert "## Remarks\n\nThe refine gate alone was *unstable*" in (built.out / REPORT).read_text()
    for figure in ("98.6", "about 97 % of it", "1,000 steps"):
        remarks.write_text(f"It got {figure}.\n")
        with pytest.raises(UrzooError, match=r"remarks\.md holds the figure"):
            build(built.results, built.out, checkpoints=built.checkpoints)


def test_hostile_text_stays_text(put: Callable[..., Path], results: Path, checkpoints: Path):
    put("urlstm-128-smnist", "smnist", model__training__hardware="<script>alert(1)</script> | [x](javascript:y) `")
    report = report_of(results, checkpoints)
    assert "<script" not in report
    assert "](javascript" not in report
    assert len(row_of(report, "urlstm-128-smnist")) == 11
