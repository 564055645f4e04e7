"""Changed values replace those of a checkpoint's optimizer and schedule."""

from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments, get_scheduler

from finetune.training.changed import ChangedValuesCallback


def resumed(tmp_path: Path, keys: list[str]) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Four steps of ten, then the states loaded under other arguments, and the callback after them."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    states = None
    for learning_rate in (0.1, 0.4):
        groups = [{"params": weights[:1], "weight_decay": 0.5}, {"params": weights[1:], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate)
        schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=10)
        if states:
            optimizer.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        else:
            for _ in range(4):
                optimizer.step()
                schedule.step()
            states = (optimizer.state_dict(), schedule.state_dict())
    arguments = TrainingArguments(
        str(tmp_path), learning_rate=0.4, weight_decay=0.2, adam_beta1=0.8, adam_epsilon=1e-6, report_to=[]
    )
    ChangedValuesCallback(keys).on_train_begin(
        arguments, TrainerState(), TrainerControl(), optimizer=optimizer, lr_scheduler=schedule
    )
    return optimizer, schedule


def values(optimizer: torch.optim.AdamW, name: str) -> list[object]:
    return [group[name] for group in optimizer.param_groups]


def test_nothing_is_touched_where_nothing_changed(tmp_path: Path) -> None:
    optimizer, schedule = resumed(tmp_path, [])

    assert values(optimizer, "lr") == pytest.approx([0.06, 0.06])
    assert schedule.base_lrs == [0.1, 0.1]
    assert values(optimizer, "weight_decay") == [0.5, 0.0]


def test_a_learning_rate_holds_from_the_next_step_on(tmp_path: Path) -> None:
    optimizer, schedule = resumed(tmp_path, ["learning_rate"])

    assert values(optimizer, "lr") == schedule.get_last_lr() == pytest.approx([0.24, 0.24])
    assert values(optimizer, "initial_lr") == schedule.base_lrs == [0.4, 0.4]
    assert values(optimizer, "weight_decay") == [0.5, 0.0]
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.2, 0.2])


def test_decay_moments_and_epsilon_reach_the_groups(tmp_path: Path) -> None:
    optimizer, _ = resumed(tmp_path, ["weight_decay", "adam_beta1", "adam_epsilon"])

    assert values(optimizer, "weight_decay") == [0.2, 0.0]
    assert values(optimizer, "betas") == [(0.8, 0.999)] * 2
    assert values(optimizer, "eps") == [1e-6] * 2
