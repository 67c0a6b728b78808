"""The end of a run of any kind: a complete checkpoint folder, put in its place in one step."""

import hashlib
from pathlib import Path

import torch
import transformers

from urzoo.files import whole_folder, write_bytes, write_json
from urzoo.hub.card import write_card
from urzoo.provenance import hardware, urzoo_version
from urzoo.recurrence import backend_for
from urzoo.training.job import Parents
from urzoo.training.log import draw_learning_curve, selected, write_log
from urzoo.training.trainer import RecipeTrainer
from urzoo.zoo.schema import CheckpointInfo, InitialCheckpoint, TrainingSummary


def write_checkpoint(folder: Path, trainer: RecipeTrainer, parents: Parents, further_scores: dict[str, float]) -> None:
    """Write the checkpoint of a finished run and forget the run's states.

    Args:
        folder: To make; an older one there is replaced when the new one is complete.
        trainer: After training, with the selected weights in the model.
        parents: The checkpoints that this one came from.
        further_scores: Those under other conditions than the validation's.
    """
    with whole_folder(folder) as made:
        trainer.network.save_pretrained(made)
        # safetensors makes its files readable to their owner alone.
        weights = made / "model.safetensors"
        write_bytes(weights, weights.read_bytes())
        if trainer.job.preprocessor is not None:
            trainer.job.preprocessor.save_pretrained(made)
        write_bytes(made / "recipe.yaml", trainer.run.recipe.read_bytes())
        write_log(made / "log.jsonl", trainer.lines)
        picture = draw_learning_curve(trainer.lines, title=trainer.recipe.name, score=trainer.recipe.score)
        write_bytes(made / "learning_curve.png", picture)
        summary = _summary(trainer, parents, further_scores, weights)
        write_json(made / "training.json", summary.model_dump(mode="json"))
        write_card(made, [])
    trainer.run.clear()


def _summary(
    trainer: RecipeTrainer, parents: Parents, further_scores: dict[str, float], weights: Path
) -> TrainingSummary:
    recipe, device, identity = trainer.recipe, trainer.args.device, trainer.run.read_identity()
    assert identity is not None
    validation = selected(trainer.lines, recipe.selected_by)
    assert validation is not None
    with trainer.accelerator.autocast():
        backend = backend_for(torch.empty(1, device=device), recipe.gating(), backend=trainer.network.config.backend)
    data, *additional = trainer.job.data
    return TrainingSummary(
        task=recipe.task,
        urzoo_version=urzoo_version(),
        git_commit=identity.git_commit,
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        started_at=identity.started_at,
        wall_seconds=round(trainer.clock.total(), 1),
        epochs=trainer.epoch,
        steps=trainer.state.global_step,
        seed=recipe.run.seed,
        selection_split="none" if recipe.selected_by is None else "validation",
        validation=validation.scores | further_scores,
        data=data,
        additional_data=tuple(additional),
        initialised_from=_recorded(parents.initial),
        taught_by=_recorded(parents.teacher),
        hardware=hardware(device),
        device=device.type,
        backend=backend,
        dtype="bfloat16" if recipe.run.precision == "bf16" else "float32",
        peak_memory_mib=round(trainer.peak_memory_mib, 1),
        recipe_sha256=recipe.sha256,
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )


def _recorded(info: CheckpointInfo | None) -> InitialCheckpoint | None:
    """What training.json says of an earlier checkpoint."""
    if info is None:
        return None
    recipe_sha256 = None if info.training is None else info.training.recipe_sha256
    return InitialCheckpoint(
        name=info.name, task=info.task, weights_sha256=info.weights_sha256, recipe_sha256=recipe_sha256
    )
