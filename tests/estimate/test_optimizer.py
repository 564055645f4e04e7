"""Optimizer states, against those of the real optimizers after one step."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import Trainer, TrainingArguments

from finetune.config.training import Optimizer
from finetune.estimate.optimizer import KINDS, state_bytes, step_bytes

SHAPES = {"0.weight": (70, 80), "1.weight": (30, 80), "1.bias": (30,), "2.weight": (80, 70)}


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Embedding(70, 80), torch.nn.Linear(80, 30), torch.nn.Linear(70, 80, bias=False))


def real_bytes(optimizer: str, folder: Path) -> int:
    """Take one step with the optimizer that the Trainer makes, and add its states up; shared tables left out."""
    model = network()
    arguments = TrainingArguments(str(folder), optim=optimizer, report_to=[], use_cpu=True)
    made = Trainer(model, arguments).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    states = [value for state in made.state.values() for name, value in state.items() if not name.startswith("qmap")]
    return sum(value.nbytes for value in states if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_states_are_those_of_the_real_optimizer(optimizer: Optimizer, tmp_path: Path) -> None:
    kind = KINDS[optimizer]
    expected = sum(state_bytes(kind, shape, is_embedding=name == "0.weight") for name, shape in SHAPES.items())
    assert real_bytes(optimizer, tmp_path) == expected


def test_every_optimizer_is_known() -> None:
    assert set(KINDS) == set(get_args(Optimizer))


def test_a_fused_step_copies_nothing() -> None:
    assert step_bytes("adamw_torch_fused", 100) == 0
    assert step_bytes("adamw_torch", 100) == 100
