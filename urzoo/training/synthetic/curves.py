"""Learning curves of the gatings on the synthetic problems, several seeds each: `scripts/curves`.

Every run is one of the recipes under configs/, with another seed. Finished runs are kept, interrupted ones go on; the
plot of a task is drawn anew whenever one of its runs is done. The table beside the plot holds every point in it.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from urzoo.errors import UrzooError, UsageError, unknown
from urzoo.files import write_bytes, write_text
from urzoo.recurrence import GATINGS
from urzoo.training.synthetic.log import read_stream_log
from urzoo.training.synthetic.plot import Curve, draw_gatings, validation_curve
from urzoo.training.synthetic.recipe import ARCHITECTURES, SyntheticRecipe, load_synthetic_recipe
from urzoo.training.synthetic.run import train_synthetic

Curves = dict[str, dict[int, Curve]]


def train_curves(
    *,
    tasks: Sequence[str] | None = None,
    gates: Sequence[str] | None = None,
    seeds: int = 3,
    steps: int | None = None,
    configs: Path = Path("configs"),
    runs: Path = Path("runs/curves"),
    out: Path = Path("leaderboard/curves"),
    progress: bool = True,
) -> list[Path]:
    """Train every gating with every seed on every task, and plot them.

    Args:
        tasks: "copy", "adding"; both when omitted.
        gates: Names of gatings; those that have a recipe when omitted.
        seeds: How many, counted from 0.
        steps: Length of each run in place of the recipe's; for a look at the beginning.
        configs: Where the recipes are, a folder per task.
        runs: Where the run folders live.
        out: Where the plots and tables go: `<task>.png` and `<task>.csv`.
        progress: Say on stderr what goes on.

    Returns:
        The files written.

    Raises:
        UsageError: A task or gating is unknown or has no recipe, or `seeds` is not positive.
    """
    for task in tasks or ():
        if task not in ARCHITECTURES:
            raise UsageError(unknown("task", task, ARCHITECTURES))
    for gate in gates or ():
        if gate not in GATINGS:
            raise UsageError(unknown("gate", gate, GATINGS))
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}, expected at least 1.")
    if steps is not None and steps < 1:
        raise UsageError(f"steps is {steps}, expected at least 1.")
    chosen = {task: _recipes(configs / task, gates) for task in (ARCHITECTURES if tasks is None else tasks)}
    written: list[Path] = []
    for task, recipes in chosen.items():
        curves: Curves = {}
        score = ""
        # Seed by seed, so that an interrupted series has all gatings before it has more of one.
        for seed in range(seeds):
            for gate, recipe in recipes.items():
                variant = recipe.with_seed(seed) if steps is None else recipe.with_steps(steps).with_seed(seed)
                checkpoint = train_synthetic(variant, runs=runs, progress=progress)
                score, curve = validation_curve(read_stream_log(checkpoint / "log.jsonl"))
                curves.setdefault(gate, {})[seed] = curve
                written = [path for path in written if path.stem != task] + _write(out, task, score, curves, recipe)
    return written


def _recipes(folder: Path, gates: Sequence[str] | None) -> dict[str, SyntheticRecipe]:
    """The recipes of a task by gating, in the order of `GATINGS`."""
    found = {recipe.model.gate: recipe for recipe in map(load_synthetic_recipe, sorted(folder.glob("*.yaml")))}
    for gate in gates or ():
        if gate not in found:
            raise UsageError(f"gate {gate!r} has no recipe in {folder}; there are {', '.join(found) or 'none'}.")
    if not found:
        raise UsageError(f"{folder} holds no recipes; start scripts/curves in a checkout, or name --configs.")
    return {gate: found[gate] for gate in GATINGS if gate in found and (gates is None or gate in gates)}


def _write(out: Path, task: str, score: str, curves: Curves, recipe: SyntheticRecipe) -> list[Path]:
    title = f"{task}, {recipe.stream.length} steps, {recipe.model.hidden_size} hidden units"
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["task", "gate", "seed", "step", score])
    for gate, seeds in curves.items():
        for seed, (steps, values) in seeds.items():
            writer.writerows(
                [task, gate, seed, step, f"{value:.6g}"] for step, value in zip(steps, values, strict=True)
            )
    write_text(out / f"{task}.csv", table.getvalue())
    picture = draw_gatings(title, score, {gate: list(seeds.values()) for gate, seeds in curves.items()})
    write_bytes(out / f"{task}.png", picture)
    return [out / f"{task}.csv", out / f"{task}.png"]


def main(
    *,
    task: Annotated[list[str] | None, typer.Option(help="copy or adding; both when omitted.")] = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="A gating, written --gate=UR; all with a recipe when omitted.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs per gating.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Steps per run in place of the recipe's.")] = None,
    configs: Annotated[Path, typer.Option(help="Where the recipes are.")] = Path("configs"),
    runs: Annotated[Path, typer.Option(help="Where the states of the runs are kept.")] = Path("runs/curves"),
    out: Annotated[Path, typer.Option(help="Where plots and tables go.")] = Path("leaderboard/curves"),
) -> None:
    """Train the gatings on the copy and adding problems and plot their learning curves; resumable."""
    try:
        for path in train_curves(tasks=task, gates=gate, seeds=seeds, steps=steps, configs=configs, runs=runs, out=out):
            typer.echo(path)
    except UrzooError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
