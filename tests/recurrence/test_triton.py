"""The GPU back end against the float64 reference: on the GPU where there is one, else interpreted on the CPU."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'urzoo[triton]'")

from urzoo.errors import BackendError
from urzoo.recurrence import Gating, backend_for, backends, scan, step

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
GATINGS = [
    *(Gating(name, "lstm", tied) for name in ("--", "C-", "U-", "-R", "CR", "UR") for tied in (True, False)),
    *(Gating(name, "gru") for name in ("--", "C-", "U-", "-R", "CR", "UR")),
    Gating(refine_offset=False),
]
SOME = [Gating(), Gating("--", tie_input_gate=False), Gating("UR", tie_input_gate=False), Gating("UR", "gru")]


@pytest.fixture(autouse=True)
def kernels_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    if not CUDA:
        # Before the kernels are imported: their decorators read it.
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        from urzoo.recurrence.triton import kernels

        assert type(kernels.lstm_forward).__name__ == "InterpretedFunction"


@pytest.fixture(autouse=True)
def new_memory_is_nan() -> None:
    """What a kernel forgets to write shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def assert_as_exact_as_the_reference(case: object, dtype: torch.dtype) -> None:
    """No result may lose more than twice what the reference loses to rounding in that dtype."""
    exact = case.results()
    low = case.to(dtype)
    reference = low.results()
    moved = replace(
        low,
        tensors={name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in low.tensors.items()},
        mask=None if low.mask is None else low.mask.to(DEVICE),
        upstream=tuple(grad.to(DEVICE) for grad in low.upstream),
    )
    ours = {name: tensor.cpu() for name, tensor in moved.results(backend="triton").items()}
    assert ours.keys() == exact.keys()
    for name, wanted in exact.items():
        lost, allowed = (ours[name] - wanted).norm(), (reference[name] - wanted).norm()
        floor = 2 * torch.finfo(torch.float32).eps * wanted.norm()
        assert lost <= 2 * allowed + floor, f"{name} loses {lost:.3g}, the reference {allowed:.3g}"


@pytest.mark.parametrize("gating", GATINGS, ids=str)
def test_every_gating_is_as_exact_as_the_reference(problem: Callable, gating: Gating):
    case = problem(gating, batch=7, time=5, input_size=3, hidden_size=17, lengths=(5, 1, 4, 0, 2, 5, 2))
    assert_as_exact_as_the_reference(case, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gating", SOME, ids=str)
def test_sixteen_bits_are_as_exact_as_in_the_reference(problem: Callable, gating: Gating, dtype: torch.dtype):
    case = problem(gating, batch=7, time=12, input_size=3, hidden_size=48, lengths=(12, 1, 4, 0, 8, 12, 9))
    assert_as_exact_as_the_reference(case, dtype)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pad", [None, "left", "right"])
@pytest.mark.parametrize("gating", SOME, ids=str)
def test_masks_and_directions_are_exact(problem: Callable, gating: Gating, pad: str | None, reverse: bool):
    padding = {} if pad is None else {"lengths": (4, 2, 1), "pad": pad}
    assert_as_exact_as_the_reference(problem(gating, time=4, reverse=reverse, **padding), torch.float32)


@pytest.mark.parametrize(
    ("batch", "time", "input_size", "hidden_size"),
    [
        (1, 1, 1, 1),
        (1, 2, 65, 48),
        (3, 9, 1, 17),
        (7, 3, 3, 100),
        (64, 2, 65, 256),
    ],
)
@pytest.mark.parametrize("gating", [Gating(), Gating("UR", "gru")], ids=str)
def test_odd_sizes_are_exact(
    problem: Callable, gating: Gating, batch: int, time: int, input_size: int, hidden_size: int
):
    case = problem(gating, batch=batch, time=time, input_size=input_size, hidden_size=hidden_size)
    assert_as_exact_as_the_reference(case, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("gating", [Gating(), Gating("UR", "gru")], ids=str)
def test_long_sequences_are_exact(problem: Callable, gating: Gating):
    case = problem(gating, batch=3, time=63, input_size=1, hidden_size=17)
    assert_as_exact_as_the_reference(case, torch.float32)


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
    exact = case.results()
    case = case.to(torch.float32)
    tensors = {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in case.tensors.items()}
    case = replace(case, tensors=tensors, upstream=tuple(grad.to(DEVICE) for grad in case.upstream))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        results = case.results(backend="triton")
        reference = case.results(backend="reference")
    for name, wanted in exact.items():
        lost, allowed = (results[name].cpu() - wanted).norm(), (reference[name].cpu() - wanted).norm()
        assert lost <= 2 * allowed, f"{name} loses {lost:.3g}, the reference {allowed:.3g}"
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
            (*arguments, gating.cell == "gru", True, True, False, True, torch.float32),
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
    with pytest.raises(BackendError, match=r"backend 'triton' cannot run on gate 'OR'; usable here: .*reference"):
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
