"""What a benchmark run is once it is over: the environment, and one row per shape, figure and contender.

This is the schema of the CSV files under leaderboard/benchmarks/. Every number in it was measured in the
run; what does not apply, or could not be measured, is None, with the reason in `note`.
"""

import csv
import io
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field, ValidationError

from urzoo.errors import ResultError
from urzoo.files import write_text
from urzoo.provenance import git_commit, now, processor_name, urzoo_version
from urzoo.recurrence import Gating
from urzoo.schema import GitCommit, Line, Name, Positive, Strict, describe, read_text

Figure = Literal["forward", "forward_backward", "memory", "decode", "decode_layer", "training_step"]
FIGURES: tuple[Figure, ...] = get_args(Figure)

Amount = Annotated[float, Field(ge=0)]

_CPU_INFO = Path("/proc/cpuinfo")


class Environment(Strict):
    """Where and with what a run was made; nothing in it tells one machine of a kind from another."""

    hardware: Line
    device: Literal["cpu", "cuda"]
    threads: Positive
    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    urzoo_version: Line
    git_commit: GitCommit | None = None
    torch_version: Line
    python_version: Line
    measured_on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Measurement(Strict):
    """One contender's figure on one shape.

    `milliseconds` is the median over `rounds` of the time of one call (of one step for "decode", by the cell, and
    "decode_layer", by a call of the layer), with its least and greatest. `gflops_per_second` is what the figure's
    arithmetic comes to; for the rows of the limit (contender "limit-fp32" or "limit-bf16") it is what the machine
    reaches on large products. The shares and ratios are medians of ratios taken round by round: `share_of_limit` of 1
    is the machine's limit in the contender's dtype, `over_torch_lstm` of 2 is twice as fast as torch.nn.LSTM (fp32),
    for "decode" as torch.nn.LSTMCell, and for "memory" it is half of torch.nn.LSTM's memory;
    `over_own_fp32` compares with the same back end in fp32. `share_with_gates` counts the measured time of the gates'
    arithmetic in the limit, and is of the fastest rounds. `share_of_recurrence` is the time of the bare
    recurrence over that of the whole training step.
    """

    shape: Name
    batch: Positive
    time: Positive
    input_size: Positive
    hidden_size: Positive
    figure: Figure
    contender: Name
    dtype: Literal["fp32", "bf16"]
    rounds: Positive | None = None
    milliseconds: Amount | None = None
    milliseconds_low: Amount | None = None
    milliseconds_high: Amount | None = None
    tokens_per_second: Amount | None = None
    gflops_per_second: Amount | None = None
    share_of_limit: Amount | None = None
    share_with_gates: Amount | None = None
    over_torch_lstm: Amount | None = None
    over_ur_lstm_torch: Amount | None = None
    over_onnxruntime: Amount | None = None
    over_reference: Amount | None = None
    over_own_fp32: Amount | None = None
    share_of_recurrence: Amount | None = None
    peak_memory_mib: Amount | None = None
    note: Line = ""


class Report(Strict):
    """One run of the benchmark."""

    environment: Environment
    rows: list[Measurement]


def environment(device: torch.device, gating: Gating) -> Environment:
    """The environment of a run that begins now, with the thread count that torch has at this moment."""
    return Environment(
        hardware=hardware(device),
        device="cuda" if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        cell="gru" if gating.cell == "gru" else "lstm",
        gate=gating.name,
        tie_input_gate=gating.tie_input_gate,
        urzoo_version=urzoo_version(),
        git_commit=git_commit(),
        torch_version=torch.__version__,
        python_version=platform.python_version(),
        measured_on=now()[:10],
    )


def hardware(device: torch.device) -> str:
    """The GPU's name, or the processor's with its vector instructions as torch sees them."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = processor_name()
    # Virtual machines often say no more than the maker: family and model tell the generations apart.
    if _CPU_INFO.is_file():
        described = dict(re.findall(r"^(cpu family|model)\s*: (\d+)$", _CPU_INFO.read_text(), flags=re.MULTILINE))
        name += "".join(f" {key.removeprefix('cpu ')} {value}" for key, value in described.items())
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


def file_stem(environment: Environment) -> str:
    """The file name of a run without its ending: device, threads, cell and gating, versions."""
    gating = f"{environment.cell}-{environment.gate.replace('-', '_')}"
    if not environment.tie_input_gate:
        gating += "-untied"
    parts = [
        environment.hardware,
        f"{environment.threads}-threads",
        "" if gating == "lstm-UR" else gating,
        f"torch-{environment.torch_version}",
        f"urzoo-{environment.urzoo_version}",
    ]
    return "-".join(slug for part in parts if (slug := re.sub(r"[^a-z0-9._]+", "-", part.lower()).strip("-")))


def write_csv(report: Report, path: Path) -> None:
    """Write the rows to `path`, each with its environment, in one step."""
    columns = [*Environment.model_fields, *Measurement.model_fields]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    environment = report.environment.model_dump()
    for row in report.rows:
        values = {**environment, **row.model_dump()}
        writer.writerow([_cell(values[column]) for column in columns])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> Report:
    """The run in a file that `write_csv` wrote.

    Raises:
        ResultError: The file is unreadable, or is not such a file; the message names the line and the column.
    """
    records = list(csv.reader(io.StringIO(read_text(path, error=ResultError))))
    known = {**Environment.model_fields, **Measurement.model_fields}
    columns = records[0] if records else []
    # A run of an older version lacks the figures that were added since.
    required = {name for name, field in known.items() if field.is_required()}
    if not required <= set(columns) <= known.keys() or len(set(columns)) < len(columns):
        first = ", ".join(list(known)[:3])
        raise ResultError(f"{path} does not begin with the columns {first}, ...; run `urzoo bench`.")
    if len(records) == 1:
        raise ResultError(f"{path} has no rows; run `urzoo bench`.")
    environments: list[Environment] = []
    rows: list[Measurement] = []
    for number, record in enumerate(records[1:], start=2):
        if len(record) != len(columns):
            raise ResultError(f"{path}, line {number} has {len(record)} cells, expected {len(columns)}.")
        cells = {name: value for name, value in zip(columns, record, strict=True) if value or name == "note"}
        try:
            environments.append(Environment.model_validate_strings(_chosen(cells, Environment)))
            rows.append(Measurement.model_validate_strings(_chosen(cells, Measurement)))
        except ValidationError as failure:
            raise ResultError(f"{path}, line {number}: {describe(failure)}") from failure
    if any(other != environments[0] for other in environments):
        raise ResultError(f"{path} mixes rows of several runs; expected one run in each file.")
    return Report(environment=environments[0], rows=rows)


def _chosen(cells: dict[str, str], schema: type[Strict]) -> dict[str, str]:
    return {name: value for name, value in cells.items() if name in schema.model_fields}


def _cell(value: object) -> str:
    if value is None:
        return ""
    # Six digits are more than any timing holds.
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def find(rows: Sequence[Measurement], *, shape: str, figure: str, contender: str) -> Measurement | None:
    """The row of one contender's figure on one shape, None where it was not asked for."""
    asked = (shape, figure, contender)
    return next((row for row in rows if (row.shape, row.figure, row.contender) == asked), None)
