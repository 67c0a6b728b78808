"""The public functions: what they refuse and how, and which back end they choose."""

import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from urzoo.errors import BackendError, ShapeError, UsageError
from urzoo.recurrence import GATINGS, Gating, SlowBackendWarning, backend_for, backends, gates, reference, scan, step


def arguments(**changes: object) -> dict[str, object]:
    """A call of `scan` that is accepted, with some arguments replaced."""
    given: dict[str, object] = {
        "inputs": torch.zeros(2, 5, 3),
        "input_weight": torch.zeros(16, 3),
        "recurrent_weight": torch.zeros(16, 4),
        "bias": torch.zeros(16),
        "gate_bias": torch.zeros(4),
        "state": (torch.zeros(2, 4), torch.zeros(2, 4)),
        "mask": torch.ones(2, 5, dtype=torch.bool),
        "backend": "reference",
    }
    return given | changes


MISTAKES = [
    ({"inputs": torch.zeros(2, 5)}, r"inputs has 2 dimensions, expected 3: \(batch, time, input_size\)"),
    ({"inputs": torch.zeros(2, 0, 3)}, r"inputs is empty, expected every size .* its shape is \(2, 0, 3\)\."),
    ({"inputs": torch.zeros(2, 5, 3, dtype=torch.long)}, r"inputs is int64, expected a floating-point dtype; give"),
    (
        {"recurrent_weight": torch.zeros(15, 4)},
        r"recurrent_weight has the shape \(15, 4\), expected \(4 \* hidden, hidden\) for gate 'UR', "
        r"in the order forget, refine, candidate, output\.",
    ),
    ({"input_weight": torch.zeros(16, 2)}, r"input_weight has the shape \(16, 2\), expected \(16, 3\)"),
    ({"bias": torch.zeros(4)}, r"bias has the shape \(4,\), expected \(16,\)"),
    ({"gate_bias": torch.zeros(16)}, r"gate_bias has the shape \(16,\), expected \(4,\): \(hidden,\)"),
    (
        {"bias": torch.zeros(16, dtype=torch.float64)},
        r"bias is float64, expected float32 as inputs is; give inputs\.to\(torch\.float64\), or call",
    ),
    ({"bias": torch.zeros(16, device="meta")}, r"bias is on meta, expected cpu as inputs is\."),
    ({"state": (torch.zeros(2, 4),)}, r"state is a tuple of 1, expected the tuple \(hidden, cell\)\."),
    ({"state": torch.zeros(2, 4)}, r"state is a Tensor, expected the tuple \(hidden, cell\)\."),
    (
        {"state": (torch.zeros(2, 4), torch.zeros(3, 4))},
        r"the cell of state has the shape \(3, 4\), expected \(2, 4\): \(batch, hidden\)\.",
    ),
    ({"state": (torch.zeros(2, 4).double(), torch.zeros(2, 4))}, r"the hidden of state is float64, expected float32\."),
    ({"state": (torch.zeros(2, 4, device="meta"), torch.zeros(2, 4))}, r"the hidden of state is on meta, expected cpu"),
    ({"mask": torch.ones(2, 5)}, r"mask is float32, expected bool; give mask\.bool\(\), True where a step is real\."),
    ({"mask": torch.ones(5, 2, dtype=torch.bool)}, r"mask has the shape \(5, 2\), expected \(2, 5\): \(batch, time\)"),
    ({"mask": torch.ones(2, 5, dtype=torch.bool, device="meta")}, r"mask is on meta, expected cpu as inputs is\."),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_arguments_that_disagree_are_refused_by_name(changes: dict[str, object], message: str):
    with pytest.raises(ShapeError, match=message) as caught:
        scan(**arguments(**changes))
    assert "\n" not in str(caught.value)


def test_the_arguments_of_these_tests_are_accepted_unchanged():
    outputs, _ = scan(**arguments())
    assert outputs.shape == (2, 5, 4)


def test_step_refuses_a_sequence():
    given = arguments()
    del given["mask"]
    with pytest.raises(ShapeError, match=r"inputs has 3 dimensions, expected 2: \(batch, input_size\)"):
        step(**given)
    given["inputs"] = torch.zeros(2, 3)
    hidden, cell = step(**given)
    assert hidden.shape == cell.shape == (2, 4)


def test_cumax_takes_no_gate_bias():
    with pytest.raises(UsageError, match=r"gate_bias was given, but gate 'OR' has none; omit it\."):
        scan(**arguments(gating=Gating("OR")))


def test_the_gru_has_a_state_of_one_part():
    with pytest.raises(ShapeError, match=r"state is a tuple of 2, expected the tuple \(hidden,\)\."):
        scan(**arguments(gating=Gating("UR", "gru")))


def test_an_unknown_save_is_refused():
    with pytest.raises(UsageError, match=r"unknown save 'recompte'\. Did you mean 'recompute'\?"):
        scan(**arguments(save="recompte"))


def test_an_unknown_back_end_is_refused():
    with pytest.raises(BackendError, match=r"unknown backend 'cuda'\..* Available: .*reference"):
        scan(**arguments(backend="cuda"))


def test_autocast_accepts_inputs_of_the_lower_precision():
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = scan(**arguments(inputs=torch.zeros(2, 5, 3, dtype=torch.bfloat16)))
    assert outputs.dtype == torch.bfloat16
    with pytest.raises(ShapeError, match=r"input_weight is float32, expected bfloat16 as inputs is; "):
        scan(**arguments(inputs=torch.zeros(2, 5, 3, dtype=torch.bfloat16)))


def test_the_reference_is_always_usable_and_comes_last():
    assert list(backends())[-1] == "reference"
    assert backends()["reference"] == ""


def test_float64_runs_on_the_reference():
    assert backend_for(torch.zeros(1, dtype=torch.float64)) == "reference"


def test_a_named_back_end_is_the_one_that_runs():
    assert backend_for(torch.zeros(1), backend="reference") == "reference"


class Fast:
    """A back end that computes as the reference does and counts its calls."""

    name = "fast"

    def __init__(self, missing: str = "", refused: str = ""):
        self.missing, self.refused, self.calls = missing, refused, 0

    def unavailable(self) -> str:
        return self.missing

    def unsupported(self, gating: Gating, dtype: torch.dtype, device: torch.device) -> str:
        return self.refused if dtype == torch.float64 else ""

    def scan(self, *given: object, **options: object) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.calls += 1
        return reference.scan(*given, **options)

    def step(self, *given: object, **options: object) -> tuple[Tensor, ...]:
        self.calls += 1
        return reference.step(*given, **options)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fast], Fast]:
    """Puts one back end before the reference, in a process that has not warned yet."""
    module = sys.modules["urzoo.recurrence.scan"]

    def put(backend: Fast) -> Fast:
        monkeypatch.setattr(module, "_BACKENDS", {"fast": backend, "reference": reference})
        monkeypatch.setattr(module, "_warned", False)
        return backend

    return put


def test_the_first_back_end_that_can_take_the_problem_runs_it(install: Callable):
    fast = install(Fast(refused="float64 inputs"))
    scan(**arguments(backend=None))
    assert fast.calls == 1
    assert backend_for(torch.zeros(1)) == "fast"
    doubled = {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in arguments(backend=None, state=None).items()
    }
    scan(**doubled)
    assert fast.calls == 1


def test_a_named_back_end_is_never_replaced(install: Callable):
    install(Fast(refused="float64 inputs"))
    message = r"backend 'fast' cannot run on float64 inputs; usable here: reference\. Omit backend to take the fastest"
    with pytest.raises(BackendError, match=message):
        backend_for(torch.zeros(1, dtype=torch.float64), backend="fast")
    install(Fast(missing="the compiled library is missing"))
    message = r"backend 'fast' cannot run on this machine: the compiled library is missing; usable here: reference\."
    with pytest.raises(BackendError, match=message):
        scan(**arguments(backend="fast"))


def test_a_missing_back_end_is_named_once(install: Callable):
    install(Fast(missing="the library is not built; install a compiler and urzoo again", refused="float64 inputs"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend_for(torch.zeros(1, dtype=torch.float64)) == "reference"
    with pytest.warns(
        SlowBackendWarning, match=r"slow back end 'reference'; .*'fast' cannot run: .*install a compiler"
    ):
        scan(**arguments(backend=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(**arguments(backend=None))


def test_a_named_reference_does_not_warn(install: Callable):
    install(Fast(missing="the library is not built"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(**arguments(backend="reference"))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", ["X-", "-X", "XR", "UX"])
def test_a_gating_that_back_ends_do_not_know_runs_on_the_reference(
    name: str, cell: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gates, "GATINGS", (*GATINGS, name))
    for dtype in (torch.float32, torch.bfloat16):
        assert backend_for(torch.zeros(1, dtype=dtype), Gating(name, cell)) == "reference"
    from urzoo.recurrence import triton

    assert triton.unsupported(Gating(name, cell), torch.float32, torch.device("cuda"))
    assert not triton.unsupported(Gating("UR", cell), torch.float32, torch.device("cuda"))
