"""Batches: what the model is called with, and that packed samples do not see each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.data.collate import PackedCollator, PackedDataset, PaddedCollator, SampleDataset
from finetune.data.packing import pack
from finetune.data.store import SampleWriter, StoredSamples, TokenBatch

PAD = 2
EOS = 1
LENGTHS = [5, 9, 3, 12, 7, 1, 11]


def make_samples(lengths: list[int]) -> list[dict[str, np.ndarray]]:
    """Random tokens that end in EOS; about the first third of each sample is prompt."""
    numbers = np.random.default_rng(0)
    samples = []
    for length in lengths:
        input_ids = np.append(numbers.integers(3, 50, length - 1), EOS).astype(np.int32)
        labels = np.where(np.arange(length) < length // 3, -100, input_ids).astype(np.int32)
        samples.append({"input_ids": input_ids, "labels": labels})
    return samples


SAMPLES = make_samples(LENGTHS)


@pytest.fixture
def stored(tmp_path: Path) -> StoredSamples:
    with SampleWriter(tmp_path / "data") as writer:
        writer.write(TokenBatch.of([(s["input_ids"].tolist(), s["labels"].tolist()) for s in SAMPLES]))
    return StoredSamples(tmp_path / "data")


def test_padding_is_masked_by_position_and_not_by_id() -> None:
    """With EOS as the padding, each sample's own EOS is still seen and trained."""
    batch = PaddedCollator(pad_token_id=EOS, sequence_len=64)(SAMPLES[:3])
    assert batch["input_ids"].shape == (3, 64)
    assert batch["attention_mask"].sum(dim=1).tolist() == LENGTHS[:3]
    for row, (sample, length) in enumerate(zip(SAMPLES[:3], LENGTHS[:3], strict=True)):
        assert batch["input_ids"][row, :length].tolist() == sample["input_ids"].tolist()
        assert batch["labels"][row, :length].tolist() == sample["labels"].tolist()
        assert batch["labels"][row, length - 1] == EOS
        assert set(batch["labels"][row, length:].tolist()) == {-100}
        assert set(batch["input_ids"][row, length:].tolist()) == {EOS}
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@pytest.mark.parametrize(
    ("sequence_len", "pads", "multiple", "width"),
    [
        pytest.param(100, True, 64, 128, id="to-sequence-len-rounded-up"),
        pytest.param(1024, False, 64, 64, id="to-a-multiple"),
        pytest.param(1024, False, 1, 12, id="to-the-longest"),
    ],
)
def test_the_width_of_a_padded_batch(sequence_len: int, pads: bool, multiple: int, width: int) -> None:
    batch = PaddedCollator(PAD, sequence_len, pads, multiple)(SAMPLES)
    assert batch["input_ids"].shape == (len(SAMPLES), width)


def test_packed_rows_hold_their_samples_and_a_segment_of_padding() -> None:
    first, second = SAMPLES[0], SAMPLES[2]
    batch = PackedCollator(PAD, sequence_len=12)([[first, second], [SAMPLES[3]]])
    assert "attention_mask" not in batch
    assert batch["use_cache"] is False
    assert batch["input_ids"][0].tolist() == [*first["input_ids"], *second["input_ids"], *[PAD] * 4]
    assert batch["position_ids"][0].tolist() == [*range(5), *range(3), *range(4)]
    assert batch["labels"][0].tolist() == [
        -100,
        *first["labels"][1:],
        -100,
        *second["labels"][1:],
        *[-100] * 4,
    ]
    assert batch["position_ids"][1].tolist() == list(range(12))
    assert {batch[name].dtype for name in ("input_ids", "labels", "position_ids")} == {torch.int64}


def test_the_samples_themselves_keep_their_first_label() -> None:
    sample = {"input_ids": np.array([4, 5], np.int32), "labels": np.array([4, 5], np.int32)}
    PackedCollator(PAD, sequence_len=4)([[sample]])
    assert sample["labels"].tolist() == [4, 5]


def test_packed_rows_may_be_as_long_as_the_longest() -> None:
    collate = PackedCollator(PAD, sequence_len=20, pad_to_sequence_len=False)
    assert collate([[SAMPLES[0], SAMPLES[2]], [SAMPLES[3]]])["input_ids"].shape == (2, 12)


def test_a_flat_batch_names_its_boundaries() -> None:
    batch = PackedCollator(PAD, sequence_len=12, flatten=True)([[SAMPLES[0], SAMPLES[2]], [SAMPLES[4]]])
    assert batch["input_ids"].shape == (1, 24)
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 5, 8, 15, 24]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == batch["max_length_k"] == 9
    assert batch["position_ids"][0].tolist() == [*range(5), *range(3), *range(7), *range(9)]


def test_padding_of_a_flat_batch_is_cut_into_segments_of_sequence_len() -> None:
    batch = PackedCollator(PAD, sequence_len=12, flatten=True)([[SAMPLES[2]], [SAMPLES[5]], [SAMPLES[5]]])
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 4, 5, 17, 29, 36]
    assert batch["max_length_q"] == 12


def test_a_flat_batch_without_padding_holds_only_samples() -> None:
    collate = PackedCollator(PAD, sequence_len=12, flatten=True, pad_to_sequence_len=False)
    assert collate([[SAMPLES[0]], [SAMPLES[1]]])["cu_seq_lens_q"].tolist() == [0, 5, 14]


def test_a_data_loader_with_workers_serves_every_sample_once(stored: StoredSamples) -> None:
    plan = pack(stored.lengths, 24, seed=0)
    collate = PackedCollator(PAD, sequence_len=24, pad_to_sequence_len=False)
    loader = DataLoader(PackedDataset(stored, plan), batch_size=1, collate_fn=collate, num_workers=1)
    assert sum(batch["input_ids"].shape[1] for batch in loader) == sum(LENGTHS)
    dataset = SampleDataset(stored)
    assert [len(dataset[index]["input_ids"]) for index in range(len(dataset))] == LENGTHS
    assert dataset.lengths.tolist() == LENGTHS


def test_a_plan_for_other_samples_is_refused(stored: StoredSamples) -> None:
    with pytest.raises(ValueError, match="the plan packs 3 samples, not these 7"):
        PackedDataset(stored, pack(np.array([1, 2, 3]), 24, seed=0))


def tiny_llama(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).double()


def token_losses(model: LlamaForCausalLM, batch: dict[str, Any]) -> torch.Tensor:
    """Return the loss of every trained token, in the order of the batch."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, targets = model(**inputs).logits[:, :-1], batch["labels"][:, 1:]
    return torch.nn.functional.cross_entropy(logits[targets != -100], targets[targets != -100], reduction="none")


def losses_and_gradients(model: LlamaForCausalLM, batches: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    losses = torch.cat([token_losses(model, batch) for batch in batches])
    losses.sum().backward()
    return losses.detach(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


BINS = [[SAMPLES[0], SAMPLES[1], SAMPLES[5]], [SAMPLES[2], SAMPLES[3]], [SAMPLES[4], SAMPLES[6]]]
ORDER = [sample for samples in BINS for sample in samples]


def one_by_one() -> list[dict[str, Any]]:
    return [PaddedCollator(PAD, sequence_len=20)([sample]) for sample in ORDER]


@pytest.mark.parametrize("flatten", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_samples_have_the_losses_and_gradients_of_single_ones(attention: str, flatten: bool) -> None:
    model = tiny_llama(attention)
    packed = PackedCollator(PAD, sequence_len=20, flatten=flatten)(BINS)
    losses, gradients = losses_and_gradients(model, [packed])
    expected_losses, expected_gradients = losses_and_gradients(model, one_by_one())
    assert len(losses) == sum((sample["labels"][1:] != -100).sum() for sample in ORDER)
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-5)


def running_positions(batch: dict[str, Any]) -> dict[str, Any]:
    shape = batch["position_ids"].shape
    return {**batch, "position_ids": torch.arange(shape[1]).expand(shape)}


def with_mask(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}


def with_cache(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "use_cache": True}


@pytest.mark.parametrize("spoil", [running_positions, with_mask, with_cache])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_each_part_of_a_packed_batch_is_needed_to_keep_samples_apart(attention: str, spoil: Any) -> None:
    """The test above can fail: without one of the three conditions the samples see each other."""
    model = tiny_llama(attention)
    packed = spoil(PackedCollator(PAD, sequence_len=20)(BINS))
    losses, _ = losses_and_gradients(model, [packed])
    expected, _ = losses_and_gradients(model, one_by_one())
    assert (losses - expected).abs().max() > 0.01


def test_a_token_is_never_trained_to_start_the_next_sample() -> None:
    """A sample whose first label is trained (a completion) has as many trained tokens packed as alone."""
    whole = [{**sample, "labels": sample["input_ids"]} for sample in SAMPLES]
    packed = PackedCollator(PAD, sequence_len=48)([whole])
    assert (packed["labels"] != -100).sum() == sum(LENGTHS) - len(LENGTHS)
