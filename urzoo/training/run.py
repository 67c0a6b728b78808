"""A training run from a recipe to a complete checkpoint folder."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from urzoo.errors import CheckpointError, RecipeError, UrzooError
from urzoo.files import write_bytes, write_json
from urzoo.training.language_model.recipe import is_language_model
from urzoo.training.recipe import Recipe, load_recipe
from urzoo.training.recipe_file import differences
from urzoo.training.state import RunFolder, RunIdentity
from urzoo.training.synthetic.recipe import is_synthetic, load_synthetic_recipe
from urzoo.zoo.schema import read_training_summary

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from urzoo.data import Split
    from urzoo.training.initial import Initial
    from urzoo.training.model import Prepared
    from urzoo.training.progress import StopOnSignal
    from urzoo.training.teacher import Teacher

# Beside the runs: what several of them need and can be made again, such as tokenizers.
CACHE_FOLDER = "cache"


class TrainingStoppedError(UrzooError):
    """The user or the system asked the run to stop; its state is saved. Exit code 128 + the signal's number."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def train(
    recipe_path: Path | str,
    *,
    data_root: Path | str | None = None,
    runs: Path | str = "runs",
    out: Path | str | None = None,
    restart: bool = False,
    progress: bool = True,
    data: "Split | None" = None,
) -> Path:
    """Train the checkpoint that a recipe describes; go on from the last saved state where there is one.

    Started again after a kill with the same arguments, the run resumes and ends with the same weights, bit for bit.
    Under `accelerate launch` the batch is divided among the processes.

    Args:
        recipe_path: The recipe, a YAML file.
        data_root: As for `urzoo.data.load_split`.
        runs: Where run folders live; this run's is `<runs>/<name of the recipe>`.
        out: The folder to make of the finished checkpoint; `checkpoint` in the run folder when omitted.
        restart: Forget the states of an earlier run, of this recipe or another, and begin anew.
        progress: Say on stderr what goes on, with a progress bar where that is a terminal.
        data: The split that the recipe names, where the caller has it at hand; found and verified when omitted.

    Returns:
        The checkpoint folder.

    Raises:
        RecipeError: The recipe is at fault, or is not the one whose states the run folder holds.
        DataError: The data cannot be had.
        TrainingStoppedError: The run was asked to stop (Ctrl-C or SIGTERM); its state is saved.
        UrzooError: Another run has the folder, it cannot be written to, or the loss is no longer finite.
    """
    if is_synthetic(recipe_path):
        from urzoo.training.synthetic.run import train_synthetic

        synthetic = load_synthetic_recipe(recipe_path)
        return train_synthetic(synthetic, runs=runs, out=out, restart=restart, progress=progress)
    if is_language_model(recipe_path):
        from urzoo.training.language_model.run import train_language_model

        return train_language_model(
            recipe_path, data_root=data_root, runs=runs, out=out, restart=restart, progress=progress
        )
    recipe = load_recipe(recipe_path)

    from urzoo.training.arguments import training_arguments
    from urzoo.training.initial import find_initial
    from urzoo.training.kinds import check_task, prepare
    from urzoo.training.teacher import find_teacher

    check_task(recipe)
    run = RunFolder(Path(runs) / recipe.name)
    place = run.path / "checkpoint" if out is None else Path(out)

    with quiet_libraries():
        arguments = training_arguments(recipe, run)
    say = Reporter(enabled=progress and arguments.should_save)
    if not restart and is_finished(place, recipe, run):
        say(f"{recipe.name} is already trained: {place}. Pass --restart to train it again.")
        return place
    initial, teacher = find_initial(recipe, Path(runs)), find_teacher(recipe, Path(runs))
    with contextlib.ExitStack() as stack:
        if arguments.should_save:
            stack.enter_context(run.locked())
            if restart:
                run.clear()
            refuse_other_states(run, recipe, load_recipe)
            check_place(place, recipe, run, restart=restart)
        if data is None:
            from urzoo.data import load_split

            say(f"reading {recipe.data.name} ({recipe.data.split})")
            data = load_split(recipe.data.name, recipe.data.split, data_root=data_root)
        if arguments.should_save:
            _begin(run, recipe, Path(recipe_path), data, initial, teacher, restart=restart)
        arguments.distributed_state.wait_for_everyone()
        cache = Path(runs) / CACHE_FOLDER
        preparation = partial(prepare, recipe, data_root=data_root, cache=cache, initial=initial, teacher=teacher)
        return _train(recipe, run, arguments, data, preparation, place, say)


class AnyRecipe(Protocol):
    """What a run's folder has to know of a recipe of any kind."""

    @property
    def name(self) -> str:
        """That of the checkpoint."""

    @property
    def sha256(self) -> str:
        """The digest of its content."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Its content."""


class Reporter:
    """Says what goes on, in lines on stderr."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, message: str) -> None:
        """Say a line."""
        if self.enabled:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()


def is_finished(place: Path, recipe: AnyRecipe, run: RunFolder) -> bool:
    """Whether `place` holds this recipe's checkpoint and no newer run of it is under way."""
    return _is_checkpoint_of(place, recipe) and run.read_identity() is None


def _is_checkpoint_of(place: Path, recipe: AnyRecipe) -> bool:
    summary = place / "training.json"
    return summary.exists() and read_training_summary(summary).recipe_sha256 == recipe.sha256


def check_place(place: Path, recipe: AnyRecipe, run: RunFolder, *, restart: bool) -> None:
    """Before hours of training, see that the checkpoint can be put where it shall go."""
    if place.exists() and not place.is_dir():
        raise UrzooError(f"--out {place} is a file; name a folder, which need not exist yet.")
    identity = run.read_identity()
    replace = restart or (identity is not None and identity.replace_checkpoint)
    if place.exists() and any(place.iterdir()) and not replace and not _is_checkpoint_of(place, recipe):
        raise UrzooError(
            f"{place} exists and is not the checkpoint of this recipe. Name another folder with --out, or pass "
            f"--restart to replace it by a newly trained {recipe.name}."
        )
    parent = next(folder for folder in place.absolute().parents if folder.exists())
    if not os.access(parent, os.W_OK):
        raise UrzooError(f"cannot write to {parent}, where {place.name} shall go. Name another folder with --out.")


def refuse_other_states(run: RunFolder, recipe: AnyRecipe, load: Callable[[Path], AnyRecipe]) -> None:
    """Refuse a run folder whose states another recipe left; `load` reads recipes of this kind."""
    identity = run.read_identity()
    if identity is None or identity.recipe_sha256 == recipe.sha256:
        return
    try:
        changed = differences(load(run.recipe), recipe)
    except RecipeError:
        # The recipe that began the run is not of the present schema: the digests alone tell them apart.
        changed = ["its schema"]
    if not changed:
        return  # The same numbers in another spelling, such as 1 and 1.0.
    shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
    raise RecipeError(
        f"{run.path} holds the state of another recipe ({shown}). Pass --restart to give that state up and begin anew, "
        "or give the changed recipe another name."
    )


def _begin(
    run: RunFolder,
    recipe: Recipe,
    recipe_path: Path,
    data: "Split",
    initial: "Initial | None",
    teacher: "Teacher | None",
    *,
    restart: bool,
) -> None:
    """Write down what the run's states belong to, or check that it is still so."""
    from urzoo.provenance import git_commit, now

    weights = None if initial is None else initial.info.weights_sha256
    teacher_sha256 = None if teacher is None else teacher.info.checkpoint_sha256
    identity = run.read_identity()
    if identity is None:
        write_bytes(run.recipe, recipe_path.read_bytes())
        identity = RunIdentity(
            recipe_sha256=recipe.sha256,
            data_digest=data.digest,
            started_at=now(),
            git_commit=git_commit(),
            replace_checkpoint=restart,
            initial_weights_sha256=weights,
            teacher_sha256=teacher_sha256,
        )
        write_json(run.identity, identity.model_dump())
    elif identity.data_digest != data.digest:
        raise CheckpointError(
            f"{run.path} holds the state of a run on other data (digest {identity.data_digest[:12]}, now "
            f"{data.digest[:12]}). Pass --restart to begin anew."
        )
    elif identity.initial_weights_sha256 != weights:
        raise CheckpointError(
            f"{run.path} holds the state of a run that began with other weights than those of "
            f"{recipe.initial_checkpoint} now. Pass --restart to begin anew."
        )
    elif identity.teacher_sha256 != teacher_sha256:
        raise CheckpointError(
            f"{run.path} holds the state of a run whose teacher has changed since. Pass --restart to begin anew."
        )


def _train(
    recipe: Recipe,
    run: RunFolder,
    arguments: "TrainingArguments",
    data: "Split",
    preparation: "Callable[[Split, Split], Prepared]",
    place: Path,
    say: Reporter,
) -> Path:
    from urzoo.data import hold_out
    from urzoo.training.finish import write_checkpoint
    from urzoo.training.progress import ProgressBar, StopOnSignal
    from urzoo.training.trainer import RecipeTrainer

    training, validation = hold_out(data, recipe.data.validation_rows, recipe.data.validation_seed)
    prepared = preparation(training, validation)
    model = prepared.model
    use_cache = model.config.use_cache
    stop = StopOnSignal()
    with quiet_libraries():
        trainer = RecipeTrainer(
            model,
            recipe,
            run,
            arguments,
            training=prepared.training,
            validation=prepared.validation,
            callbacks=[stop, *([ProgressBar(recipe.name)] if say.enabled and sys.stderr.isatty() else [])],
        )
        if (state := run.latest()) is not None:
            say(f"going on from {state}")
        say(f"training {recipe.name}: {model.num_parameters():,} parameters, {training.rows} + {validation.rows} rows")
        with stopping_on_signals(stop, arguments.world_size), telling_of_lost_processes(arguments):
            trainer.train_by_recipe()
    # Trainer switches the cache off in the configuration, and would have the checkpoint ship so.
    model.config.use_cache = use_cache
    if stop.received is not None and trainer.state.global_step < trainer.state.max_steps:
        raise TrainingStoppedError(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; the state is saved. "
            "The same command goes on from there.",
            signal_number=stop.received,
        )
    trainer.load_selected_weights()
    further = {name: trainer.scores_on(rows) for name, rows in prepared.further_validation.items()}
    if arguments.should_save:
        write_checkpoint(
            place,
            trainer,
            prepared,
            run,
            training=training,
            validation=validation,
            further_scores=further,
        )
        say(f"{recipe.name} is trained: {place}")
    arguments.distributed_state.wait_for_everyone()
    return place


@contextlib.contextmanager
def telling_of_lost_processes(arguments: "TrainingArguments") -> Iterator[None]:
    """Say in one line that another process of the run has ended, instead of torch's traceback from the middle of it.

    Raises:
        UrzooError: A message to or from another process failed.
    """
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as failure:
        if arguments.world_size == 1 or not (isinstance(failure, DistError) or "gloo" in str(failure)):
            raise
        raise UrzooError(
            f"process {arguments.process_index} of {arguments.world_size} lost another one: "
            f"{' '.join(str(failure).split())[:200]}. The same command goes on from the last saved state."
        ) from failure


@contextlib.contextmanager
def stopping_on_signals(stop: "StopOnSignal", processes: int) -> Iterator[None]:
    """Within this block Ctrl-C and SIGTERM end the run after the present step, with its state saved.

    A second signal acts at once. With several processes the signals keep their usual effect, as the processes would
    stop at different steps and wait for each other: the last saved state is what such a run goes on from.
    """
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    stop.former = former
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave transformers' notes to its own users out of the output; warnings and errors stay."""
    import logging as levels

    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(max(level, levels.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(level)
