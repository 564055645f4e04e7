"""The configuration in the words of transformers' ``TrainingArguments``."""

import copy
from typing import Any

import torch
from transformers import TrainingArguments

from finetune.config.training import TrainingSection
from finetune.model.precision import Precision
from finetune.training.cadence import Cadence
from finetune.training.engine import Engine

NEVER = 10**9
"""A step count that no run reaches: cadences are set by :class:`finetune.training.callbacks.CadenceCallback`."""


def build_arguments(
    training: TrainingSection, cadence: Cadence, precision: Precision, engine: Engine, *, has_validation: bool
) -> TrainingArguments:
    """Return the arguments of one run.

    With ZeRO-3 they have to be made before the weights are loaded and kept until the end: loading asks them, through
    a weak reference, whether to shard.
    """
    scheduler, scheduler_kwargs = _scheduler(training)
    strategy = {"best": "best", "no": "no"}.get(training.save_strategy or "", "steps")
    return TrainingArguments(
        output_dir=training.output_dir,
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.eval_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        num_train_epochs=training.num_epochs,
        max_steps=training.max_steps or -1,
        optim=training.optimizer,
        learning_rate=training.learning_rate,
        lr_scheduler_type=scheduler,
        lr_scheduler_kwargs=scheduler_kwargs,
        warmup_steps=cadence.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune_noise_alpha,
        seed=training.seed,
        bf16=precision.bf16,
        fp16=precision.fp16,
        tf32=training.tf32 or None,
        # with use_cpu accelerate would drop DeepSpeed without a word
        use_cpu=not torch.cuda.is_available() and engine.deepspeed is None,
        deepspeed=copy.deepcopy(engine.deepspeed),
        accelerator_config={"use_configured_state": engine.connected},
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False, **training.gradient_checkpointing_kwargs},
        logging_steps=cadence.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_validation and training.eval_strategy != "no" else "no",
        eval_steps=NEVER,
        save_strategy=strategy,
        save_steps=NEVER,
        save_total_limit=None,  # the checkpoint store removes what it wrote; the Trainer would remove by name
        load_best_model_at_end=training.load_best_model_at_end,
        metric_for_best_model="eval_loss" if has_validation else None,
        greater_is_better=False if has_validation else None,
        restore_callback_states_from_checkpoint=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        average_tokens_across_devices=True,
        label_names=["labels"],
    )


def _scheduler(training: TrainingSection) -> tuple[str, dict[str, Any]]:
    if training.cosine_min_lr_ratio is not None:
        return "cosine_with_min_lr", {"min_lr_rate": training.cosine_min_lr_ratio}
    return training.lr_scheduler, {}
