"""The packed weights that inference keeps: right as long as the parameters stand, gone when they die."""

import copy
import gc
import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from urzoo.nn import URGRUCell, URLSTMCell
from urzoo.recurrence import State, backends, cpu, scan, step
from urzoo.recurrence.cpu import kept

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    kept.release()
    yield
    kept.release()


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


def packed() -> list[Tensor]:
    return [entry.packed for entry in kept._kept.values()]


@pytest.mark.parametrize("batch", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("input_size", [1, 3, 40])
def test_steps_with_kept_weights_agree_with_the_reference(input_size: int, batch: int, make_cell: Make):
    for gate in ("--", "UR"):
        cell = make_cell(input_size, gate=gate)
        assert_right(cell, batch=batch)
        assert len(packed()) == 1


def test_parameters_are_packed_once(make_cell: Make):
    cell = make_cell()
    run(cell, steps=1)
    (first,) = packed()
    run(cell)
    (last,) = packed()
    assert last is first


@pytest.mark.parametrize("batch", [2, 9])
def test_under_autocast_they_are_kept_apart(batch: int, make_cell: Make):
    cell = make_cell()
    plain = run(cell, batch=batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(cell, batch=batch)
        reference = run(cell, batch=batch, backend="reference")
    assert [part.dtype for part in rounded] == [part.dtype for part in reference]
    for ours, theirs in zip(rounded, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
    assert len(packed()) == 2
    assert all(map(torch.equal, plain, run(cell, batch=batch)))


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias", "forget_bias"])
def test_every_way_to_change_a_parameter_is_seen(name: str, make_cell: Make):
    cell = make_cell()
    parameter = getattr(cell, name)
    optimiser = torch.optim.SGD([parameter], lr=1.0)

    def in_inference_mode() -> None:
        with torch.inference_mode():
            parameter.add_(0.1)

    def by_the_optimiser() -> None:
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()

    def by_other_data() -> None:
        parameter.data = parameter.data + 0.1

    def in_place() -> None:
        with torch.no_grad():
            parameter.add_(0.1)

    def from_a_state_dict() -> None:
        cell.load_state_dict({key: value + 0.1 for key, value in cell.state_dict().items()})

    for change in (in_place, in_inference_mode, by_the_optimiser, by_other_data, from_a_state_dict):
        assert_right(cell)
        assert packed()
        before = run(cell, steps=2)
        change()
        assert not all(map(torch.equal, before, run(cell, steps=2))), change.__name__
        assert_right(cell)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
@pytest.mark.parametrize("way", ["for loop", "foreach", "fused"])
def test_a_step_of_an_optimiser_is_seen_even_where_it_raises_no_counter(
    kind: type[torch.optim.Optimizer], way: str, make_cell: Make
):
    cell = make_cell()
    options = {"foreach": way == "foreach", "fused": way == "fused"}
    optimiser = kind(cell.parameters(), lr=0.1, **options)
    for _ in range(2):
        assert_right(cell)
        for parameter in cell.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = run(cell, steps=2)
        optimiser.step()
        assert not all(map(torch.equal, before, run(cell, steps=2)))
        assert_right(cell)


def test_data_replaced_twice_at_the_same_address_is_seen(make_cell: Make):
    cell = make_cell()
    for round_number in range(6):
        run(cell, steps=3)
        # Freed at once, so that the allocator may give the same address again.
        cell.weight_hh.data = torch.full_like(cell.weight_hh, 0.01 * round_number)
        assert_right(cell, steps=3)


def test_they_go_when_the_parameters_die(make_cell: Make):
    cell = make_cell()
    run(cell)
    (tensor,) = packed()
    storage = weakref.ref(tensor)
    del tensor
    del cell
    gc.collect()
    assert not kept._kept
    assert storage() is None


@torch.no_grad()
def run_sequences(cell: Cell) -> list[Tensor]:
    """Outputs and final states of a padded sequence, in both directions."""
    inputs = torch.randn(3, 7, cell.input_size, generator=torch.Generator().manual_seed(2))
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    weights, found = (cell.weight_ih, cell.weight_hh, cell.bias, cell.forget_bias), []
    for reverse in (False, True):
        outputs, state = scan(inputs, *weights, gating=cell.gating, mask=mask, reverse=reverse, backend="cpu")
        found += [outputs, *state]
    return found


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("input_size", [3, 40])
def test_sequences_use_the_weights_of_steps_and_keep_their_bits(
    input_size: int, autocast: bool, make_cell: Make, monkeypatch: pytest.MonkeyPatch
):
    cell = make_cell(input_size)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        monkeypatch.setattr(cpu, "_MOST_KEPT_BYTES", 0)
        expected = run_sequences(cell)
        assert not packed()
        monkeypatch.undo()
        found = run_sequences(cell)
        (first,) = packed()
        run(cell)
        found_again = run_sequences(cell)
    (last,) = packed()
    assert last is first
    for ours in (found, found_again):
        assert all(map(torch.equal, expected, ours))


def test_sequences_see_changed_parameters(make_cell: Make):
    cell = make_cell()
    before = run_sequences(cell)
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    after = run_sequences(cell)
    assert not any(map(torch.equal, before, after))
    kept.release()
    assert all(map(torch.equal, after, run_sequences(cell)))


def test_differentiated_sequences_keep_nothing(make_cell: Make):
    cell = make_cell()
    weights = (cell.weight_ih, cell.weight_hh, cell.bias, cell.forget_bias)
    scan(torch.randn(2, 4, 3), *weights, gating=cell.gating, backend="cpu")[0].sum().backward()
    assert cell.weight_hh.grad is not None
    assert not packed()


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


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_step_gives_the_bits_of_a_sequence_on_one_thread(make_cell: Make):
    # On several a sequence divides the rows, and the last bits depend on how many a thread has. So small a step
    # does not divide them.
    cell = make_cell(40)
    inputs = torch.randn(2, 1, 40)
    with torch.no_grad():
        parameters = (cell.weight_ih, cell.weight_hh, cell.bias, cell.forget_bias)
        outputs, _ = scan(inputs, *parameters, gating=cell.gating, backend="cpu")
        assert torch.equal(as_state(cell(inputs[:, 0]))[0], outputs[:, 0])


def test_weights_that_are_no_parameters_are_never_packed(make_cell: Make):
    cell = make_cell()
    for _ in range(4):
        weights = [tensor.detach().clone() for tensor in (cell.weight_ih, cell.weight_hh, cell.bias, cell.forget_bias)]
        step(torch.randn(2, 3), *weights, gating=cell.gating, backend="cpu")
        assert not kept._kept


def test_tensors_without_a_version_counter_are_never_kept(make_cell: Make):
    with torch.inference_mode():
        cell = make_cell()
        assert cell.weight_hh.is_inference()
        assert_right(cell)
        assert not kept._kept
        cell.weight_hh.mul_(2)
        assert_right(cell)


def test_gradients_pass_by_what_is_kept(make_cell: Make):
    cell = make_cell()
    run(cell)
    inputs = torch.randn(7, 3)
    grads = []
    for cell.backend in ("cpu", "reference"):
        grads.append(torch.autograd.grad(as_state(cell(inputs))[0].sum(), list(cell.parameters())))
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference)


def test_threads_may_step_at_the_same_time(make_cell: Make):
    cell, failures = make_cell(hidden_size=64), []
    expected = run(cell)

    def work() -> None:
        for _ in range(20):
            if not all(map(torch.equal, expected, run(cell))):
                failures.append("differs")
            kept.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _in_child(queue: "multiprocessing.Queue[bool]", cell: Cell, expected: list[Tensor]) -> None:
    kept_right = all(map(torch.equal, expected, run(cell)))
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    queue.put(kept_right and not torch.equal(expected[-1], run(cell)[-1]))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_them_and_changes_its_own(make_cell: Make):
    cell = make_cell()
    run(cell)
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
    run(cell)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    inputs = torch.randn(2, 3)
    with torch.no_grad():
        for ours, eager in zip(as_state(compiled(inputs)), as_state(cell(inputs)), strict=True):
            torch.testing.assert_close(ours, eager)
