"""Faults planted into copies of the C++ source: what the tests of the fused CPU back end look at catches each."""

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.recurrence.accuracy import Size, losses
from tests.recurrence.conftest import make_problem
from urzoo.recurrence import Gating, backends, scan, step
from urzoo.recurrence.cpu import PackedSteps, library

SOURCE = Path(library.__file__).with_name("source")

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

# By kind of cell: the file, what is right in it, and what is put in its place.
FAULTS = {
    ("lstm", "wrong sign of the refine gate"): (
        "cells.h",
        "(1.0f - gate) * (2.0f * refine - 1.0f)",
        "(1.0f - gate) * (1.0f - 2.0f * refine)",
    ),
    ("lstm", "plain forget gate"): ("cells.h", "effective = refined(forget, gates[kRefine])", ""),
    ("lstm", "stale final cell"): ("forward.h", "load(cell + row * layout.stride + unit * kWidth), left", "vf{}, left"),
    ("lstm", "detached recurrence"): (
        "backward.h",
        "for (int64_t index = 0; index < blocks;)",
        "for (int64_t index = 0; index < 0;)",
    ),
    ("lstm", "the padding is not skipped"): ("layout.h", "p.mask[row * p.time + time] != 0", "true"),
    ("lstm", "gradient of the first chunk only"): ("weight_grads.h", "chunk.last == p.time && segment == 0;", "true;"),
    ("gru", "wrong sign of the refine gate"): (
        "cells.h",
        "(1.0f - gate) * (2.0f * refine - 1.0f)",
        "(1.0f - gate) * (1.0f - 2.0f * refine)",
    ),
    ("gru", "plain update gate"): ("gru_cell.h", "Refined ? refined(gates[kUpdate]", "false ? refined(gates[kUpdate]"),
    ("gru", "stale final hidden state"): (
        "gru_forward.h",
        "load(hidden + row * layout.stride + unit * kWidth), layout",
        "vf{}, layout",
    ),
    ("gru", "detached recurrence"): (
        "gru_backward.h",
        "multiply(chunk, step, gates, units, hidden_grad, false);",
        "",
    ),
    ("gru", "detached candidate"): (
        "gru_backward.h",
        "load(hidden_grad + place) + grad * reset",
        "load(hidden_grad + place)",
    ),
    ("gru", "reset after the product"): ("gru_forward.h", "values[Cell::kReset] * load(hidden", "load(hidden"),
    ("gru", "the padding is not skipped"): ("layout.h", "p.mask[row * p.time + time] != 0", "true"),
    ("gru", "gradient of the first chunk only"): ("gru_deltas.h", "fresh && segment == 0);", "true);"),
}
# In what only gates that couple the units of a row use, and master gates.
FAULTS |= {
    ("ordered", fault): planted
    for fault, planted in {
        "padding lanes in the softmax": ("cumax.h", "share = lanes::first_of(share, tail, vf{});", ";"),
        "sums within each vector only": (
            "cumax.h",
            "store(sums + unit * sums_stride, carry.plus(up));\n    if",
            "store(sums + unit * sums_stride, up);\n    if",
        ),
        "exclusive sums of gradients": (
            "cumax.h",
            "vf share_grad = carry.plus(down);",
            "vf share_grad = carry.plus(vf{});",
        ),
        "softmax gradient without its mean": ("cumax.h", "(load(place) - mean)", "load(place)"),
        "master input gate not closing": ("cells.h", "return is_cumax(gate) && gate ==", "return false && gate =="),
        "overlap ignored": (
            "cells.h",
            "effective = forget * overlap + (master_forget - overlap);",
            "effective = master_forget;",
        ),
    }.items()
}
# In what computes again what was not saved.
FAULTS |= {
    ("recomputed lstm", "a cell of another chunk"): (
        "backward.h",
        "p.saved + step / p.segment * p.batch * p.hidden_size + place",
        "p.saved + place",
    ),
    ("recomputed lstm", "the padding is not skipped"): (
        "backward.h",
        "if (!layout.real(chunk.rows.begin + row, layout.time_of(step))) cell = old_cell;",
        "",
    ),
    ("recomputed gru", "the reset gate lets all through"): (
        "gru_activations.h",
        "first_of(reset * hidden,",
        "first_of(hidden,",
    ),
    ("recomputed gru", "gates without their bias"): (
        "gru_activations.h",
        "load(here + gate * kWidth) + load(packed.gates.bias(unit) + gate * kWidth)",
        "load(here + gate * kWidth)",
    ),
    ("recomputed gru", "the hidden state after a step is that before it"): (
        "gru_activations.h",
        "hidden = Gru<false>::forward(update, candidate, hidden);",
        "",
    ),
}
# In what only the GRU has whose update gate is a cumulative softmax, and in one of its parts.
FAULTS |= {
    ("ordered gru", "sums in place of their gradients"): (
        "gru_backward.h",
        "activations.differentiate_sums(chunk, line);",
        "",
    ),
    ("ordered gru", "no gradient of the bias"): ("gru_backward.h", "add_coupled_bias(chunk, step, unit);", ";"),
    ("ordered gru", "bias of the last chunk only"): ("gru_backward.h", "load(total + at) + load(part + at)", "vf{}"),
}
# In a single step without packed weights.
FAULTS |= {
    ("step", "one line for all"): ("step.h", "these + line * stride + k", "these + k"),
    ("step", "the last row once more"): ("step.h", "std::min(first + row, rows - 1)", "std::min(first, rows - 1)"),
    ("step", "the rest of a vector left out"): ("step.h", "if (first < rows && k < depth) add(k, depth - k);", ""),
    ("step", "no hidden state"): (
        "step.h",
        "multiply(sums, unit, some, hidden, p.recurrent_weight, p.hidden_size, false);",
        "",
    ),
    ("step", "gate bias everywhere"): ("pack.h", "p.raised >> block & 1 ?", "true ?"),
    ("step", "bfloat16 read as floats"): ("step.h", "of_hidden = p.rounded & kHidden ?", "of_hidden = false ?"),
    ("gru step", "reset after the product"): ("gru_step.h", "reset * hidden_at(unit, row)", "hidden_at(unit, row)"),
    ("gru step", "rows of the width of others"): (
        "gru_step.h",
        "recalled, stride, p.recurrent_weight",
        "recalled, p.hidden_size, p.recurrent_weight",
    ),
}
# In steps with weights that were packed before.
FAULTS |= {
    ("stream", "packed again"): (
        "packed.h",
        "packed.place(p.packed == nullptr ? workspace : kept);",
        "packed.place(workspace);",
    ),
    ("stream", "the state is not carried"): ("forward.h", "load_first(initial + from, left));", "vf{});"),
    ("gru stream", "the state is not carried"): (
        "gru_forward.h",
        "set_hidden(row, unit, load_first(initial",
        "if (p.packed == nullptr) set_hidden(row, unit, load_first(initial",
    ),
}

Judge = Callable[[], object]


def losing(gating: Gating, *modes: str, pad: str = "right", **options: str) -> Judge:
    """Too much is lost to rounding, in every mode; of one draw the reference may lose next to nothing, by luck."""

    def judge() -> bool:
        return all(losses("cpu", gating, Size(300, 3, 17, 3, pad), mode, draws=4, **options) for mode in modes)

    return judge


@torch.no_grad()
def step_is_off(gating: Gating) -> bool:
    """A step is not that of the reference, in some batch, on float32 weights under autocast too."""
    off = False
    for batch in (1, 5):
        problem = make_problem(gating, batch=batch, time=1, input_size=3, hidden_size=21).to(torch.float32)
        inputs, *weights = (problem.tensors.get(name) for name in ARGUMENTS)
        state = tuple(problem.tensors[name] for name in ("hidden", "cell") if name in problem.tensors)
        assert inputs is not None
        expected = step(inputs[:, 0], *weights, state, gating=gating, backend="reference")
        off |= not close(step(inputs[:, 0], *weights, state, gating=gating, backend="cpu"), expected, 1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = tuple(
                part.bfloat16() if len(state) > 1 and not index else part for index, part in enumerate(state)
            )
            found = step(inputs[:, 0].bfloat16(), *weights, rounded, gating=gating, backend="cpu")
        off |= not close(found, expected, 0.05)
    return off


@torch.no_grad()
def stream_is_off(gating: Gating) -> bool:
    """Steps with packed weights are not those of a sequence."""
    problem = make_problem(gating, batch=2, time=4, input_size=3, hidden_size=21).to(torch.float32)
    inputs, *weights = (problem.tensors.get(name) for name in ARGUMENTS)
    state = tuple(problem.tensors[name] for name in ("hidden", "cell") if name in problem.tensors)
    assert inputs is not None
    outputs, _ = scan(inputs, *weights, state, gating=gating, backend="reference")
    steps = PackedSteps(tuple(weights), gating, torch.float32, state)
    return not close([torch.stack([steps.step(one) for one in inputs.unbind(1)], 1)], [outputs], 1e-5)


def close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> bool:
    return all(bool((ours - theirs).abs().max() <= tolerance) for ours, theirs in zip(found, expected, strict=True))


ARGUMENTS = ("inputs", "input_weight", "recurrent_weight", "bias", "gate_bias")
BOTH = ("float32", "autocast to bfloat16")
JUDGES: dict[str, Judge] = {
    "lstm": losing(Gating("UR"), *BOTH),
    "gru": losing(Gating("UR", "gru"), *BOTH),
    "ordered": losing(Gating("OM"), "float32"),
    "ordered gru": losing(Gating("OR", "gru"), "float32"),
    "recomputed lstm": losing(Gating("UR"), *BOTH, pad="left", save="recompute"),
    "recomputed gru": losing(Gating("UR", "gru"), "autocast to bfloat16", save="recompute"),
    "step": functools.partial(step_is_off, Gating("UR")),
    "gru step": functools.partial(step_is_off, Gating("UR", "gru")),
    "stream": functools.partial(stream_is_off, Gating("UR")),
    "gru stream": functools.partial(stream_is_off, Gating("UR", "gru")),
}


def compile_object(file: Path, target: Path) -> Path:
    command = ["g++", "-std=c++17", "-O0", "-w", "-fPIC", "-c", "-o", str(target), str(file)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return target


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The compiled source without a fault, by file."""
    folder = tmp_path_factory.mktemp("objects")
    return {file.name: compile_object(file, folder / f"{file.stem}.o") for file in sorted(SOURCE.glob("*.cpp"))}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile the fault")
@pytest.mark.parametrize("fault", FAULTS, ids=" ".join)
def test_a_planted_fault_is_caught(
    fault: tuple[str, str], sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name, right, wrong = FAULTS[fault]
    source = shutil.copytree(SOURCE, tmp_path / "source")
    text = (source / name).read_text()
    assert text.count(right) == 1, "the source has changed: plant the fault again"
    (source / name).write_text(text.replace(right, wrong))
    file = "gru_interface.cpp" if "gru" in fault[0] else "interface.cpp"
    faulty = compile_object(source / file, tmp_path / "faulty.o")
    target = tmp_path / "_fused_baseline.so"
    # The faulty one first: of what two files compile the linker takes that of the first.
    objects = [faulty, *(found for other, found in sound.items() if other != file)]
    subprocess.run(["g++", "-shared", "-pthread", "-o", str(target), *map(str, objects)], check=True)
    monkeypatch.setattr(library, "_path", lambda variant: tmp_path / f"_fused_{variant}.so")
    with library.using("baseline"):
        assert JUDGES[fault[0]]()


@pytest.mark.parametrize("kind", JUDGES)
def test_without_a_fault_nothing_is_caught(kind: str):
    with library.using("baseline"):
        assert not JUDGES[kind]()
