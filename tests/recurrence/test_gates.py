"""The gating mechanisms against the equations, term by term, and the initialisation of their biases."""

import math

import pytest
import torch

from urzoo.errors import UsageError
from urzoo.recurrence import GATINGS, Gating, gatings, initial_gate_bias
from urzoo.recurrence.gates import cumax, effective_gate, effective_input, gru_gates, lstm_update, refine

INITIAL_VALUES = {0.01: 0.0197, 0.10: 0.172, 0.25: 0.344, 0.50: 0.500, 0.75: 0.656, 0.90: 0.828, 0.99: 0.9803}


@pytest.mark.parametrize(("forget", "effective"), INITIAL_VALUES.items())
def test_effective_forget_at_initialisation_is_the_papers(forget: float, effective: float):
    bias = torch.logit(torch.tensor([forget], dtype=torch.float64))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    parts = {"forget": zero, "refine": zero}
    decimals = len(str(effective)) - 2
    assert round(effective_gate(Gating("UR"), parts, bias).item(), decimals) == effective


def test_the_forms_of_the_refined_gate_are_one():
    gate, refinement = torch.rand(2, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    refined = refine(gate, refinement)
    band = refinement * (1 - (1 - gate) ** 2) + (1 - refinement) * gate**2
    expanded = 2 * refinement * gate + (1 - 2 * refinement) * gate**2
    torch.testing.assert_close(refined, band, rtol=0, atol=1e-15)
    torch.testing.assert_close(refined, expanded, rtol=0, atol=1e-15)


def test_a_neutral_refine_gate_leaves_the_gate_where_it_is():
    gate = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(refine(gate, torch.full_like(gate, 0.5)), gate)


def test_cumax_rises_to_one():
    values = cumax(torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert (values.diff(dim=-1) > 0).all()
    torch.testing.assert_close(values[:, -1], torch.ones(4, dtype=torch.float64))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _cumax(values: list[float]) -> list[float]:
    weights = [math.exp(value) for value in values]
    return [sum(weights[: unit + 1]) / sum(weights) for unit in range(len(values))]


def _gates_by_hand(gating: Gating, pre: dict[str, list[float]], bias: list[float]) -> tuple[list[float], list[float]]:
    """Effective forget and untied input gate of every unit, by scalar arithmetic written out per gating."""
    units = range(len(bias))
    forget = pre["update" if gating.cell == "gru" else "forget"]
    entering = pre.get("input", [0.0] * len(bias))
    match gating.name:
        case "--":
            return [_sigmoid(forget[k]) for k in units], [_sigmoid(entering[k]) for k in units]
        case "C-" | "U-":
            return [_sigmoid(forget[k] + bias[k]) for k in units], [_sigmoid(entering[k] - bias[k]) for k in units]
        case "O-":
            return _cumax(forget), [1 - value for value in _cumax(entering)]
        case "-R" | "OR" | "CR" | "UR":
            plain = Gating(gating.name[0] + "-", gating.cell, gating.tie_input_gate)
            f, i = _gates_by_hand(plain, pre, bias)
            offset = gating.refine_offset and gating.name in ("CR", "UR")
            r = [_sigmoid(pre["refine"][k] - (bias[k] if offset else 0.0)) for k in units]
            return [r[k] * (1 - (1 - f[k]) ** 2) + (1 - r[k]) * f[k] ** 2 for k in units], i
        case "-M" | "OM" | "CM" | "UM":
            plain = Gating(gating.name[0] + "-", tie_input_gate=False)
            masters = {"forget": pre["master_forget"], "input": pre["master_input"]}
            master_forget, master_input = _gates_by_hand(plain, masters, bias)
            overlap = [master_forget[k] * master_input[k] for k in units]
            f, i = _gates_by_hand(Gating("--", tie_input_gate=False), pre, bias)
            return (
                [f[k] * overlap[k] + (master_forget[k] - overlap[k]) for k in units],
                [i[k] * overlap[k] + (master_input[k] - overlap[k]) for k in units],
            )
    raise AssertionError(gating)


def test_every_gating_follows_its_equations(gating: Gating):
    hidden_size = 5
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randn(len(gating.blocks), hidden_size, dtype=torch.float64, generator=generator)
    bias = 2 * torch.randn(hidden_size, dtype=torch.float64, generator=generator)
    cell = torch.randn(1, hidden_size, dtype=torch.float64, generator=generator)
    pre = dict(zip(gating.blocks, blocks.tolist(), strict=True))
    forget, entering = _gates_by_hand(gating, pre, bias.tolist())
    gate_bias = bias if gating.uses_gate_bias else None

    parts = dict(zip(gating.blocks, blocks[:, None].unbind(0), strict=True))
    assert effective_gate(gating, parts, gate_bias)[0].tolist() == pytest.approx(forget, abs=1e-14)
    if gating.cell == "gru":
        reset, update = gru_gates(gating, blocks[:-1].reshape(1, -1), gate_bias)
        assert reset[0].tolist() == pytest.approx([_sigmoid(value) for value in pre["reset"]], abs=1e-14)
        assert update[0].tolist() == pytest.approx(forget, abs=1e-14)
        return
    if gating.tie_input_gate:
        entering = [1 - value for value in forget]
    else:
        assert effective_input(gating, parts, gate_bias)[0].tolist() == pytest.approx(entering, abs=1e-14)
    new = [
        f * c + i * math.tanh(u)
        for f, i, u, c in zip(forget, entering, pre["candidate"], cell[0].tolist(), strict=True)
    ]
    after = [_sigmoid(o) * math.tanh(c) for o, c in zip(pre["output"], new, strict=True)]
    hidden, updated = lstm_update(gating, blocks.reshape(1, -1), gate_bias, cell)
    assert updated[0].tolist() == pytest.approx(new, abs=1e-14)
    assert hidden[0].tolist() == pytest.approx(after, abs=1e-14)


def test_the_blocks_stand_in_the_documented_order():
    assert Gating().blocks == ("forget", "refine", "candidate", "output")
    assert Gating("--").blocks == ("forget", "candidate", "output")
    assert Gating("--", tie_input_gate=False).blocks == ("input", "forget", "candidate", "output")
    assert Gating("OM", tie_input_gate=False).blocks == (
        "input",
        "forget",
        "master_forget",
        "master_input",
        "candidate",
        "output",
    )
    assert Gating("UR", "gru").blocks == ("reset", "update", "refine", "candidate")
    assert Gating("--", "gru").blocks == ("reset", "update", "candidate")


def test_there_are_twelve_gatings():
    assert len(set(GATINGS)) == 12
    assert [name for name in GATINGS if Gating(name).uses_gate_bias] == ["C-", "CM", "CR", "U-", "UM", "UR"]


def test_each_gating_has_its_own_colour_and_stroke_and_the_papers_method_stands_first():
    assert len({(Gating(name).colours, Gating(name).dashes) for name in GATINGS}) == len(GATINGS)
    order = sorted((*gatings("gru"), *gatings("lstm")), key=lambda gating: gating.order)
    names, lstms = [f"{gating.name} {gating.cell}" for gating in order], len(gatings("lstm"))
    assert (names[0], names[lstms - 1], names[lstms], names[-1]) == ("UR lstm", "-- lstm", "UR gru", "-- gru")


@pytest.mark.parametrize("name", ["U-", "UM", "UR"])
def test_uniform_gate_initialisation_spreads_the_gates_evenly(name: str):
    hidden_size = 2000
    gates = torch.sigmoid(initial_gate_bias(Gating(name), hidden_size, generator=torch.Generator().manual_seed(0)))
    assert gates.min() >= 1 / hidden_size * (1 - 1e-3)
    assert gates.max() <= 1 - 1 / hidden_size * (1 - 1e-3)
    even = torch.linspace(0, 1, hidden_size)
    # Kolmogorov's statistic passes 1.95 / sqrt(n) once in a thousand draws.
    assert (gates.sort().values - even).abs().max() < 1.95 / hidden_size**0.5


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_chrono_initialisation_keeps_up_to_max_time(cell: str):
    gating = Gating("CR", cell)
    bias = initial_gate_bias(gating, 2000, max_time=100, generator=torch.Generator().manual_seed(0))
    times = torch.exp(bias if cell == "lstm" else -bias)
    assert 1 - 1e-4 <= times.min() < 2
    assert 98 < times.max() <= 99 + 1e-2
    assert times.mean() == pytest.approx(50, abs=2.5)


def test_gatings_without_gate_bias_begin_at_zero():
    for name in ("--", "-R", "O-", "OM"):
        assert torch.equal(initial_gate_bias(Gating(name), 4), torch.zeros(4))


def test_a_single_unit_begins_half_open():
    assert initial_gate_bias(Gating("UR"), 1).tolist() == [0.0]


def test_the_generator_fixes_the_gate_bias():
    first, second = (initial_gate_bias(Gating(), 8, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "UQ"}, r"unknown gate 'UQ'\. Did you mean .*'UR'.*\? Available: --, -M"),
        ({"cell": "rnn"}, r"unknown cell 'rnn'\..* Available: gru, lstm\."),
        ({"name": "UM", "cell": "gru"}, r"gate 'UM' has master gates, .* give gate='UR' or 'U-', or cell='lstm'\."),
        ({"cell": "gru", "tie_input_gate": False}, r"tie_input_gate is False, expected True with cell='gru'"),
    ],
)
def test_a_gating_without_meaning_is_refused(arguments: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        Gating(**arguments)


@pytest.mark.parametrize(
    ("name", "max_time", "message"),
    [
        ("C-", None, r"max_time is None, expected at least 2 with gate 'C-'.* such as max_time=784"),
        ("CR", 1, r"max_time is 1, expected at least 2"),
        ("UR", 784, r"max_time is 784, but gate 'UR' does not use it; omit max_time or take a chrono gating"),
    ],
)
def test_max_time_is_for_chrono_alone(name: str, max_time: int | None, message: str):
    with pytest.raises(UsageError, match=message):
        initial_gate_bias(Gating(name), 4, max_time=max_time)
