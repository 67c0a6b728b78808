"""A row of a sequence gets the same bits from the fused CPU back end whatever batch it is in.

So that a score does not depend on how its rows were put into batches. Said of the forward pass of `scan` over more than
one step, and of steps with packed weights (`urzoo.nn.Stream`): a single step of few rows by itself takes its products
in another order, and gradients of weights are sums over rows, whose order goes with the number of threads.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.recurrence.accuracy import Case, case_id, cases_of
from urzoo.recurrence import Gating, backends, scan
from urzoo.recurrence.cpu import PackedSteps

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

CASES = [case for case in cases_of("cpu") if case[1] != "autocast to bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Both sides of what is multiplied with the hidden state (up to 16 inputs), of whole vectors, and of a segment of a sum.
sizes = st.tuples(
    st.integers(2, 40), st.integers(2, 5), st.sampled_from([1, 3, 17, 70]), st.sampled_from([1, 17, 48, 100, 150, 300])
)


def arguments(
    gating: Gating, dtype: torch.dtype, batch: int, time: int, input_size: int, hidden_size: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    blocks = len(gating.blocks) * hidden_size
    shapes: list[tuple[int, ...]] = [(batch, time, input_size), (blocks, input_size), (blocks, hidden_size), (blocks,)]
    shapes += [(hidden_size,)] * gating.uses_gate_bias
    return [0.5 * torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("case", CASES, ids=case_id)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(size=sizes, threads=st.sampled_from([1, 2, 3]), padding=st.integers(0, 3), left=st.booleans(), data=st.data())
def test_a_row_has_the_same_bits_in_any_batch(
    case: Case, size: tuple[int, int, int, int], threads: int, padding: int, left: bool, data: st.DataObject
):
    gating, dtype = case[0], DTYPES[case[1]]
    batch, time, input_size, _ = size
    row = data.draw(st.integers(0, batch - 1))
    inputs, *weights = arguments(gating, dtype, *size)
    # The row alone, without its padding and on one thread; and with others before, behind and around it.
    fill = torch.full((batch, padding, input_size), 3.0, dtype=dtype)
    parts, real = (fill, inputs) if left else (inputs, fill), torch.ones(batch, time + padding, dtype=torch.bool)
    real[:, slice(0, padding) if left else slice(time, None)] = False
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, final_alone = scan(inputs[row : row + 1], *weights, gating=gating, backend="cpu")
        torch.set_num_threads(threads)
        outputs, final = scan(torch.cat(parts, 1), *weights, gating=gating, mask=real, backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outputs[row, padding:] if left else outputs[row, :time], alone[0])
    for whole, part in zip(final, final_alone, strict=True):
        assert torch.equal(whole[row], part[0])


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("size", [(1, 5, 1, 100), (3, 5, 70, 150)], ids=str)
def test_steps_with_packed_weights_have_the_bits_of_a_whole_row(size: tuple[int, int, int, int], case: Case):
    gating, dtype = case[0], DTYPES[case[1]]
    inputs, *weights = arguments(gating, dtype, *size)
    outputs, final = scan(inputs, *weights, gating=gating, backend="cpu")
    zeros = torch.zeros(size[0], size[3])
    gate_bias = weights[3] if gating.uses_gate_bias else None
    steps = PackedSteps((*weights[:3], gate_bias), gating, dtype, (zeros,) * len(final))
    for time in range(size[1]):
        assert torch.equal(steps.step(inputs[:, time]), outputs[:, time])
    assert all(map(torch.equal, steps.state, final))
