"""Learning curves of the gatings on the synthetic problems, several seeds each: `scripts/curves`.

Every run is one of the recipes under configs/, with another seed. Finished runs are kept, interrupted ones go on; the
table of a task, which the board draws its plot of, is written whenever one of its runs is done. What it holds of other
gatings and seeds stays.
"""

import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from urzoo.errors import UrzooError, UsageError, unknown
from urzoo.files import write_text
from urzoo.recurrence import GATINGS
from urzoo.training.log import read_log, validations
from urzoo.training.recipe import BaseRecipe
from urzoo.training.recipe_file import load_recipe
from urzoo.training.run import train

TASKS = ("adding", "copy")
# The lines of a table for one gating and seed, as they are written.
TableLines = list[list[str]]


def train_curves(
    *,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="copy or adding; both when omitted.")] = None,
    gates: Annotated[
        list[str] | None, typer.Option("--gate", help="A gating, written --gate=UR; all with a recipe when omitted.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs per gating, their seeds counted from 0.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Steps per run in place of the recipe's.")] = None,
    configs: Annotated[Path, typer.Option(help="Where the recipes are, a folder per task.")] = Path("configs"),
    runs: Annotated[Path, typer.Option(help="Where the states of the runs are kept.")] = Path("runs/curves"),
    out: Annotated[Path, typer.Option(help="Where the tables go: TASK.csv.")] = Path("leaderboard/curves"),
) -> None:
    """Train the gatings on the copy and adding problems and write their learning curves down; resumable."""
    for task in tasks or ():
        if task not in TASKS:
            raise UsageError(unknown("task", task, TASKS))
    for gate in gates or ():
        if gate not in GATINGS:
            raise UsageError(unknown("gate", gate, GATINGS))
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}, expected at least 1.")
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}, expected at least 1.")
    chosen = {task: _recipes(configs / task, gates) for task in (TASKS if tasks is None else tasks)}
    for task, recipes in chosen.items():
        table = out / f"{task}.csv"
        curves = _read(table)
        # Seed by seed, so that an interrupted series has all gatings before it has more of one.
        for seed in range(seeds):
            for gate, (path, recipe) in recipes.items():
                variant = _variant(path, recipe, seed=seed, steps=steps, folder=runs / "recipes")
                checkpoint = train(variant, runs=runs)
                lines = validations(read_log(checkpoint / "log.jsonl"))
                score = recipe.score.name
                curves[gate, seed] = [
                    [task, gate, str(seed), str(line.step), f"{line.scores[score]:.6g}"] for line in lines
                ]
                _write(table, ["task", "gate", "seed", "step", score], curves)
        typer.echo(table)


def _recipes(folder: Path, gates: Sequence[str] | None) -> dict[str, tuple[Path, BaseRecipe]]:
    """The recipes of a task by gating, in the order of `GATINGS`."""
    read = {path: load_recipe(path) for path in sorted(folder.glob("*.yaml"))}
    found = {recipe.model.gate: (path, recipe) for path, recipe in read.items()}
    for gate in gates or ():
        if gate not in found:
            raise UsageError(f"gate {gate!r} has no recipe in {folder}; there are {', '.join(found) or 'none'}.")
    if not found:
        raise UsageError(f"{folder} holds no recipes; start scripts/curves in a checkout, or name --configs.")
    return {gate: found[gate] for gate in GATINGS if gate in found and (gates is None or gate in gates)}


def _variant(path: Path, recipe: BaseRecipe, *, seed: int, steps: int | None, folder: Path) -> Path:
    """The recipe file with another seed, under a name of its own, and with its comments."""
    name = f"{recipe.name}-seed{seed}"
    text = path.read_text(encoding="utf-8")
    for key, value in (("name", name), ("seed", seed), ("steps", steps)):
        if value is not None:
            text = re.sub(rf"(?m)^(\s*{key}:)\s+[^\s#]+", rf"\1 {value}", text)
    write_text(folder / f"{name}.yaml", text)
    return folder / f"{name}.yaml"


def _read(path: Path) -> dict[tuple[str, int], TableLines]:
    curves: dict[tuple[str, int], TableLines] = {}
    lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8"))) if path.exists() else iter(())
    next(lines, None)
    for number, line in enumerate(lines, start=2):
        if len(line) != 5 or line[1] not in GATINGS or not line[2].isdecimal():
            raise UsageError(f"{path} line {number}: expected task,gate,seed,step,score; move the table away.")
        curves.setdefault((line[1], int(line[2])), []).append(line)
    return curves


def _write(path: Path, head: list[str], curves: dict[tuple[str, int], TableLines]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(head)
    order = list(GATINGS)
    for run in sorted(curves, key=lambda run: (order.index(run[0]), run[1])):
        writer.writerows(curves[run])
    write_text(path, table.getvalue())


if __name__ == "__main__":
    try:
        typer.run(train_curves)
    except UrzooError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
