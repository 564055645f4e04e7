"""What makes a run fit: tried, in order, and true."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.estimate.sections import make_setup
from tests.estimate.test_flops import LLAMA_8B

from finetune.estimate.devices import named_gpu
from finetune.estimate.memory import estimate
from finetune.estimate.remedies import find_remedies, split
from finetune.estimate.setup import Setup


@pytest.fixture
def llama_8b(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(str(LLAMA_8B).replace("'", '"'))
    return folder


def setup(base: Path, gpu: str, **keys: Any) -> Setup:
    return make_setup(base.parent, base, named_gpu(gpu), sequence_len=4096, **keys)


LORA = {"adapter": "lora", "lora_target_linear": True}


def test_a_large_batch_is_split_first_and_the_global_batch_stays(llama_8b: Path) -> None:
    remedies = find_remedies(setup(llama_8b, "H100", micro_batch_size=16, **LORA))
    first = remedies[0]
    assert first.change == "micro_batch_size: 2, gradient_accumulation_steps: 8"
    assert first.setup.training.batch_size == 16
    assert [remedy.change for remedy in remedies[1:2]] == ["gradient_checkpointing: true"]


def test_logits_that_need_not_exist_are_the_first_to_go(llama_8b: Path) -> None:
    whole = {"chunked_cross_entropy": False, "gradient_checkpointing": True, "micro_batch_size": 4}
    first = find_remedies(setup(llama_8b, "RTX 5090", **whole, **LORA))[0]
    assert (first.change, first.costs) == ("chunked_cross_entropy: true", "the same result")


def test_every_alternative_fits_and_says_what_it_needs(llama_8b: Path) -> None:
    remedies = find_remedies(setup(llama_8b, "RTX 4090", micro_batch_size=1, load_in_4bit=True, **LORA))
    assert remedies
    for remedy in remedies:
        assert remedy.fits
        assert remedy.needed == estimate(remedy.setup)
        assert remedy.needed.peak <= remedy.setup.device.usable_bytes


def test_changes_that_help_only_together_are_made_in_turn(llama_8b: Path) -> None:
    remedies = find_remedies(setup(llama_8b, "RTX 4090", micro_batch_size=2))
    peaks = [remedy.needed.peak for remedy in remedies]
    assert len(remedies) > 2
    assert peaks == sorted(peaks, reverse=True)
    assert [remedy.fits for remedy in remedies] == [False] * (len(remedies) - 1) + [True]


def test_several_processes_are_offered_zero(llama_8b: Path) -> None:
    one = setup(llama_8b, "A100 80GB", micro_batch_size=1)
    changes = [remedy.change for remedy in find_remedies(replace(one, num_processes=8))]
    assert "deepspeed: zero3.json" in changes


def test_what_can_never_fit_is_not_said_to(llama_8b: Path) -> None:
    remedies = find_remedies(setup(llama_8b, "RTX 3060", micro_batch_size=1))
    assert not remedies[-1].fits or remedies[-1].needed.peak <= remedies[-1].setup.device.usable_bytes


def test_a_split_keeps_the_samples_of_a_step(llama_8b: Path) -> None:
    training = split(setup(llama_8b, "H100", micro_batch_size=4, gradient_accumulation_steps=3).training, 6)
    assert (training.micro_batch_size, training.gradient_accumulation_steps, training.batch_size) == (6, 2, 12)
