"""The translation into TrainingArguments."""

from typing import get_args

import pytest
import torch
from tests.training.sections import ALONE, training_section
from transformers import Trainer, TrainingArguments

from finetune.config.training import Optimizer
from finetune.model.precision import Precision
from finetune.training.arguments import build_arguments
from finetune.training.cadence import plan_cadence


def build(*, has_validation: bool = True, dtype: torch.dtype = torch.float32, **changes: object) -> TrainingArguments:
    section = training_section(output_dir="/nonexistent/x", **changes)
    cadence = plan_cadence(section, 100, has_validation=has_validation)
    return build_arguments(section, cadence, Precision(dtype), ALONE, has_validation=has_validation)


def test_every_number_of_the_optimization_arrives() -> None:
    arguments = build(
        optimizer="adamw_torch",
        learning_rate=5e-6,
        weight_decay=0.1,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-7,
        max_grad_norm=0.5,
        neftune_noise_alpha=5.0,
        seed=7,
        warmup_steps=9,
        micro_batch_size=3,
        gradient_accumulation_steps=2,
        eval_batch_size=5,
        num_epochs=1.5,
        save_total_limit=2,
    )

    assert (arguments.optim, arguments.learning_rate, arguments.weight_decay) == ("adamw_torch", 5e-6, 0.1)
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon) == (0.8, 0.95, 1e-7)
    assert (arguments.max_grad_norm, arguments.neftune_noise_alpha, arguments.seed) == (0.5, 5.0, 7)
    assert (arguments.warmup_steps, arguments.num_train_epochs, arguments.save_total_limit) == (9, 1.5, None)
    assert arguments.per_device_train_batch_size == 3
    assert (arguments.gradient_accumulation_steps, arguments.per_device_eval_batch_size) == (2, 5)


def test_a_minimum_learning_rate_picks_the_scheduler_that_has_one() -> None:
    arguments = build(cosine_min_lr_ratio=0.1)

    assert arguments.lr_scheduler_type == "cosine_with_min_lr"
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.1}


def test_gradient_checkpointing_is_not_reentrant_unless_asked() -> None:
    assert build(gradient_checkpointing=True).gradient_checkpointing_kwargs == {"use_reentrant": False}
    asked = build(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    assert asked.gradient_checkpointing_kwargs == {"use_reentrant": True}


def test_nothing_is_reported_or_hidden_behind_our_back() -> None:
    arguments = build()

    assert arguments.report_to == []
    assert arguments.logging_nan_inf_filter is False
    assert arguments.push_to_hub is False


def test_without_validation_data_there_is_no_evaluation_strategy() -> None:
    assert build(has_validation=False).eval_strategy == "no"


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_each_optimizer_takes_its_steps_on_this_device(name: str) -> None:
    """8-bit and paged ones too, on a CPU as on CUDA; none is a name that only fails once the model is loaded."""
    layer = torch.nn.Linear(128, 64)  # smaller tensors than 4,096 numbers keep states of 32 bits
    before = layer.weight.detach().clone()
    layer.to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(build(optimizer=name, learning_rate=1e-3), layer)
    optimizer = optimizer_class(layer.parameters(), **settings)
    for _ in range(2):
        layer(torch.ones(2, 128, device=layer.weight.device)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert 1e-5 < (layer.weight.detach().cpu() - before).abs().max() < 0.1
