"""The fused CPU back end passes the accuracy suite: every gating and dtype it offers, every instruction set.

test_cpu_faults.py shows that it catches faults.
"""

import re
from pathlib import Path

import pytest
import torch

from tests.recurrence.accuracy import COVERING, LONG, Case, Size, Truth, case_id, cases_of, grid_of, losses, part_id
from urzoo.recurrence import Gating, backends
from urzoo.recurrence.cpu import library, passes

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

CASES = cases_of("cpu")
every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
# Master gates, cumax on one gate and on two.
ORDERED = (Gating("UM"), Gating("OR"), Gating("OM", tie_input_gate=False))
# One of each kind, for what does not depend on the gate.
KINDS = [
    case
    for case in CASES
    if case[0] in (Gating("UR"), Gating("--", tie_input_gate=False), Gating("UR", "gru"), *ORDERED)
    and case[1] != "bfloat16"
]
each_kind = pytest.mark.parametrize("case", KINDS, ids=case_id)


def test_a_dtype_is_judged_once_it_is_named(monkeypatch: pytest.MonkeyPatch):
    """What CONTRIBUTING shows for a dtype of a fused back end."""
    pattern = r"^(?:    )?_PRIMARY, _AUXILIARY, _DTYPES = (\".*\"), \(torch\.float32, torch\.bfloat16(.*)\)$"
    [shown] = re.findall(pattern, (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert shown[1] == ", torch.float16"
    assert re.findall(pattern, Path(passes.__file__).read_text("utf-8"), re.MULTILINE) == [(shown[0], "")]
    assert not [case for case in CASES if case[1] == "float16"]
    monkeypatch.setattr(passes, "_DTYPES", (*passes._DTYPES, torch.float16))
    found = {gating for gating, mode in cases_of("cpu") if mode == "float16"}
    assert found == {gating for gating, mode in CASES if mode == "bfloat16"} != set()


@every_case
@pytest.mark.parametrize("size", COVERING, ids=str)
def test_it_loses_no_more_than_the_reference_to_rounding(size: Size, case: Case):
    assert not losses("cpu", case[0], size, case[1])


@each_kind
@pytest.mark.parametrize("size", LONG, ids=str)
def test_it_loses_no_more_over_many_steps(size: Size, case: Case):
    assert not losses("cpu", case[0], size, case[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "sizes"),
    [(case, part) for case in CASES for part in grid_of(case, CASES)],
    ids=lambda value: case_id(value) if isinstance(value, tuple) else part_id(value),
)
def test_it_loses_no_more_over_the_whole_grid_with_any_variant(sizes: list[Size], case: Case):
    found = {}
    for size in sizes:
        truths: dict[int, Truth] = {}
        for variant in library.variants():
            with library.using(variant):
                found[f"{size} {variant}"] = losses("cpu", case[0], size, case[1], truths=truths)
    assert not any(found.values()), found


@each_kind
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pad", ["left", "right"])
def test_padding_in_both_directions_loses_no_more(case: Case, pad: str, reverse: bool):
    assert not losses("cpu", case[0], Size(9, 7, 20, 3, pad, reverse), case[1])


@each_kind
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [5, 171, 400])
def test_recomputing_loses_no_more(time: int, reverse: bool, case: Case):
    assert not losses("cpu", case[0], Size(time, 3, 20, 3, "right", reverse), case[1], save="recompute")


@each_kind
@pytest.mark.parametrize("variant", library.variants())
@pytest.mark.parametrize("size", [Size(7, 2, 17, 1), Size(40, 9, 33, 20), Size(5, 2, 180, 3)], ids=str)
def test_every_variant_of_the_library_loses_no_more(size: Size, variant: str, case: Case):
    with library.using(variant) as used:
        assert used.variant == variant
        for gating in {case[0], *([Gating("--"), Gating(tie_input_gate=False)] if case[0] == Gating("UR") else [])}:
            assert not losses("cpu", gating, size, case[1])


@each_kind
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_loses_no_more(threads: int, case: Case):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for size in (Size(9, 3, 40, 2), Size(20, 2, 190, 20), Size(5, 64, 33, 1)):
            assert not losses("cpu", case[0], size, case[1])
        assert not losses("cpu", case[0], Size(300, 2, 190, 20), case[1], save="recompute")
    finally:
        torch.set_num_threads(before)


@each_kind
def test_threads_that_share_both_rows_and_units_lose_no_more(case: Case):
    """More threads than vectors of units: some share the units of some rows, others those of other rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(13)
    try:
        assert not losses("cpu", case[0], Size(3, 64, 33, 1), case[1], draws=2)
    finally:
        torch.set_num_threads(before)


@each_kind
def test_small_values_keep_their_digits(case: Case):
    """tanh and sigmoid near zero are exact relative to their value, not to 1."""
    assert not losses("cpu", case[0], Size(3, 7, 48, 3), case[1], scale=1e-4)
