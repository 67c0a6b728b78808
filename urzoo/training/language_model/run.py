"""A language model's run, from the recipe to a complete checkpoint folder, resumable at any saved step, bit for bit.

A plain loop with the states of `urzoo.training.state`: a step depends on the carried state of the step before, which
transformers' Trainer has no place for. The carried state is saved with the weights; batches, dropout and learning rate
are functions of the step.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from urzoo.errors import CheckpointError
from urzoo.files import write_bytes, write_json
from urzoo.training.language_model.recipe import LMRecipe, load_lm_recipe
from urzoo.training.run import (
    CACHE_FOLDER,
    Reporter,
    TrainingStoppedError,
    check_place,
    is_finished,
    quiet_libraries,
    refuse_other_states,
    stopping_on_signals,
)
from urzoo.training.state import RunFolder, RunIdentity

if TYPE_CHECKING:
    from urzoo.training.initial import Initial
    from urzoo.training.language_model.corpus import Corpus
    from urzoo.training.language_model.processes import Processes


def train_language_model(
    recipe_path: Path | str,
    *,
    data_root: Path | str | None = None,
    runs: Path | str = "runs",
    out: Path | str | None = None,
    restart: bool = False,
    progress: bool = True,
) -> Path:
    """Train the language model that a recipe describes; arguments, result and errors are those of `train`.

    Tokenizers and tokens are kept in `<runs>/cache`, which can be deleted at any time.
    """
    recipe = load_lm_recipe(recipe_path)
    run = RunFolder(Path(runs) / recipe.name)
    place = run.path / "checkpoint" if out is None else Path(out)
    from urzoo.training.initial import find_initial
    from urzoo.training.language_model.corpus import load_corpus
    from urzoo.training.language_model.processes import Processes

    processes = Processes.started(recipe.run.batch_size)
    say = Reporter(enabled=progress and processes.is_main)
    if not restart and is_finished(place, recipe, run):
        say(f"{recipe.name} is already trained: {place}. Pass --restart to train it again.")
        return place
    initial = find_initial(recipe, Path(runs))
    with contextlib.ExitStack() as stack:
        if processes.is_main:
            stack.enter_context(run.locked())
            if restart:
                run.clear()
            refuse_other_states(run, recipe, load_lm_recipe)
            check_place(place, recipe, run, restart=restart)
        # One process makes tokenizer and tokens, the others find them.
        with processes.main_first(), quiet_libraries():
            corpus = load_corpus(recipe, data_root=data_root, cache=Path(runs) / CACHE_FOLDER, say=say)
        if processes.is_main:
            _begin(run, recipe, Path(recipe_path), corpus, restart=restart)
        processes.wait()
        return _train(recipe, run, corpus, processes, initial, place, say)


def _begin(run: RunFolder, recipe: LMRecipe, recipe_path: Path, corpus: "Corpus", *, restart: bool) -> None:
    """Write down what the run's states belong to, or check that it is still so."""
    from urzoo.provenance import git_commit, now

    digest = corpus.digest
    identity = run.read_identity()
    if identity is None:
        write_bytes(run.recipe, recipe_path.read_bytes())
        begun = RunIdentity(
            recipe_sha256=recipe.sha256,
            data_digest=digest,
            started_at=now(),
            git_commit=git_commit(),
            replace_checkpoint=restart,
        )
        write_json(run.identity, begun.model_dump())
    elif identity.data_digest != digest:
        raise CheckpointError(
            f"{run.path} holds the state of a run on other data (digest {identity.data_digest[:12]}, now "
            f"{digest[:12]}). Pass --restart to begin anew."
        )


def _train(
    recipe: LMRecipe,
    run: RunFolder,
    corpus: "Corpus",
    processes: "Processes",
    initial: "Initial | None",
    place: Path,
    say: Reporter,
) -> Path:
    from urzoo.training.language_model.finish import write_checkpoint
    from urzoo.training.language_model.loop import TrainingLoop
    from urzoo.training.progress import StopOnSignal

    stop = StopOnSignal()
    loop = TrainingLoop(recipe, run, corpus, processes, initial, say)
    say(
        f"training {recipe.name}: {loop.model.num_parameters():,} parameters, {corpus.training.tokens:,} tokens an "
        f"epoch, {recipe.run.steps:,} steps of {recipe.run.batch_size * recipe.run.segment_tokens:,}"
    )
    with stopping_on_signals(stop, processes.count):
        loop.to_the_end(stop)
    if stop.received is not None and loop.step < recipe.run.steps:
        raise TrainingStoppedError(
            f"stopped at step {loop.step} of {recipe.run.steps}; the state is saved. "
            "The same command goes on from there.",
            signal_number=stop.received,
        )
    if processes.is_main:
        with quiet_libraries():
            write_checkpoint(place, loop, run)
        say(f"{recipe.name} is trained: {place}")
    processes.wait()
    return place
