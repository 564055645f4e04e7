"""One pass: its loss, and the moment at which most is held."""

from pathlib import Path
from typing import Any

import pytest
from tests.estimate.sections import BIG, CPU, make_setup
from tests.tiny import save_tiny_llama

from finetune.estimate import passes
from finetune.estimate.holding import hold
from finetune.estimate.passes import Head, Pass, largest_pass, moments_of
from finetune.model import loss

LORA = {"adapter": "lora", "lora_target_linear": True}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base")


def moments(base: Path, gradients: int = 0, **keys: Any) -> tuple[Pass, dict[str, int]]:
    setup = make_setup(base.parent, base, BIG, **keys)
    held = hold(setup.model, setup.adapter, setup.base, setup.compute_bytes, setup.num_added)
    one = largest_pass(setup, held)
    return one, moments_of(setup, one, held, gradients)


def head(base: Path, **keys: Any) -> Head:
    return moments(base, **keys)[0].head


def test_chunks_are_those_of_the_loss() -> None:
    assert passes.CHUNK_BYTES == loss.CHUNK_BYTES


def test_what_is_on_the_output_matrix_decides_about_chunks(base: Path) -> None:
    full, frozen = head(base), head(base, **LORA)
    assert (full.is_trained, full.is_tied, full.is_plain) == (True, False, True)
    assert full.gradient == 4 * full.num_parameters
    assert (frozen.is_trained, frozen.is_plain, frozen.gradient) == (False, True, 0)
    assert head(base, **LORA, lora_modules_to_save=["lm_head"]).is_plain
    assert not head(base, adapter="lora", lora_target_modules=["q_proj", "lm_head"]).is_plain
    assert not head(base, **LORA, tokens=["<new>"]).is_plain


@pytest.mark.parametrize("keys", [{"chunked_cross_entropy": False}, {"tokens": ["<new>"]}])
def test_without_chunks_all_logits_exist(keys: dict[str, Any], base: Path) -> None:
    chunked, whole = (moments(base, **LORA, **more)[0] for more in ({}, keys))
    assert whole.is_whole
    assert not chunked.is_whole
    assert whole.loss > 1.3 * chunked.loss


def test_the_gradient_of_the_output_matrix_is_there_with_the_loss(base: Path) -> None:
    trained, frozen = moments(base, bf16=False)[0], moments(base, **LORA, bf16=False)[0]
    assert trained.loss - frozen.loss == trained.head.gradient


def test_gradients_stay_between_the_passes_of_a_step(base: Path) -> None:
    one, several = (moments(base, 10**9, gradient_accumulation_steps=count)[1] for count in (1, 2))
    assert several["the loss"] == one["the loss"] + 10**9
    assert several["the optimizer's step"] == one["the optimizer's step"]


def test_checkpointing_keeps_one_layer_at_a_time(base: Path) -> None:
    rows = {"sequence_len": 4096, "micro_batch_size": 8}
    plain, saving = (moments(base, **LORA, **rows, gradient_checkpointing=on)[1] for on in (False, True))
    assert saving["the loss"] < plain["the loss"]
    assert saving["the backward pass"] < plain["the backward pass"]


def test_samples_whose_probabilities_are_kept_may_take_more_than_longer_ones(base: Path) -> None:
    def batch(length: int) -> int:
        setup = make_setup(base.parent, base, CPU, sequence_len=length, bf16=True)
        held = hold(setup.model, setup.adapter, setup.base, setup.compute_bytes, setup.num_added)
        return largest_pass(setup, held).batch.num_tokens

    assert (batch(500), batch(600), batch(10**5)) == (500, 512, 10**5)
