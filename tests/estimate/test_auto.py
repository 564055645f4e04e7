"""What says auto: decided by what fits, and kept by a run that goes on."""

from pathlib import Path
from typing import Any

import pytest
from tests.estimate.sections import config_of
from tests.estimate.test_remedies import LORA, llama_8b, setup

from finetune.config.run import RESOLVED
from finetune.config.training import TrainingSection
from finetune.estimate.auto import asks, recorded_values, settle

__all__ = ["llama_8b"]
AUTO = {"micro_batch_size": "auto", "batch_size": 12, "gradient_checkpointing": "auto"}


def settled(base: Path, gpu: str, recorded: dict[str, Any] | None = None, **keys: Any) -> TrainingSection:
    found = settle(setup(base, gpu, **{**LORA, **AUTO, **keys}), recorded or {})
    assert not asks(found.training)
    return found.training


def shape(training: TrainingSection) -> tuple[int, int, object]:
    return training.micro_batch_size, training.gradient_accumulation_steps, training.gradient_checkpointing


def test_checkpointing_is_off_where_a_sample_fits_without(llama_8b: Path) -> None:
    assert shape(settled(llama_8b, "H100")) == (2, 6, False)


def test_checkpointing_is_on_where_it_does_not(llama_8b: Path) -> None:
    micro, accumulation, on = shape(settled(llama_8b, "RTX 5090"))
    assert on is True
    assert micro > 1
    assert micro * accumulation == 12


def test_a_fixed_batch_decides_checkpointing_by_itself(llama_8b: Path) -> None:
    fixed = {"micro_batch_size": 4, "batch_size": 12}
    assert settled(llama_8b, "H100", **fixed).gradient_checkpointing is True
    assert settled(llama_8b, "H200", **fixed).gradient_checkpointing is False


def test_an_evaluation_takes_as_many_samples(llama_8b: Path) -> None:
    assert settled(llama_8b, "H100").eval_batch_size == 2
    assert settled(llama_8b, "H100", eval_batch_size=3).eval_batch_size == 3


def test_what_was_decided_is_said(llama_8b: Path) -> None:
    notes = settle(setup(llama_8b, "H100", **LORA, **AUTO), {}).notes
    assert notes[0].startswith("gradient_checkpointing: auto is false (")
    assert notes[1].startswith("micro_batch_size: auto is 2, gradient_accumulation_steps 6 (")
    assert notes[1].endswith("of 79.1 GiB, H100 80GB)")


def test_a_run_that_goes_on_keeps_the_values_of_the_first(llama_8b: Path) -> None:
    recorded = {"micro_batch_size": 3, "gradient_accumulation_steps": 4, "gradient_checkpointing": True}
    assert shape(settled(llama_8b, "H200", recorded)) == (3, 4, True)


def test_the_record_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "checkpoint-3").mkdir(parents=True)
    (out / RESOLVED).write_text("micro_batch_size: 3\n")

    def recorded(**keys: Any) -> dict[str, Any]:
        return recorded_values(config_of(tmp_path, tmp_path, output_dir=str(out), **keys).training)

    assert recorded() == {}
    assert recorded(auto_resume_from_checkpoints=True) == {"micro_batch_size": 3}
    assert recorded(resume_from_checkpoint=str(out / "checkpoint-3")) == {"micro_batch_size": 3}


@pytest.mark.parametrize("keys", [{}, {"micro_batch_size": 2}, {"gradient_checkpointing": True}])
def test_nothing_is_asked_without_auto(keys: dict[str, Any], tmp_path: Path) -> None:
    assert not asks(config_of(tmp_path, tmp_path, **keys).training)
