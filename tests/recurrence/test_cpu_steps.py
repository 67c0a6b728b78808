"""One step at a time without gradients in the fused CPU back end, by every way it takes."""

import copy
import multiprocessing
import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from urzoo.nn import URGRUCell, URLSTMCell
from urzoo.recurrence import State, backends, scan, step
from urzoo.recurrence.cpu.passes import FEW_ROWS

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

Cell = URLSTMCell | URGRUCell
Make = Callable[..., Cell]


@pytest.fixture(
    params=[URLSTMCell, partial(URLSTMCell, tie_input_gate=False), URGRUCell], ids=["lstm", "untied lstm", "gru"]
)
def make_cell(request: pytest.FixtureRequest) -> Make:
    def make(input_size: int = 3, hidden_size: int = 21, **options: object) -> Cell:
        torch.manual_seed(0)
        return request.param(input_size, hidden_size, **options)

    return make


def as_state(found: Tensor | State) -> State:
    return (found,) if isinstance(found, Tensor) else found


@torch.no_grad()
def run(cell: Cell, *, steps: int = 4, batch: int = 2, backend: str = "cpu") -> list[Tensor]:
    """The parts of the state after each of several steps."""
    generator = torch.Generator().manual_seed(1)
    cell = copy.copy(cell)
    cell.backend = backend
    state, found = None, []
    for _ in range(steps):
        state = cell(torch.randn(batch, cell.input_size, generator=generator), state)
        found += as_state(state)
    return found


def assert_right(cell: Cell, **options: int) -> None:
    for ours, reference in zip(run(cell, **options), run(cell, backend="reference", **options), strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("batch", [1, 2, 5, 16, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("input_size", [1, 3, 40])
def test_steps_agree_with_the_reference(input_size: int, batch: int, make_cell: Make):
    for gate in ("--", "UR"):
        assert_right(make_cell(input_size, gate=gate), batch=batch)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_step_has_the_same_bits_in_any_batch_of_few_rows(dtype: torch.dtype, make_cell: Make):
    cell = make_cell(5, 40).to(dtype)
    inputs = torch.randn(FEW_ROWS, 5).to(dtype)
    alone = [as_state(cell(one[None])) for one in inputs]
    for batch in (2, 3, 16, FEW_ROWS):
        for row, parts in enumerate(zip(*as_state(cell(inputs[:batch])), strict=True)):
            assert all(map(torch.equal, parts, (part[0] for part in alone[row])))


@pytest.mark.parametrize("batch", [2, 9])
def test_steps_agree_under_autocast(batch: int, make_cell: Make):
    cell = make_cell()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(cell, batch=batch)
        reference = run(cell, batch=batch, backend="reference")
    assert [part.dtype for part in rounded] == [part.dtype for part in reference]
    for ours, theirs in zip(rounded, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # newer versions of torch
@torch.no_grad()
def test_torch_func_maps_over_sequences_and_steps(make_cell: Make):
    cell = make_cell()
    weights = (cell.weight_ih, cell.weight_hh, cell.bias, cell.forget_bias)
    inputs = torch.randn(2, 3, 4, 3)

    def outputs(some: Tensor) -> Tensor:
        return scan(some, *weights, gating=cell.gating, backend="cpu")[0]

    def hidden(some: Tensor) -> Tensor:
        return step(some, *weights, gating=cell.gating, backend="cpu")[0]

    torch.testing.assert_close(torch.func.vmap(outputs)(inputs), torch.stack([outputs(part) for part in inputs]))
    steps = inputs[:, :, 0]
    torch.testing.assert_close(torch.func.vmap(hidden)(steps), torch.stack([hidden(part) for part in steps]))


def test_steps_with_gradients_agree(make_cell: Make):
    cell = make_cell()
    run(cell)
    inputs = torch.randn(7, 3)
    grads = []
    for cell.backend in ("cpu", "reference"):
        grads.append(torch.autograd.grad(as_state(cell(inputs))[0].sum(), list(cell.parameters())))
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference)


def test_threads_may_step_at_the_same_time(make_cell: Make):
    cell = make_cell(hidden_size=64)
    failures: list[int] = []
    expected = run(cell)

    def work() -> None:
        failures.extend(1 for _ in range(20) if not all(map(torch.equal, expected, run(cell))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _in_child(queue: "multiprocessing.Queue[bool]", cell: Cell, expected: list[Tensor]) -> None:
    right = all(map(torch.equal, expected, run(cell)))
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    queue.put(right and not torch.equal(expected[-1], run(cell)[-1]))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_steps_and_changes_its_own_parameters(make_cell: Make):
    cell = make_cell()
    expected = run(cell)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, cell, expected))
    child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert all(map(torch.equal, expected, run(cell)))


def test_torch_compile_traces_a_step_whole(make_cell: Make):
    cell = make_cell()
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    inputs = torch.randn(2, 3)
    with torch.no_grad():
        for ours, eager in zip(as_state(compiled(inputs)), as_state(cell(inputs)), strict=True):
            torch.testing.assert_close(ours, eager)


def test_an_exported_step_takes_any_number_of_rows(make_cell: Make):
    cell, inputs = make_cell(), torch.randn(FEW_ROWS + 1, 3)
    with torch.no_grad():
        rows = {0: torch.export.Dim("batch")}
        program = torch.export.export(cell, (torch.randn(2, 3),), dynamic_shapes=(rows,)).module()
        for batch in (2, FEW_ROWS, FEW_ROWS + 1):
            found, expected = program(inputs[:batch]), cell(inputs[:batch])
            for ours, eager in zip(as_state(found), as_state(expected), strict=True):
                torch.testing.assert_close(ours, eager)
