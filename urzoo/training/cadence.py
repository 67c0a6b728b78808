"""When a run validates, and what else happens at the beginning of an epoch and the end of a step."""

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from urzoo.training.trainer import RecipeTrainer


class Cadence(TrainerCallback):
    """Epoch numbers to the sampler, updates of the average, and validation at the last step of an epoch."""

    def __init__(self, trainer: "RecipeTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Go on with the mean of the training loss that a state was saved in the midst of."""
        self.trainer.restore_running_loss()

    def on_epoch_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Tell the sampler which epoch it is."""
        self.trainer.order.epoch = state.global_step // self.trainer.steps_per_epoch

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,
        control: TrainerControl,
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Take the weights into the average, and ask for a validation where one is due."""
        if self.trainer.average is not None:
            self.trainer.average.update()
        epoch, remainder = divmod(state.global_step, self.trainer.steps_per_epoch)
        due = epoch % self.trainer.recipe.cadence.validate_every_epochs == 0 or state.global_step == state.max_steps
        # At the step's end rather than the epoch's: a state saved at this step then holds the validation too.
        control.should_evaluate = remainder == 0 and due
