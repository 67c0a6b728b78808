"""What the fused CPU back end promises beside its numbers: operators, threads, fork, memory, missing libraries."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.recurrence.conftest import gating_id
from urzoo.recurrence import Gating, State, backend_for, backends, scan, step
from urzoo.recurrence.cpu import library, memory

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])


# In the third a gate couples the units of a row.
CELLS = [Gating(), Gating("UR", "gru"), Gating("OM")]
each_cell = pytest.mark.parametrize("gating", CELLS, ids=gating_id)


def arguments(
    gating: Gating = CELLS[0], *, batch: int = 3, time: int = 7, input_size: int = 2, hidden_size: int = 20
) -> list[Tensor]:
    """Inputs, input weight, recurrent weight, bias, and gate bias where there is one."""
    generator = torch.Generator().manual_seed(0)
    rows = len(gating.blocks) * hidden_size
    shapes: list[tuple[int, ...]] = [(batch, time, input_size), (rows, input_size), (rows, hidden_size), (rows,)]
    shapes += [(hidden_size,)] * gating.uses_gate_bias
    return [(0.3 * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]


def zeros(gating: Gating, batch: int = 3) -> State:
    return tuple(torch.zeros(batch, 20) for _ in range(2 if gating.cell == "lstm" else 1))


def gradients(tensors: list[Tensor], run: Callable = scan, gating: Gating = CELLS[0]) -> list[Tensor]:
    outputs, state = run(*tensors, gating=gating, backend="cpu")
    loss = outputs.sin().sum() + state[0].square().sum() + state[-1].cos().sum()
    return [outputs, *torch.autograd.grad(loss, tensors)]


def test_it_is_chosen_for_what_it_takes_and_named_when_it_does_not():
    assert backend_for(torch.zeros(1, 1, 1)) == "cpu"
    assert backend_for(torch.zeros(1, 1, 1), Gating("-R", "gru")) == "cpu"
    assert backend_for(torch.zeros(1, 1, 1), Gating("OM")) == "cpu"
    assert backend_for(torch.zeros(1, 1, 1, dtype=torch.bfloat16), Gating("OR", "gru")) == "cpu"
    assert backend_for(torch.zeros(1, 1, 1, dtype=torch.float64)) == "reference"


@each_cell
def test_the_same_inputs_give_the_same_bits(gating: Gating):
    tensors = arguments(gating, batch=9, time=50, hidden_size=70)
    first = gradients(tensors, gating=gating)
    for _ in range(3):
        assert all(map(torch.equal, first, gradients(tensors, gating=gating)))


@each_cell
def test_torch_compile_traces_it_whole(gating: Gating):
    tensors = arguments(gating)
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for ours, eager in zip(gradients(tensors, compiled, gating), gradients(tensors, gating=gating), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", ["nothing", "activations", "recompute"])
def test_the_operators_keep_torchs_rules(save: str, half: torch.dtype):
    inputs, input_weight, recurrent_weight, bias, _ = arguments(batch=2, time=3, hidden_size=5)
    if save == "nothing":
        inputs, input_weight, recurrent_weight, bias = (
            tensor.detach() for tensor in (inputs, input_weight, recurrent_weight, bias)
        )
    weights, state = (inputs, input_weight, recurrent_weight, bias), torch.zeros(2, 5)
    rules = ("test_schema", "test_autograd_registration", "test_faketensor")
    for kind, dtype in (
        ("lstm UR", half),
        ("lstm OR", half),
        ("gru O-", half),
        ("gru UR", half),
        ("gru -R reverse", half),
    ):
        cell = state.clone() if kind.startswith("lstm") else None
        call = (*weights, state, cell, None, kind, dtype, save, False)
        torch.library.opcheck(torch.ops.urzoo.cpu_scan.default, call, test_utils=rules)
    for kind, cell in (("lstm UR", state.clone()), ("gru UR", None)):
        call = (weights[0][:, 0].detach(), *weights[1:], state, cell, kind, half)
        torch.library.opcheck(torch.ops.urzoo.cpu_step.default, call, test_utils=rules)


@each_cell
@pytest.mark.parametrize("where", ["inputs", "input_weight", "recurrent_weight", "bias"])
def test_nan_in_gives_nan_out(where: str, gating: Gating):
    tensors = [tensor.detach() for tensor in arguments(gating, batch=1)]
    tensors[("inputs", "input_weight", "recurrent_weight", "bias").index(where)].view(-1)[0] = torch.nan
    outputs, state = scan(*tensors, gating=gating, backend="cpu")
    assert outputs.isnan().any()
    assert state[0].isnan().any()


@each_cell
def test_infinite_preactivations_saturate(gating: Gating):
    tensors = [tensor.detach() for tensor in arguments(gating)]
    # A softmax sees the differences between units, of which sums near 1e4 keep few digits and others keep others.
    for extreme in (1e30, -1e30) if gating.uses_cumax else (1e4, 1e30, -1e30):
        tensors[3] = torch.full_like(tensors[3], extreme)
        outputs, _ = scan(*tensors, gating=gating, backend="cpu")
        reference, _ = scan(*tensors, gating=gating, backend="reference")
        torch.testing.assert_close(outputs, reference, rtol=1e-6, atol=1e-6)


@each_cell
def test_nan_in_the_padding_reaches_nothing(gating: Gating):
    tensors = arguments(gating)
    tensors[0].data[:, 4:] = torch.nan
    mask = (torch.arange(7) < 4).expand(3, 7)
    outputs, _ = scan(*tensors, gating=gating, mask=mask, backend="cpu")
    for grad in torch.autograd.grad(outputs.sum(), tensors):
        assert grad.isfinite().all()


@each_cell
def test_arguments_of_any_strides_are_taken(gating: Gating):
    tensors = [tensor.detach() for tensor in arguments(gating)]
    twisted = [tensors[0].transpose(0, 1).contiguous().transpose(0, 1), *(t.t().contiguous().t() for t in tensors[1:])]
    for strided in twisted[:3]:
        assert not strided.is_contiguous()
    strided, plain = (scan(*some, gating=gating, backend="cpu")[0] for some in (twisted, tensors))
    torch.testing.assert_close(strided, plain, rtol=0, atol=0)


@each_cell
@pytest.mark.parametrize("batch", [1, 3, 9, 20])
@pytest.mark.parametrize("differentiated", [False, True])
def test_steps_one_by_one_give_the_sequence(batch: int, differentiated: bool, gating: Gating):
    inputs, *weights = (tensor.detach() for tensor in arguments(gating, batch=batch))
    weights[1].requires_grad_(differentiated)
    outputs, final = scan(inputs, *weights, gating=gating, backend="cpu")
    state = zeros(gating, batch)
    for time in range(7):
        state = step(inputs[:, time], *weights, state=state, gating=gating, backend="cpu")
        torch.testing.assert_close(state[0], outputs[:, time])
    torch.testing.assert_close(state, final)
    assert state[0].requires_grad == differentiated


@pytest.mark.parametrize(
    "gating",
    [Gating("--", tie_input_gate=False), Gating("-R"), Gating("UM"), Gating("O-"), *CELLS, Gating("--", "gru")],
    ids=str,
)
def test_a_step_sees_weights_changed_in_place(gating: Gating):
    rows = 17 * len(gating.blocks)
    weights = [torch.randn(rows, 3), torch.randn(rows, 17), torch.randn(rows)]
    inputs, state = torch.randn(2, 3), tuple(torch.randn(2, 17) for _ in zeros(gating))
    for _ in range(2):
        ours = step(inputs, *weights, state=state, gating=gating, backend="cpu")
        torch.testing.assert_close(ours, step(inputs, *weights, state=state, gating=gating, backend="reference"))
        weights[1].mul_(-1)


@each_cell
def test_torch_compile_traces_a_step_whole(gating: Gating):
    inputs, *weights = (tensor.detach() for tensor in arguments(gating))
    state = zeros(gating)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    ours = compiled(inputs[:, 0], *weights, state=state, gating=gating, backend="cpu")
    eager = step(inputs[:, 0], *weights, state=state, gating=gating, backend="cpu")
    torch.testing.assert_close(ours, eager, rtol=0, atol=0)


@each_cell
def test_a_weight_changed_in_place_before_backward_is_noticed(gating: Gating):
    tensors = arguments(gating)
    outputs, _ = scan(*tensors, gating=gating, backend="cpu")
    tensors[2].data.mul_(1)
    with torch.no_grad():
        tensors[2].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@each_cell
def test_threads_may_call_at_the_same_time(gating: Gating):
    tensors = arguments(gating, time=60, hidden_size=40)
    expected, got = gradients(tensors, gating=gating), {}

    def work(index: int) -> None:
        got[index] = gradients([tensor.detach().requires_grad_() for tensor in tensors], gating=gating)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for result in got.values():
        assert all(map(torch.equal, expected, result))


def _in_child(queue: "multiprocessing.Queue[float]", gating: Gating) -> None:
    tensors = [tensor.detach() for tensor in arguments(gating, batch=40)]
    queue.put(scan(*tensors, gating=gating, backend="cpu")[0].sum().item())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@each_cell
def test_a_forked_child_computes_too(gating: Gating):
    tensors = [tensor.detach() for tensor in arguments(gating, batch=40)]
    expected = scan(*tensors, gating=gating, backend="cpu")[0].sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, gating))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


_DIGEST = """
import torch
from urzoo.recurrence import Gating, scan
torch.set_num_threads(2)
torch.manual_seed(0)
gating = Gating("UR")
rows = 48 * len(gating.blocks)
tensors = [torch.randn(40, 9, 5), torch.randn(rows, 5), torch.randn(rows, 48)]
for tensor in tensors:
    tensor.requires_grad_()
outputs, _ = scan(*tensors, gating=gating, backend="cpu")
outputs.square().sum().backward()
print([tensor.double().sum().item() for tensor in (outputs, *(tensor.grad for tensor in tensors))])
"""


def test_a_limit_on_the_runtimes_threads_changes_neither_bits_nor_ends_in_waiting():
    # Torch's runtime then gives one thread where two were asked for, and the back end brings its own.
    assert _run(_DIGEST, OMP_THREAD_LIMIT="1") == _run(_DIGEST)


@pytest.mark.parametrize("save", ["activations", "recompute"])
def test_results_too_large_for_the_caches_are_those_of_the_reference(save: str):
    gating, batch, time = Gating("UR"), 24, 300
    inputs, *weights = arguments(gating, batch=batch, time=time, hidden_size=176)
    assert batch * time * 176 * 5 > 6 << 20, "what is saved goes past the caches"
    found = {}
    for backend in ("cpu", "reference"):
        # Small weights: with larger ones so many units are chaotic over so many steps, and rounding grows.
        leaves = [(0.1 * tensor).detach().requires_grad_() for tensor in (inputs, *weights)]
        outputs, _ = scan(*leaves, gating=gating, backend=backend, save=save)
        outputs.square().mean().backward()
        found[backend] = [outputs.detach(), *(leaf.grad for leaf in leaves)]
    for ours, expected in zip(found["cpu"], found["reference"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_memory_returns_to_the_pool_when_its_tensor_dies():
    memory.release()
    tensor = memory.empty(2, memory.HUGE_PAGE_BYTES)
    address = tensor.data_ptr()
    view = tensor[1]
    del tensor
    gc.collect()
    another = memory.empty(2, memory.HUGE_PAGE_BYTES)
    assert another.data_ptr() != address, "the view still needs it"
    del view
    gc.collect()
    assert memory.empty(2, memory.HUGE_PAGE_BYTES).data_ptr() == address
    memory.release()


def _run(code: str, **environment: str) -> str:
    root = Path(library.__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_environment_chooses_the_variant():
    code = "from urzoo.recurrence.cpu import library; print(library.current().variant)"
    assert _run(code, URZOO_CPU_VARIANT="baseline") == "baseline"
    code = "from urzoo.recurrence import backends; print(backends()['cpu'])"
    assert "URZOO_CPU_VARIANT is 'sse9', expected one of" in _run(code, URZOO_CPU_VARIANT="sse9")


def test_without_its_libraries_the_reference_runs_and_the_reason_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(library, "_path", lambda variant: tmp_path / f"_fused_{variant}.so")
    assert library.variants() == []
    reason = library.load()
    assert isinstance(reason, str)
    assert "was not compiled at installation; install a C++17 compiler" in reason
    (tmp_path / "_fused_avx2.so").touch()
    monkeypatch.setattr(library, "_handle", lambda _: SimpleNamespace(urzoo_supports=lambda _: 0))
    assert str(library.load()).startswith("_fused_avx2.so was compiled for another processor than this; install")
    assert library.variants() == []
    monkeypatch.setattr(library, "_loaded", reason)
    assert backends()["cpu"] == reason
    assert backend_for(torch.zeros(1, 1, 1), backend="reference") == "reference"
