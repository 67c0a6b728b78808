"""The rows of one figure on one shape: builds the contenders, guards them, times them and compares them."""

import dataclasses
import time
from collections.abc import Sequence

import torch

from urzoo.benchmark.agreement import check_gradients, check_outputs
from urzoo.benchmark.contenders import DECODED_STEPS, Contender, Layer, Workload, absence, takes_part
from urzoo.benchmark.gates import gate_calls, gate_cost
from urzoo.benchmark.limit import limit_flops_per_second, products
from urzoo.benchmark.measurements import Figure, Measurement
from urzoo.benchmark.memory import peak_memory_mib
from urzoo.benchmark.shapes import Shape
from urzoo.benchmark.timing import Call, interleave, median_ratio, spread
from urzoo.benchmark.training_step import TrainingStep, has_model
from urzoo.errors import BackendError
from urzoo.recurrence import Gating

# The peers' layers are LSTMs with an input gate or a refine gate: four blocks of weights.
_BLOCKS_OF_PEERS = 4


@dataclasses.dataclass(frozen=True)
class Contest:
    """One shape and one figure: what is measured in the same rounds."""

    shape: Shape
    figure: Figure

    @property
    def is_decoding(self) -> bool:
        """Whether single steps of one sequence are timed."""
        return self.figure in ("decode", "decode_layer")


def has_figure(contender: Contender, figure: Figure) -> bool:
    """Whether there is such a figure of `contender`."""
    return takes_part(contender, figure) and (figure != "training_step" or has_model(contender))


def build(contender: Contender, workload: Workload) -> Layer | str:
    """The layer of `contender`, or why it cannot take part here."""
    reason = absence(contender, workload.gating, workload.device)
    if reason:
        return reason
    try:
        layer = Layer(contender, workload)
        # One step shows whether the back end takes this gating and dtype at all.
        layer.decode()
    except BackendError as error:
        return str(error)
    return layer


def left_out_rows(contest: Contest, chosen: Sequence[Contender], seconds: float) -> list[Measurement]:
    """Rows that say of contenders that they would take too long in a run of `seconds`."""
    note = f"its rounds would take longer than their share of {seconds:g} s"
    return [_row(contest, contender, note=note) for contender in chosen]


def _row(contest: Contest, contender: Contender, **fields: float | int | str | None) -> Measurement:
    shape = contest.shape
    return Measurement.model_validate(
        {
            "shape": shape.name,
            "batch": shape.batch,
            "time": shape.time,
            "input_size": shape.input_size,
            "hidden_size": shape.hidden_size,
            "figure": contest.figure,
            "contender": contender.name,
            "dtype": contender.dtype,
            **fields,
        }
    )


def build_layers(
    contest: Contest, chosen: Sequence[Contender], gating: Gating, device: torch.device
) -> tuple[dict[str, Layer], list[Measurement]]:
    """The layers that can take part by the contender's name, and rows that say why for those that cannot."""
    workload = Workload(contest.shape, gating, device)
    layers: dict[str, Layer] = {}
    absent: list[Measurement] = []
    for contender in chosen:
        layer = build(contender, workload)
        if isinstance(layer, str):
            absent.append(_row(contest, contender, note=layer))
        else:
            layers[contender.name] = layer
    return layers, absent


def memory_rows(
    contest: Contest, chosen: Sequence[Contender], gating: Gating, device: torch.device
) -> list[Measurement]:
    """One row per contender with its peak memory in training."""
    layers, rows = build_layers(contest, chosen, gating, device)
    threads = torch.get_num_threads()
    peaks = {
        name: peak_memory_mib(layer.contender, contest.shape, gating, device=device.type, threads=threads)
        for name, layer in layers.items()
    }
    for name, layer in layers.items():
        ratios = {
            column: peaks[other] / peaks[name]
            for column, other in _compared(layer.contender).items()
            if other in peaks and other != name and peaks[name] > 0
        }
        rows.append(_row(contest, layer.contender, rounds=1, peak_memory_mib=peaks[name], **ratios))
    return _ordered(rows, chosen)


def timed_rows(
    contest: Contest, chosen: Sequence[Contender], gating: Gating, device: torch.device, budget_seconds: float
) -> list[Measurement]:
    """One row per contender with its time, and one per dtype with the machine's limit where the figure has a bound.

    Raises:
        DisagreementError: Two contenders that should agree do not.
    """
    begin = time.perf_counter()
    layers, rows = build_layers(contest, chosen, gating, device)
    if not layers:
        return rows
    if contest.figure == "forward":
        check_outputs(layers)
    elif contest.figure == "forward_backward":
        check_gradients(layers)
    limited = contest.figure in ("forward", "forward_backward")
    dtypes: list[str] = sorted({layer.contender.dtype for layer in layers.values()}) if limited else []
    calls = calls_of(contest, layers, gating, device)
    for dtype in dtypes:
        calls |= products(dtype, device)
    if limited and any(layer.contender.backend == "cpu" for layer in layers.values()):
        calls |= gate_calls(contest.figure, gating, device)
    seconds = interleave(calls, budget_seconds=budget_seconds - (time.perf_counter() - begin), device=device)
    limits = {dtype: limit_flops_per_second(seconds, dtype, device) for dtype in dtypes}
    rows += [_timed_row(contest, layer.contender, gating, seconds, limits) for layer in layers.values()]
    rows = _ordered(rows, chosen)
    for dtype, rates in limits.items():
        limit = Contender(f"limit-{dtype}", "torch", dtype="bf16" if dtype == "bf16" else "fp32")
        rows.append(_row(contest, limit, rounds=len(rates), gflops_per_second=spread(rates).median / 1e9))
    return rows


def calls_of(contest: Contest, layers: dict[str, Layer], gating: Gating, device: torch.device) -> dict[str, Call]:
    """What is timed for each contender; a training step beside the recurrence in it."""
    if contest.figure == "decode":
        return {name: layer.decode for name, layer in layers.items()}
    if contest.figure == "decode_layer":
        return {name: layer.decode_layer for name, layer in layers.items()}
    if contest.figure == "forward":
        return {name: layer.forward for name, layer in layers.items()}
    calls: dict[str, Call] = {name: layer.train for name, layer in layers.items()}
    if contest.figure == "training_step":
        calls = {_bare(name): call for name, call in calls.items()}
        for name, layer in layers.items():
            calls[name] = TrainingStep(layer.contender, contest.shape, gating, device)
    return calls


def _timed_row(
    contest: Contest,
    contender: Contender,
    gating: Gating,
    seconds: dict[str, list[float]],
    limits: dict[str, list[float]],
) -> Measurement:
    own = seconds[contender.name]
    per_call = DECODED_STEPS if contest.is_decoding else 1
    tokens = 1 if contest.is_decoding else contest.shape.tokens
    summary = spread([value / per_call for value in own])
    fields: dict[str, float | int | str | None] = {
        "rounds": len(own),
        "milliseconds": summary.median * 1e3,
        "milliseconds_low": summary.low * 1e3,
        "milliseconds_high": summary.high * 1e3,
        "tokens_per_second": tokens / summary.median,
    }
    if contender.dtype in limits:
        flops = _flops(contest, len(gating.blocks) if contender.family == "urzoo" else _BLOCKS_OF_PEERS)
        fields["gflops_per_second"] = flops / summary.median / 1e9
        products_seconds = [flops / rate for rate in limits[contender.dtype]]
        fields["share_of_limit"] = median_ratio(products_seconds, own)
        gates = gate_cost(seconds)
        if contender.backend == "cpu" and gates is not None:
            fields["share_with_gates"] = gates.least_seconds(contest.shape, min(products_seconds)) / min(own)
    for column, other in _compared(contender).items():
        if other in seconds and other != contender.name:
            fields[column] = median_ratio(seconds[other], own)
    if _bare(contender.name) in seconds:
        fields["share_of_recurrence"] = median_ratio(seconds[_bare(contender.name)], own)
    return _row(contest, contender, **fields)


def _compared(contender: Contender) -> dict[str, str]:
    """By column of `Measurement`, the contender with which `contender` is compared."""
    compared = {
        "over_torch_lstm": "torch-lstm",
        "over_ur_lstm_torch": "ur-lstm-torch",
        "over_onnxruntime": "onnxruntime-lstm",
        "over_reference": "urzoo-reference",
    }
    if contender.dtype == "bf16":
        compared["over_own_fp32"] = contender.name.replace("-bf16", "")
    return compared


def _flops(contest: Contest, blocks: int) -> int:
    shape = contest.shape
    return shape.forward_flops(blocks) if contest.figure == "forward" else shape.training_flops(blocks)


def _bare(name: str) -> str:
    return f"{name} recurrence alone"


def _ordered(rows: list[Measurement], chosen: Sequence[Contender]) -> list[Measurement]:
    order = [contender.name for contender in chosen]
    return sorted(rows, key=lambda row: order.index(row.contender))
