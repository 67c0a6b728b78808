"""Rows that differ by the seed of their training alone, put together: mean and deviation over the seeds.

A recipe for several seeds gives its checkpoints names with `-seed<number>` in them. Ranked rows whose names agree but
for that number, of one gating, cell, size and length of training, are a group where there are two seeds or more, each
once; it has no rank.
"""

import math
from collections.abc import Sequence

from urzoo.evaluation.recommended import SEED
from urzoo.evaluation.schema import plain_name
from urzoo.leaderboard.schema import Row, SeedGroup
from urzoo.leaderboard.text import tidy


def groups(rows: Sequence[Row], digits: int, *, higher_is_better: bool) -> tuple[SeedGroup, ...]:
    """The groups among the measured rows of a task, the best mean first.

    Args:
        rows: The measured rows.
        digits: Decimals of the metric.
        higher_is_better: The metric's direction.
    """
    found: dict[tuple[object, ...], dict[int, list[Row]]] = {}
    for row in rows:
        training = row.provenance["model"]["training"]
        if row.status != "ranked" or SEED.search(plain_name(row.model)) is None:
            continue
        key = (_without_seed(row.model), row.kind, row.cell, row.gate, row.hidden_size, row.num_layers, row.parameters)
        # The seed is that of the training: the name may say another.
        found.setdefault((*key, training["task"], training["epochs"]), {}).setdefault(training["seed"], []).append(row)
    made = [
        _group({seed: rows[0] for seed, rows in members.items()}, digits)
        for members in found.values()
        # Where a seed has two rows, of models of one name or trained from one seed, nobody knows which belong together.
        if len(members) > 1 and all(len(of_seed) == 1 for of_seed in members.values())
    ]
    sign = -1 if higher_is_better else 1
    return tuple(sorted(made, key=lambda group: (sign * group.mean, group.name)))


def in_groups(rows: Sequence[Row], found: Sequence[SeedGroup]) -> list[Row]:
    """The rows, each with the id of its group."""
    of = {member: group.id for group in found for member in group.rows}
    return [row.model_copy(update={"group": of.get(row.id)}) for row in rows]


def _without_seed(model: str) -> str:
    return SEED.sub("", plain_name(model), count=1)


def _group(members: dict[int, Row], digits: int) -> SeedGroup:
    seeds = sorted(members)
    rows = [members[seed] for seed in seeds]
    values = [row.value for row in rows]
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    costs = [row.training_seconds for row in rows if row.training_seconds is not None]
    first = rows[0]
    name = _without_seed(first.model)
    return SeedGroup(
        id=f"{first.id}/seeds",  # of the name without its seed there may be another group
        name=name,
        kind=first.kind,
        cell=first.cell,
        gate=first.gate,
        hidden_size=first.hidden_size,
        num_layers=first.num_layers,
        parameters=first.parameters,
        seeds=tuple(seeds),
        rows=tuple(row.id for row in rows),
        models=tuple(row.model for row in rows),
        mean=tidy(mean),
        deviation=tidy(deviation),
        shown=f"{mean:.{digits}f} ± {deviation:.{digits}f}",
        span=f"{min(values):.{digits}f} to {max(values):.{digits}f}",
        training_seconds=math.fsum(costs) / len(costs) if costs else None,
    )
