"""The GPU back end passes the accuracy suite: on the GPU where there is one, else interpreted on the CPU.

The last part plants faults into copies of the kernels and loops and shows that the suite catches each.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'urzoo[triton]'")

from tests.recurrence.accuracy import (
    COVERING,
    LONG,
    Case,
    Size,
    case_id,
    cases_of,
    grid_of,
    losses,
    part_id,
    poisoned_memory,
)
from urzoo.errors import BackendError
from urzoo.recurrence import Gating, backend_for, backends, scan, step
from urzoo.recurrence.kind import Kind

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
# On a GPU the whole suite is about it: `pytest -m gpu` runs it there.
pytestmark = [pytest.mark.gpu] if CUDA else []
if CUDA:
    # Without it torch refuses cuBLAS while memory is poisoned, which takes torch's deterministic mode.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
SOME = [Gating(), Gating("--", tie_input_gate=False), Gating("UR", tie_input_gate=False), Gating("UR", "gru")]
with pytest.MonkeyPatch.context() as _patch:
    if not CUDA:
        # Before the kernels are imported: their decorators read it.
        _patch.setenv("TRITON_INTERPRET", "1")
    from urzoo.recurrence.triton import kernels, loops

    CASES = cases_of("triton", DEVICE.type)
KINDS = [case for case in CASES if case[0] in SOME]
# A step takes the interpreter some milliseconds: the other sizes are for the slow run.
QUICK = [Size(2, 7, 17, 65), Size(2, 64, 48, 3, "right", reverse=True)]


@pytest.fixture(autouse=True)
def kernels_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    if CUDA:
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert type(kernels.lstm_forward).__name__ == "InterpretedFunction"
    _round_as_a_gpu_does(monkeypatch)


def _round_as_a_gpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter cuts float32 off to bfloat16, which loses twice as much as a GPU's rounding to nearest."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def rounding(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype) -> TensorHandle:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        values = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(values.view(torch.uint16).numpy(), target.scalar)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounding)


@pytest.fixture(autouse=True)
def new_memory_is_nan() -> Iterator[None]:
    """What a kernel forgets to write shows."""
    with poisoned_memory():
        yield


@pytest.mark.parametrize("case", [*(case for case in CASES if case[1] == "float32"), *KINDS], ids=case_id)
def test_it_loses_no_more_than_the_reference_to_rounding(case: Case):
    for size in QUICK:
        assert not losses("triton", case[0], size, case[1], device=DEVICE.type), size


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("size", COVERING, ids=str)
def test_it_loses_no_more_over_the_sizes(size: Size, case: Case):
    assert not losses("triton", case[0], size, case[1], device=DEVICE.type)


@pytest.mark.parametrize("case", KINDS, ids=case_id)
def test_it_loses_no_more_over_many_steps(case: Case):
    assert not losses("triton", case[0], Size(63, 7, 48, 3, "left"), case[1], device=DEVICE.type)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS, ids=case_id)
@pytest.mark.parametrize("size", LONG, ids=str)
def test_it_loses_no_more_over_the_longest(size: Size, case: Case):
    assert not losses("triton", case[0], size, case[1], device=DEVICE.type)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "sizes"),
    [(case, part) for case in KINDS for part in grid_of(case, KINDS)],
    ids=lambda value: case_id(value) if isinstance(value, tuple) else part_id(value),
)
def test_it_loses_no_more_over_the_whole_grid(sizes: list[Size], case: Case):
    found = {str(size): losses("triton", case[0], size, case[1], device=DEVICE.type) for size in sizes}
    assert not any(found.values()), found


@pytest.mark.parametrize("case", [case for case in KINDS if case[1] == "float32"], ids=case_id)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pad", ["left", "right"])
def test_masks_and_directions_lose_no_more(case: Case, pad: str, reverse: bool):
    assert not losses("triton", case[0], Size(5, 7, 20, 3, pad, reverse), case[1], device=DEVICE.type)


@pytest.mark.parametrize("case", [case for case in KINDS if case[1] != "float16"], ids=case_id)
def test_recomputing_gives_the_same(case: Case, problem: Callable):
    gating, mode = case
    assert not losses("triton", gating, Size(5, 7, 20, 3, "right"), mode, device=DEVICE.type, save="recompute")


@pytest.mark.parametrize("gating", SOME, ids=str)
def test_recomputing_keeps_no_gates(gating: Gating, problem: Callable):
    case = problem(gating, batch=2, time=40, input_size=1, hidden_size=8).to(torch.float32)
    tensors = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
    case = replace(case, tensors=tensors)
    kept = {}
    for save in ("activations", "recompute"):
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            case.run(backend="triton", save=save)
        kept[save] = max(sizes)
    outputs = 2 * 40 * 8
    assert kept["recompute"] == outputs
    assert kept["activations"] == len(gating.blocks) * outputs


@pytest.mark.parametrize("case", [case for case in KINDS if case[1] == "float32"], ids=case_id)
def test_small_values_keep_their_digits(case: Case):
    assert not losses("triton", case[0], Size(3, 7, 48, 3), case[1], device=DEVICE.type, scale=1e-4)


@pytest.mark.parametrize("gating", SOME, ids=str)
def test_without_gradients_the_results_are_the_same(problem: Callable, gating: Gating):
    case = problem(gating, time=6, lengths=(6, 3, 1)).to(torch.float32)
    case = replace(case, tensors={name: tensor.to(DEVICE) for name, tensor in case.tensors.items()})
    case = replace(case, mask=case.mask.to(DEVICE))
    outputs, final = case.run(backend="triton")
    with torch.no_grad():
        plain, plain_final = case.run(backend="triton")
    assert torch.equal(plain, outputs)
    assert all(torch.equal(one, other) for one, other in zip(plain_final, final, strict=True))


@pytest.mark.parametrize("gating", SOME, ids=str)
def test_autocast_leaves_float32_gradients(problem: Callable, gating: Gating):
    case = problem(gating, batch=7, time=12, hidden_size=48)
    case = case.to(torch.float32)
    tensors = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
    case = replace(case, tensors=tensors)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        outputs, _ = case.run(backend="triton")
    assert outputs.dtype == torch.bfloat16
    gradient = torch.autograd.grad(outputs.float().sum(), tensors["recurrent_weight"])[0]
    assert gradient.dtype == torch.float32
    assert not torch.equal(gradient, gradient.bfloat16().float())


@pytest.mark.parametrize("gating", SOME, ids=str)
def test_a_step_is_a_scan_of_one(problem: Callable, gating: Gating):
    case = problem(gating, time=1).to(torch.float32)
    named = {name: tensor.detach().to(DEVICE) for name, tensor in case.tensors.items()}
    weights = (named["input_weight"], named["recurrent_weight"], named["bias"], named.get("gate_bias"))
    state = tuple(named[name] for name in ("hidden", "cell") if name in named)
    one = step(named["inputs"][:, 0], *weights, state, gating=gating, backend="triton")
    _, whole = scan(named["inputs"], *weights, state, gating=gating, backend="triton")
    assert all(torch.equal(part, other) for part, other in zip(one, whole, strict=True))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_nan_and_infinity_are_not_swallowed(problem: Callable):
    for gating in SOME:
        case = problem(gating).to(torch.float32)
        inputs = case.tensors["inputs"].detach().clone()
        inputs[1, 2, 0] = float("nan")
        tensors = {name: tensor.detach().to(DEVICE) for name, tensor in case.tensors.items()}
        outputs, _ = replace(case, tensors={**tensors, "inputs": inputs.to(DEVICE)}).run(backend="triton")
        assert torch.isnan(outputs[1, 2:]).all()
        assert torch.isfinite(outputs[[0, 2]]).all()
        inputs[1, 2, 0] = 1e30
        outputs, _ = replace(case, tensors={**tensors, "inputs": inputs.to(DEVICE)}).run(backend="triton")
        assert torch.isfinite(outputs).all()


def test_nan_in_the_padding_does_not_reach_the_gradients(problem: Callable):
    case = problem(Gating(), lengths=(5, 2, 3)).to(torch.float32)
    with torch.no_grad():
        case.tensors["inputs"][~case.mask] = float("nan")
    tensors = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
    upstream = tuple(grad.to(DEVICE) for grad in case.upstream)
    results = replace(case, tensors=tensors, mask=case.mask.to(DEVICE), upstream=upstream).results(backend="triton")
    assert all(torch.isfinite(tensor).all() for tensor in results.values())


def test_a_graph_can_be_differentiated_twice_over(problem: Callable):
    case = problem(Gating()).to(torch.float32)
    tensors = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
    outputs, _ = replace(case, tensors=tensors).run(backend="triton")
    first = torch.autograd.grad(outputs.sum(), list(tensors.values()), retain_graph=True)
    second = torch.autograd.grad(outputs.sum(), list(tensors.values()))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_operator_keeps_torchs_rules(problem: Callable):
    from urzoo.recurrence.triton.ops import gpu_scan

    for gating in (Gating(), Gating("-R", "gru")):
        case = problem(gating, batch=2, time=3, hidden_size=3, lengths=(3, 1)).to(torch.float32)
        named = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
        arguments = (
            named["inputs"],
            named["input_weight"],
            named["recurrent_weight"],
            named["bias"],
            named["hidden"],
            named.get("cell"),
            case.mask.to(DEVICE),
        )
        torch.library.opcheck(
            gpu_scan,
            (*arguments, str(Kind(gating, reverse=False, dtype=torch.float32)), torch.float32, "activations", False),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


def test_dynamo_traces_through(problem: Callable):
    case = problem(Gating()).to(torch.float32)
    named = {name: tensor.detach().to(DEVICE) for name, tensor in case.tensors.items()}
    weights = (named["input_weight"], named["recurrent_weight"], named["bias"], named["gate_bias"])

    def function(inputs: torch.Tensor) -> torch.Tensor:
        return scan(inputs, *weights, backend="triton")[0].sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(named["inputs"]), function(named["inputs"]))


def test_what_it_cannot_take_is_refused_by_name(problem: Callable):
    assert backends()["triton"] == ""
    with pytest.raises(
        BackendError, match=r"backend 'triton' cannot run on gate 'OR' of the LSTM; usable here: .*reference"
    ):
        backend_for(torch.zeros(1, device=DEVICE), Gating("OR"), backend="triton")
    with pytest.raises(BackendError, match=r"backend 'triton' cannot run on float64 inputs"):
        backend_for(torch.zeros(1, device=DEVICE, dtype=torch.float64), backend="triton")


@pytest.mark.skipif(CUDA, reason="this machine has a CUDA device")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    assert backends()["triton"] == "this machine has no CUDA device"
    with pytest.raises(BackendError, match=r"backend 'triton' cannot run on this machine: this machine has no CUDA"):
        backend_for(torch.zeros(1), backend="triton")
    assert backend_for(torch.zeros(1)) != "triton"


FAULTS = {
    "wrong sign of the refine gate": (
        "kernels",
        "return gate + gate * (1.0 - gate) * (2.0 * refinement - 1.0)",
        "return gate + gate * (1.0 - gate) * (1.0 - 2.0 * refinement)",
    ),
    "plain forget gate": ("kernels", "        effective = _refine(forget, refinement)\n    at", "    at"),
    "plain forget gate in the backward pass": (
        "kernels",
        "        effective = _refine(forget, refinement)\n    if TIED",
        "    if TIED",
    ),
    "stale final cell": ("kernels", "tl.store(cell_after + element, cell,", "tl.store(cell_after + element, before,"),
    "detached recurrence": (
        "loops",
        'multiply(tensors["preactivations_grad"][time], tensors["recurrent_weight"], tensors["hidden_grad"])',
        'tensors["hidden_grad"].zero_()',
    ),
    "detached cell": ("kernels", "earlier_cell = cell * effective", "earlier_cell = cell * 0.0"),
    "the padding is not skipped": (
        "kernels",
        "cell = tl.where(keep, cell, before)",
        "cell = tl.where(keep, cell, cell)",
    ),
    "plain update gate": ("kernels", "        gate = _refine(gate, refinement)\n", ""),
    "detached reset": ("kernels", "+ remembered * reset, mask", ", mask"),
}


def _planted(module: ModuleType, right: str, wrong: str, folder: Path) -> ModuleType:
    """A copy of a module with one change, under a name of its own."""
    text = Path(module.__file__).read_text("utf-8")
    assert text.count(right) == 1, "the source has changed: plant the fault again"
    path = folder / f"faulty_{module.__name__.rpartition('.')[2]}.py"
    path.write_text(text.replace(right, wrong), "utf-8")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    faulty = importlib.util.module_from_spec(specification)
    # Dataclasses look their own module up.
    sys.modules[path.stem] = faulty
    specification.loader.exec_module(faulty)
    return faulty


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    where, right, wrong = FAULTS[fault]
    if where == "kernels":
        monkeypatch.setattr(loops, "kernels", _planted(kernels, right, wrong, tmp_path))
    else:
        monkeypatch.setattr(loops, "_lstm_backward", _planted(loops, right, wrong, tmp_path)._lstm_backward)
    gatings = {Gating(), Gating("UR", "gru")}
    caught = [gating for gating in gatings if losses("triton", gating, FAULTY_SIZE, draws=1, device=DEVICE.type)]
    assert caught


FAULTY_SIZE = Size(9, 7, 17, 3, "right")


@pytest.mark.parametrize("gating", [Gating(), Gating("UR", "gru")], ids=str)
def test_without_a_fault_nothing_is_caught(gating: Gating):
    assert not losses("triton", gating, FAULTY_SIZE, device=DEVICE.type)
