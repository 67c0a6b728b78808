"""The end of a run: a complete checkpoint folder, put in its place in one step."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import logging

from urzoo.data import Split
from urzoo.files import whole_folder, write_bytes, write_json
from urzoo.hub.card import write_card
from urzoo.provenance import hardware, urzoo_version
from urzoo.recurrence.scan import backend_for
from urzoo.training.curve import draw_learning_curve
from urzoo.training.log import ValidationLine, write_log
from urzoo.training.model import Prepared
from urzoo.training.state import RunFolder
from urzoo.training.trainer import RecipeTrainer
from urzoo.zoo.schema import TrainingData, TrainingSummary


def write_checkpoint(
    place: Path,
    trainer: RecipeTrainer,
    prepared: Prepared,
    run: RunFolder,
    *,
    training: Split,
    validation: Split,
    further_scores: Mapping[str, Mapping[str, float]],
) -> None:
    """Write the checkpoint of a finished run and forget the run's states.

    Args:
        place: The folder to make; an older one there is replaced when the new one is complete.
        trainer: After training, with the selected weights in the model.
        prepared: What was trained with.
        run: The run.
        training: The rows that were learnt from.
        validation: The rows that were held out.
        further_scores: Those on `prepared.further_validation`, by its names.
    """
    recipe = trainer.recipe
    lines = trainer.lines()
    with whole_folder(place) as folder:
        save_weights(trainer.network, folder)
        if prepared.preprocessor is not None:
            prepared.preprocessor.save_pretrained(folder)
        write_bytes(folder / "recipe.yaml", run.recipe.read_bytes())
        write_log(folder / "log.jsonl", lines)
        draw_learning_curve(folder / "learning_curve.png", lines, title=recipe.name)
        scores = _validation_scores(trainer)
        for name, values in further_scores.items():
            scores |= {f"{metric}_{name}": value for metric, value in values.items()}
        summary = _summary(trainer, run, training, validation, scores, folder / "model.safetensors").model_copy(
            update={
                "initialised_from": prepared.initialised_from,
                "taught_by": prepared.taught_by,
                "additional_data": prepared.earlier_data,
            }
        )
        write_json(folder / "training.json", summary.model_dump(mode="json"))
        write_card(folder, [])
    run.clear()


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Configuration and weights, without transformers' progress bar for a single file."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    # safetensors makes its files readable to their owner alone.
    weights = folder / "model.safetensors"
    write_bytes(weights, weights.read_bytes())


def _summary(
    trainer: RecipeTrainer,
    run: RunFolder,
    training: Split,
    validation: Split,
    scores: dict[str, float],
    weights: Path,
) -> TrainingSummary:
    recipe = trainer.recipe
    identity = run.read_identity()
    assert identity is not None
    data = training.data_set
    return TrainingSummary(
        task=recipe.task,
        urzoo_version=urzoo_version(),
        git_commit=identity.git_commit,
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        started_at=identity.started_at,
        wall_seconds=round(trainer.wall_seconds, 1),
        epochs=float(recipe.run.epochs),
        steps=trainer.state.global_step,
        seed=recipe.run.seed,
        selection_split="validation" if recipe.selection.checkpoint == "best" else "none",
        validation=scores,
        data=TrainingData(
            name=data.name,
            config=data.config,
            split=training.split,
            digest=training.digest,
            rows_train=training.rows,
            rows_validation=validation.rows,
        ),
        hardware=hardware(trainer.args.device),
        device=trainer.args.device.type,
        backend=_backend(trainer),
        dtype="bfloat16" if recipe.run.precision == "bf16" else "float32",
        peak_memory_mib=round(trainer.peak_memory_mib, 1),
        recipe_sha256=recipe.sha256,
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )


def _backend(trainer: RecipeTrainer) -> str:
    """The back end that computes the recurrence in training, under the recipe's precision."""
    config = trainer.network.config
    inputs = torch.empty(1, 1, config.input_size, device=trainer.args.device)
    with trainer.accelerator.autocast():
        return backend_for(inputs, config.gating(), backend=config.backend)


def _validation_scores(trainer: RecipeTrainer) -> dict[str, float]:
    """The scores of the weights that the checkpoint holds."""
    scores = [line for line in trainer.lines() if isinstance(line, ValidationLine)]
    if trainer.recipe.selection.checkpoint == "best":
        scores = [line for line in scores if line.step == trainer.state.best_global_step]
    return {"accuracy": scores[-1].accuracy, "cross_entropy": scores[-1].cross_entropy}
