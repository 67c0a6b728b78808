"""The end of a language model's run: a complete checkpoint folder, put in its place in one step."""

import hashlib
from pathlib import Path

import torch
import transformers

from urzoo.files import whole_folder, write_bytes, write_json
from urzoo.hub.card import write_card
from urzoo.provenance import hardware, urzoo_version
from urzoo.recurrence import backend_for
from urzoo.training.finish import save_weights
from urzoo.training.language_model.log import draw_lm_curve, write_lm_log
from urzoo.training.language_model.loop import TrainingLoop
from urzoo.training.state import RunFolder
from urzoo.training.text.tokenizer import save_tokenizer
from urzoo.zoo.schema import TrainingSummary


def write_checkpoint(place: Path, loop: TrainingLoop, run: RunFolder) -> None:
    """Write the checkpoint of a finished run to `place` and forget the run's states."""
    loop.load_selected_weights()
    with whole_folder(place) as folder:
        save_weights(loop.model, folder)
        save_tokenizer(loop.corpus.tokenizer, folder)
        write_bytes(folder / "recipe.yaml", run.recipe.read_bytes())
        write_lm_log(folder / "log.jsonl", loop.lines)
        write_bytes(folder / "learning_curve.png", draw_lm_curve(loop.recipe.name, loop.lines))
        summary = _summary(loop, run, folder / "model.safetensors")
        write_json(folder / "training.json", summary.model_dump(mode="json"))
        write_card(folder, [])
    run.clear()


def _summary(loop: TrainingLoop, run: RunFolder, weights: Path) -> TrainingSummary:
    recipe, identity = loop.recipe, run.read_identity()
    assert identity is not None
    device = loop.processes.device
    with loop.autocast():
        backend = backend_for(torch.empty(1, device=device), recipe.gating(), backend=loop.model.config.backend)
    return TrainingSummary(
        task=recipe.task,
        urzoo_version=urzoo_version(),
        git_commit=identity.git_commit,
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        started_at=identity.started_at,
        wall_seconds=round(loop.wall_seconds, 1),
        epochs=loop.epoch,
        steps=loop.step,
        seed=recipe.run.seed,
        selection_split="validation" if recipe.selection.checkpoint == "best" else "none",
        validation=loop.selected_scores(),
        data=loop.corpus.data[0],
        additional_data=(*loop.corpus.data[1:], *(() if loop.initial is None else loop.initial.data())),
        initialised_from=None if loop.initial is None else loop.initial.record(),
        hardware=hardware(device),
        device=device.type,
        backend=backend,
        dtype="bfloat16" if recipe.run.precision == "bf16" else "float32",
        peak_memory_mib=round(loop.peak_memory_mib, 1),
        recipe_sha256=recipe.sha256,
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
