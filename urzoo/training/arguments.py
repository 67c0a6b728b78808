"""What transformers' Trainer is told by a recipe."""

import torch
from transformers import TrainingArguments

from urzoo.errors import UrzooError
from urzoo.processes import end_group_at_exit
from urzoo.training.recipe import BaseRecipe
from urzoo.training.state import RunFolder


def training_arguments(recipe: BaseRecipe, run: RunFolder) -> TrainingArguments:
    """What transformers' Trainer is told by a recipe; the devices and processes are known once this exists.

    Raises:
        UrzooError: The recipe's batch does not divide among the processes.
    """
    end_group_at_exit()
    arguments = TrainingArguments(
        output_dir=str(run.path),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.optimiser.learning_rate,
        max_grad_norm=recipe.optimiser.gradient_norm_clip,
        bf16=recipe.run.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        label_smoothing_factor=recipe.label_smoothing,
        seed=recipe.run.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="steps",
        logging_steps=recipe.cadence.log_every_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.cadence.save_every_steps,
        eval_strategy="no",  # the trainer asks for validation at the end of a step, before the state is saved.
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to=[],
    )
    processes = arguments.world_size
    if recipe.run.batch_size % processes:
        raise UrzooError(
            f"run.batch_size {recipe.run.batch_size} does not divide among {processes} processes. "
            "Start a number of processes that divides it."
        )
    arguments.per_device_train_batch_size = recipe.run.batch_size // processes
    return arguments
