"""A training run from a recipe of any kind to a complete checkpoint folder."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerFast

from urzoo.data import Split, schema
from urzoo.data.digest import order_digest
from urzoo.errors import CheckpointError, RecipeError, UrzooError, UsageError, one_line
from urzoo.evaluation.problem import exact_products
from urzoo.files import write_bytes, write_json
from urzoo.processes import Processes
from urzoo.schema import content_sha256
from urzoo.training.job import Job, Parents, Sources
from urzoo.training.recipe import BaseRecipe, RowsRecipe
from urzoo.training.recipe_file import differences, load_recipe, read_recipe
from urzoo.training.report import Reporter
from urzoo.training.state import RunFolder, RunIdentity
from urzoo.training.text.tokenizer import tokenizer_sha256
from urzoo.zoo.lookup import read_config
from urzoo.zoo.schema import read_training_summary

if TYPE_CHECKING:
    from urzoo.training.trainer import RecipeTrainer


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
    data: Split | None = None,
) -> Path:
    """Train the checkpoint that a recipe describes; go on from the last saved state where there is one.

    Started again after a kill with the same arguments but `restart`, the run resumes and ends with the same weights,
    bit for bit. Under `accelerate launch` the batch is divided among the processes. Tokenizers and tokens are kept in
    `<runs>/cache`, which can be deleted at any time.

    Args:
        recipe_path: The recipe, a YAML file.
        data_root: As for `urzoo.data.load_split`.
        runs: Where run folders live; this run's is `<runs>/<name of the recipe>`.
        out: The folder to make of the finished checkpoint; `checkpoint` in the run folder when omitted.
        restart: Forget the states of an earlier run, of this recipe or another, and start over.
        progress: Say on stderr what goes on, with a progress bar where that is a terminal.
        data: The split that the recipe names, where the caller has it at hand; found and verified when omitted.
            Recipes of language models and of synthetic problems name no single split, and refuse it.

    Returns:
        The checkpoint folder.

    Raises:
        RecipeError: The recipe is at fault, or is not the one whose states the run folder holds.
        UsageError: `data` is not what the recipe reads.
        DataError: The data cannot be had.
        CheckpointError: The data or an earlier checkpoint have changed since the run began; or a file is damaged.
        TrainingStoppedError: The run was asked to stop (Ctrl-C or SIGTERM); its state is saved.
        UrzooError: Another run has the folder, it cannot be written to, the loss or the gradient is no longer finite,
            all units of the head have died, another process of the run has ended, or the memory does not suffice.
    """
    if data is not None and not isinstance(data, Split):
        raise UsageError(f"data is a {type(data).__name__}, expected a Split, as urzoo.data.load_split gives it.")
    recipe, written = read_recipe(recipe_path)
    recipe.check()

    from urzoo.training.trainer import RecipeTrainer, training_arguments
    from urzoo.zoo.loading import quiet_transformers

    run = RunFolder(Path(runs) / recipe.name)
    checkpoint = run.path / "checkpoint" if out is None else Path(out)
    with quiet_transformers(WARNING):
        arguments = training_arguments(recipe, run)
    say = Reporter(enabled=progress and arguments.should_save)
    if not restart and _is_checkpoint_of(checkpoint, recipe) and run.read_identity() is None:
        _refuse_other_data(checkpoint, recipe, data)
        say(f"{recipe.name} is already trained: {checkpoint}. Pass --restart to train it again.")
        return checkpoint
    parents = recipe.parents(Path(runs))
    processes = Processes(arguments.process_index, arguments.world_size)
    again = " if --restart is left out" if restart else ""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_plain_torch())
        stack.enter_context(quiet_transformers(WARNING))
        stack.enter_context(processes.reporting_lost(f"the last saved state{again}"))
        stack.enter_context(_reporting_memory(recipe))
        if arguments.should_save:
            stack.enter_context(run.locked())
            if not restart:
                _refuse_other_states(run, recipe)
            _check_folder(checkpoint, recipe, run, restart=restart)
        # One process makes tokenizers and tokens, the others find them.
        with arguments.distributed_state.main_process_first():
            sources = Sources(data_root, Path(runs) / "cache", processes, say, data, parents)
            job = recipe.prepare(sources)
        if arguments.should_save:
            if restart:
                run.clear()
            _begin(run, recipe, written, job, sources, restart=restart)
        arguments.distributed_state.wait_for_everyone()
        _finish(checkpoint, RecipeTrainer(job, recipe, run, arguments, say=say), parents, again)
        arguments.distributed_state.wait_for_everyone()
    return checkpoint


@contextlib.contextmanager
def _plain_torch() -> Iterator[None]:
    """Torch as a new process has it: what a recipe gives must not depend on what its caller has set."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exact_products())
            stack.enter_context(torch.inference_mode(mode=False))
            stack.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                # Of nested contexts the outermost alone ends the cache of cast weights: it would outlive every step.
                stack.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _reporting_memory(recipe: BaseRecipe) -> Iterator[None]:
    """Say in one line that there is too little memory, of the machine or of the GPU.

    Raises:
        UrzooError: There is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as failure:
        if isinstance(failure, RuntimeError) and not re.search("out of memory|can't allocate memory", str(failure)):
            raise
        raise UrzooError(
            f"there is too little memory for run.batch_size {recipe.run.batch_size} and model.hidden_size "
            f"{recipe.model.hidden_size}: {one_line(failure)}. Lower them and pass --restart, or start more processes, "
            "which share the batch."
        ) from failure


def _is_checkpoint_of(folder: Path, recipe: BaseRecipe) -> bool:
    summary = folder / "training.json"
    if not summary.exists():
        return False
    return read_training_summary(summary).recipe_sha256 == recipe.sha256 or not _changed(folder / "recipe.yaml", recipe)


def _changed(earlier: Path, recipe: BaseRecipe) -> list[str]:
    """What differs from an earlier recipe; nothing where the same numbers are spelt otherwise, such as 1 and 1.0."""
    try:
        return differences(load_recipe(earlier), recipe)
    except RecipeError:  # it is not of the present schema: the digests alone tell them apart
        return ["its schema"]


def _refuse_other_data(checkpoint: Path, recipe: BaseRecipe, given: Split | None) -> None:
    """Refuse to take a recipe for trained whose data have changed: the caller's, or those in a user's own folder.

    Raises:
        CheckpointError: They have.
    """
    summary = read_training_summary(checkpoint / "training.json")
    learnt = summary.data
    for data in (learnt, *summary.additional_data):
        if (data.name, data.split) not in recipe.splits():
            continue  # an ancestor's
        # None where it is not known. Some rows of a split have the digest of them all; of other texts documents count.
        rows = data.rows_train + data.rows_validation if data is learnt and isinstance(recipe, RowsRecipe) else None
        if given is not None and data is learnt:
            now: tuple[int | str | None, ...] = (given.rows, given.digest, order_digest(given.columns))
        else:
            own = schema.load_data_set(data.name).splits[data.split]
            now = (own.rows, own.digest, own.order_digest)
        then = (rows, data.digest, data.order_digest)
        if any(None not in pair and pair[0] != pair[1] for pair in zip(then, now, strict=True)):
            raise CheckpointError(
                f"{checkpoint} was trained by this recipe, but on other rows than those of {data.name} ({data.split}) "
                "now. Pass --restart to train it again, or name another folder with --out."
            )
    if isinstance(recipe, RowsRecipe) and learnt.name in schema.LOCAL:
        named: dict[str, str] = read_config(checkpoint)["id2label"]
        columns = schema.LOCAL[learnt.name].columns.values()
        classes = next(column.classes for column in columns if isinstance(column, schema.LabelColumn))
        if [named[number] for number in sorted(named, key=int)] != classes:
            raise CheckpointError(
                f"{checkpoint} was trained by this recipe, but its classes are called otherwise than those of "
                f"{learnt.name} now. Pass --restart to train it again, or name another folder with --out."
            )


def _check_folder(folder: Path, recipe: BaseRecipe, run: RunFolder, *, restart: bool) -> None:
    """Before hours of training, see that the checkpoint can be written to its folder, and stays there."""
    own, cache = folder.resolve(), run.path.parent / "cache"
    for kept in (run.path / "lock", run.states, cache):
        if own.is_relative_to(kept.resolve()) or kept.resolve().is_relative_to(own):
            raise UsageError(
                f"--out {folder} lies in {kept}, or has it in it, which is urzoo's own; name another folder."
            )
    if os.path.lexists(folder) and (not folder.is_dir() or folder.samefile(Path.cwd()) or folder.is_mount()):
        raise UsageError(
            f"--out {folder} is a file, a broken link, the current folder or a mount point, none of which can be "
            "replaced; name a folder, which need not exist yet."
        )
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "training.json").exists():
            raise UsageError(f"{folder} holds files, but no checkpoint of urzoo's. Name another folder with --out.")
        identity = run.read_identity()
        replace = restart or (identity is not None and identity.replace_checkpoint)
        if not replace and not _is_checkpoint_of(folder, recipe):
            raise UrzooError(
                f"{folder} exists and is not the checkpoint of this recipe. Name another folder with --out, or pass "
                f"--restart to replace it by a newly trained {recipe.name}."
            )
    parent = next(above for above in folder.absolute().parents if above.exists())
    try:  # permissions alone do not tell of a file system that takes nothing
        Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=parent)).rmdir()
    except OSError as error:
        raise UrzooError(
            f"cannot write to {parent}, the folder of {folder.name}: {error.strerror}. Name another folder with --out."
        ) from error


def _refuse_other_states(run: RunFolder, recipe: BaseRecipe) -> None:
    """Refuse a run folder whose states another recipe left, or nobody knows which."""
    identity = run.read_identity()
    if identity is None and run.latest() is not None:
        raise CheckpointError(
            f"{run.states} holds states, but {run.identity}, which says what they belong to, is missing. "
            "Pass --restart to give them up and start over."
        )
    if identity is None or identity.recipe_sha256 == recipe.sha256:
        return
    if not (changed := _changed(run.recipe, recipe)):
        return
    shown = "; ".join(changed[:3]) + ("; ..." if len(changed) > 3 else "")
    raise RecipeError(
        f"{run.path} holds the state of another recipe ({shown}). Pass --restart to give that state up and start over, "
        "or give the changed recipe another name."
    )


def _begin(run: RunFolder, recipe: BaseRecipe, written: bytes, job: Job, sources: Sources, *, restart: bool) -> None:
    """Write down what the run's states belong to, or check that it is still so."""
    from urzoo.provenance import git_commit, now

    parents = sources.parents
    tokenizer = job.preprocessor if isinstance(job.preprocessor, PreTrainedTokenizerFast) else None
    identity = RunIdentity(
        recipe_sha256=recipe.sha256,
        data_digest=job.digest,
        order_digest=content_sha256(sources.orders),
        started_at=now(),
        git_commit=git_commit(),
        replace_checkpoint=restart,
        initial_weights_sha256=None if parents.initial is None else parents.initial.weights_sha256,
        teacher_sha256=None if parents.teacher is None else parents.teacher.checkpoint_sha256,
        tokenizer_sha256=None if tokenizer is None else tokenizer_sha256(tokenizer),
    )
    begun = run.read_identity()
    if begun is not None:
        for key, what in (
            ("data_digest", f"on other data (digest {begun.data_digest[:12]}, now {job.digest[:12]})"),
            ("order_digest", "on rows in another order, or on some of them alone"),
            ("initial_weights_sha256", f"that began with other weights than those of {recipe.initial_checkpoint} now"),
            ("teacher_sha256", "whose teacher has changed since"),
            ("tokenizer_sha256", "whose tokenizer has changed since"),
        ):
            if getattr(begun, key) not in (None, getattr(identity, key)):
                raise CheckpointError(f"{run.path} holds the state of a run {what}. Pass --restart to start over.")
        of_the_start = begun.model_dump(include={"started_at", "git_commit", "replace_checkpoint"})
        identity = identity.model_copy(update=of_the_start)
    # Again where the run goes on: the recipe may be spelt otherwise, and the checkpoint ships it with its digest.
    write_bytes(run.recipe, written)
    write_json(run.identity, identity.model_dump())


def _finish(folder: Path, trainer: "RecipeTrainer", parents: Parents, again: str) -> None:
    """Train to the end, and make the checkpoint; `again` is what the same command needs to go on."""
    from urzoo.training.checkpoint import write_checkpoint

    job, say = trainer.job, trainer.say
    say(f"training {trainer.recipe.name}: {job.model.num_parameters():,} parameters, {job.size}")
    with trainer.stop.listening(trainer.args.world_size):
        trainer.train_by_recipe()
    state = trainer.state
    if trainer.stop.received is not None and state.global_step < state.max_steps:
        raise TrainingStoppedError(
            f"stopped at step {state.global_step} of {state.max_steps}; the state is saved. "
            f"The same command goes on from there{again}.",
            signal_number=trainer.stop.received,
        )
    trainer.load_selected_weights()
    further = {} if job.further_scores is None else trainer.scored(job.further_scores)
    if trainer.args.should_save:
        write_checkpoint(folder, trainer, parents, further)
        say(f"{trainer.recipe.name} is trained: {folder}")
