"""`urzoo train`: one recipe, from data to a checkpoint folder."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from urzoo.cli.evaluation import DataRoot
from urzoo.cli.output import complete_recipe, speaks
from urzoo.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("train")(train)


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="The recipe, a YAML file such as those in configs/.",
            autocompletion=complete_recipe,
        ),
    ],
    *,
    task: Annotated[
        Path | None, typer.Option(help="The YAML file of your own task and data that the recipe names.")
    ] = None,
    data_root: DataRoot = None,
    runs: Annotated[Path, typer.Option(file_okay=False, help="Where the state of runs is kept.")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The checkpoint folder to make; RUNS/<name>/checkpoint when omitted.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the state of an earlier run.")] = False,
) -> None:
    """Train the checkpoint that a recipe describes, or go on with a run that was interrupted.

    On several GPUs or machines start it through accelerate: accelerate launch -m urzoo train RECIPE

    Example:

        urzoo train configs/pmnist/urlstm-128.yaml --data-root DIR

        urzoo train my-recipe.yaml --task ./digits.yaml
    """
    from urzoo.training.memory import keep_freed_memory
    from urzoo.training.recipe_file import load_recipe
    from urzoo.training.run import TrainingStoppedError
    from urzoo.training.run import train as run

    if task is not None:
        from urzoo.evaluation import load_task

        # From here on the recipe finds the task and its data by their names.
        own, named = load_task(str(task)).name, load_recipe(recipe).task
        if own != named:
            raise UsageError(f"--task {task} is task {own!r}, but {recipe} is a recipe of task {named!r}.")
    keep_freed_memory()
    try:
        folder = run(recipe, data_root=data_root, runs=runs, out=out, restart=restart)
    except KeyboardInterrupt:
        again = " if --restart is left out" if restart else ""
        raise TrainingStoppedError(
            f"interrupted; what was finished is kept, the same command goes on from there{again}.",
            signal_number=signal.SIGINT,
        ) from None
    if speaks():
        typer.echo(folder)
