"""Values that a run goes on with, in the place of those that came with its checkpoint."""

from collections.abc import Collection
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ChangedValuesCallback(TrainerCallback):  # type: ignore[misc]
    """Makes changed keys take effect in a resumed run.

    The file of the optimizer brings learning rate, weight decay and moments back, and that of the schedule its peak,
    whatever the configuration says; transformers goes on with them without a word.  All other keys reach the run
    through ``TrainingArguments`` and the model.
    """

    def __init__(self, keys: Collection[str]) -> None:
        self.keys = frozenset(keys)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        """Runs after the checkpoint was loaded and before the first step."""
        if not self.keys:
            return
        for index, group in enumerate(optimizer.param_groups):
            self._set_group(args, group, decays=index == 0)
        self._set_rates(args, optimizer, lr_scheduler)

    def _set_group(self, args: TrainingArguments, group: dict[str, Any], *, decays: bool) -> None:
        """transformers' first group decays, its second (norms and biases) does not."""
        if "weight_decay" in self.keys:
            group["weight_decay"] = args.weight_decay if decays else 0.0
        if self.keys & {"adam_beta1", "adam_beta2"} and "betas" in group:
            group["betas"] = (args.adam_beta1, args.adam_beta2, *group["betas"][2:])
        if "adam_epsilon" in self.keys:
            group["eps"] = args.adam_epsilon

    def _set_rates(self, args: TrainingArguments, optimizer: Any, schedule: Any) -> None:
        """Ask the schedule of this configuration for the rate of the next step; unchanged it gives what was there."""
        assert isinstance(schedule, LambdaLR), type(schedule)
        schedule.base_lrs = [args.learning_rate] * len(optimizer.param_groups)
        rates = [
            base * rate(schedule.last_epoch) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        for group, base, rate in zip(optimizer.param_groups, schedule.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate
        schedule._last_lr = rates
