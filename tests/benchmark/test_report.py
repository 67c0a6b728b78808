import csv
import io
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from urzoo.benchmark.measurements import Environment, Measurement, Report, file_stem, read_csv, write_csv
from urzoo.benchmark.readme import BEGIN, END, render
from urzoo.benchmark.report import check_summary, draw, render_summary, write_report, write_summary
from urzoo.benchmark.tables import absences, scaling, sheets, table
from urzoo.errors import ResultError, StaleError, UrzooError

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = Environment(
    hardware="Example CPU (8 cores) AVX512",
    device="cpu",
    threads=2,
    cell="lstm",
    gate="UR",
    tie_input_gate=True,
    urzoo_version="0.1.0",
    git_commit=None,
    torch_version="2.13.0+cpu",
    python_version="3.11.7",
    measured_on="2026-11-23",
)


def row(contender, figure, **values):
    sizes = {"shape": "h128", "batch": 64, "time": 784, "input_size": 1, "hidden_size": 128}
    return Measurement(**sizes, contender=contender, figure=figure, **{"dtype": "fp32", **values})


REPORT = Report(
    environment=ENVIRONMENT,
    rows=[
        row(
            "urzoo-reference",
            "forward",
            rounds=5,
            milliseconds=10.123456789,
            milliseconds_low=9.0,
            milliseconds_high=12.5,
            tokens_per_second=4_956_000.0,
            gflops_per_second=650.0,
            share_of_limit=0.5,
            over_torch_lstm=1.25,
        ),
        row("urzoo-cpu", "forward", note="no compiler, found | none"),
        row("limit-fp32", "forward", rounds=5, gflops_per_second=1300.0),
        row("urzoo-reference", "memory", rounds=1, peak_memory_mib=332.4, over_torch_lstm=2.0),
        row("urzoo-reference", "decode", rounds=5, milliseconds=0.1234, milliseconds_low=0.1, milliseconds_high=0.2),
    ],
)


def test_runs_with_several_numbers_of_threads_are_compared():
    def run(threads, **milliseconds):
        rows = [row(name.replace("_", "-"), "forward", milliseconds=value) for name, value in milliseconds.items()]
        return Report(environment=ENVIRONMENT.model_copy(update={"threads": threads}), rows=rows)

    console = Console(file=io.StringIO(), width=120)
    console.print(scaling([run(1, urzoo_cpu=6.0, torch_lstm=4.0), run(4, urzoo_cpu=2.0)]))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["h128", "forward", "urzoo-cpu", "1.00", "3.00"] in lines
    assert ["h128", "forward", "torch-lstm", "1.00"] in lines
    assert any("4 threads" in " ".join(line) for line in lines)


def test_a_csv_file_reads_back_as_it_was_written(tmp_path):
    write_csv(REPORT, tmp_path / "a.csv")
    again = read_csv(tmp_path / "a.csv")
    assert again.environment == REPORT.environment
    assert [(r.contender, r.figure, r.note) for r in again.rows] == [
        (r.contender, r.figure, r.note) for r in REPORT.rows
    ]
    assert again.rows[0].milliseconds == pytest.approx(10.123456789, rel=1e-5)
    write_csv(again, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("hardware,", "machine,", 1), "does not begin with the columns"),
        (lambda text: "", "does not begin with the columns"),
        (lambda text: text.splitlines()[0] + "\n", "has no rows"),
        (lambda text: text.replace(",650,", ",fast,"), "line 2: key gflops_per_second is 'fast'"),
        (lambda text: text.replace(",650,", ",nan,"), "line 2: key gflops_per_second"),
        (lambda text: text.replace("0.1.0", "0.2.0", 1), "mixes rows of several runs"),
        (lambda text: text + "a,b\n", "line 7 has 2 cells"),
    ],
)
def test_a_damaged_csv_file_is_refused_in_one_line(tmp_path, change, complaint):
    path = tmp_path / "a.csv"
    write_csv(REPORT, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ResultError, match=complaint) as error:
        read_csv(path)
    assert "\n" not in str(error.value)


def test_a_run_of_an_older_version_lacks_the_figures_added_since(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(REPORT, path)
    records = list(csv.reader(path.read_text().splitlines()))
    column = records[0].index("over_own_fp32")
    path.write_text(
        "".join(",".join(cells[:column] + cells[column + 1 :]) + "\n" for cells in records if "|" not in cells[-1])
    )
    assert read_csv(path).rows[0].share_of_limit == 0.5
    path.write_text(path.read_text().replace("hidden_size", "over_torch_lstm", 1))
    with pytest.raises(ResultError, match="does not begin with the columns"):
        read_csv(path)


def test_the_file_name_has_device_threads_and_versions_and_nothing_else_of_the_machine():
    assert file_stem(ENVIRONMENT) == "example-cpu-8-cores-avx512-2-threads-torch-2.13.0-cpu-urzoo-0.1.0"
    untied = ENVIRONMENT.model_copy(update={"gate": "--", "tie_input_gate": False})
    assert "-lstm-__-untied-" in file_stem(untied)


def test_the_table_on_the_screen_has_the_figures():
    text = io.StringIO()
    Console(file=text, width=240).print(table(REPORT))
    for expected in ("h128, batch 64, time 784", "4,956", "50%", "1.25", "332", "0.123", "limit 1,300 GFLOP/s"):
        assert expected in text.getvalue()
    assert "Not run: urzoo-cpu: no compiler, found | none" in text.getvalue()


def test_a_contender_that_did_not_run_is_named_but_has_no_line():
    (sheet,) = sheets(REPORT)
    assert [line[0] for line in sheet.lines] == ["urzoo-reference"]
    assert len(absences(REPORT)) == 1


def test_the_page_is_a_function_of_the_csv_files(tmp_path):
    write_report(REPORT, tmp_path)
    write_summary(tmp_path)
    check_summary(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page == render_summary(tmp_path)
    assert "4,956" in page
    assert f"]({file_stem(ENVIRONMENT)}.png)" in page
    # The bar in the note must not open a cell.
    assert "found | none" not in page

    (tmp_path / "README.md").write_text(page.replace("4,956", "5,956"))
    with pytest.raises(StaleError):
        check_summary(tmp_path)
    (tmp_path / "README.md").unlink()
    with pytest.raises(StaleError):
        check_summary(tmp_path)


def test_a_quick_run_is_no_run_of_record(tmp_path):
    table_path, plot_path = write_report(REPORT, tmp_path, suffix="quick")
    assert table_path.name.endswith("-quick.csv")
    assert plot_path.is_file()
    write_summary(tmp_path)
    assert "4,956" not in (tmp_path / "README.md").read_text()


def test_the_plot_is_a_picture_and_the_same_for_the_same_figures():
    picture = draw(REPORT)
    assert Image.open(io.BytesIO(picture)).size > (800, 300)
    assert draw(REPORT) == picture


def test_every_contender_in_the_legend_has_bars_of_its_colour(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        Figure, "legend", lambda self, marks, labels, **_: shown.update(zip(labels, marks, strict=True))
    )
    forward_alone = row("onnxruntime-lstm", "forward", gflops_per_second=100.0)
    draw(REPORT.model_copy(update={"rows": [*REPORT.rows, forward_alone]}))
    bars = {name: mark for name, mark in shown.items() if not name.startswith("limit")}
    assert "onnxruntime-lstm" in bars
    assert all(len(mark.patches) for mark in bars.values())
    assert len({mark.patches[0].get_facecolor() for mark in bars.values()}) == len(bars)


def test_a_run_without_rates_still_has_a_plot():
    assert draw(REPORT.model_copy(update={"rows": REPORT.rows[-1:]}))


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="needs a checkout")
def test_the_committed_page_and_readme_are_up_to_date():
    check_summary(ROOT / "leaderboard" / "benchmarks", readme=ROOT / "README.md")


OWN = REPORT.model_copy(
    update={
        "rows": [
            row("urzoo-cpu", "forward", share_of_limit=0.921, over_torch_lstm=1.66, over_ur_lstm_torch=8.04),
            row("urzoo-cpu", "decode", milliseconds=0.1234, over_torch_lstm=0.47),
            row("urzoo-cpu", "decode_layer", milliseconds=0.2345, over_torch_lstm=0.85),
            row("urzoo-cpu-recompute", "memory", peak_memory_mib=96.0, over_torch_lstm=8.0),
            row("urzoo-cpu-bf16", "forward", dtype="bf16", over_own_fp32=1.75),
        ]
    }
)


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# before\n{BEGIN}\nold\n{END}\nafter\n")
    return path


def test_the_readme_shows_the_runs_of_record(tmp_path, readme):
    runs = tmp_path / "runs"
    write_report(OWN, runs)
    with pytest.raises(StaleError):
        check_summary(runs, readme=readme)
    write_summary(runs, readme=readme)
    check_summary(runs, readme=readme)
    text = readme.read_text()
    assert text.startswith("# before\n")
    assert text.endswith("after\n")
    line = next(line for line in text.splitlines() if line.startswith("| 64 x 784"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "64 x 784, 1, 128", "92%", "1.66", "8.0", "1.75", "0.12", "0.123", "0.47", "0.234", "0.85",
    ]  # fmt: skip
    assert "has not run on one" in text
    readme.write_text(text.replace("92%", "93%"))
    with pytest.raises(StaleError, match="README"):
        check_summary(runs, readme=readme)


def test_a_quick_run_or_another_gating_is_not_shown(tmp_path):
    write_report(OWN, tmp_path, suffix="quick")
    gru = OWN.model_copy(update={"environment": ENVIRONMENT.model_copy(update={"cell": "gru"})})
    write_report(gru, tmp_path)
    assert "92%" not in render(tmp_path)


def test_without_a_run_it_says_so(tmp_path):
    assert "Nothing was measured on a CPU yet" in render(tmp_path)
    assert "has not run on one" in render(tmp_path)
    check_summary(tmp_path / "missing")


def test_a_readme_without_the_marks_is_left_alone(tmp_path, readme):
    readme.write_text("no marks\n")
    with pytest.raises(UrzooError, match="must hold the lines"):
        write_summary(tmp_path / "runs", readme=readme)
    assert readme.read_text() == "no marks\n"
