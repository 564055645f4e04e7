"""The comparison of losses passes what is right and finds each kind of wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.training.checkpoints.saves import make_store
from transformers import BitsAndBytesConfig, LlamaForCausalLM, TrainingArguments

from finetune.data.collate import PackedCollator, PaddedCollator, SupervisedCollator
from finetune.errors import ModelError
from finetune.model.attention import Attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat
from finetune.model.summary import summarize_parameters
from finetune.training.checks.loss import check_adapter, check_loss, cut, cut_all, row_loss
from finetune.training.trainer import CausalTrainer


def sample(length: int, first: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(length).integers(5, 290, length).astype(np.int32)
    return {"input_ids": ids, "labels": np.where(np.arange(length) < first, -100, ids).astype(np.int32)}


SAMPLES = [sample(9, 4), sample(40, 30), sample(17, 1)]


def trainable(model: Any) -> TrainableModel:
    hardware = Hardware(Precision(torch.float32), Attention("sdpa", flatten=False))
    return TrainableModel(model, hardware, summarize_parameters(model), (), None, StoredFormat(torch.float32, {}))


def trainer(model: Any, folder: Path, *, packs: bool = False) -> CausalTrainer:
    collator = SupervisedCollator(PackedCollator(2, 128) if packs else PaddedCollator(2, 128))
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], remove_unused_columns=False)
    return CausalTrainer(
        model=model,
        args=arguments,
        train_dataset=SAMPLES,
        data_collator=collator,
        validation_collator=collator,
        training_sampler=None,
        store=make_store(folder),
    )


@pytest.mark.parametrize("packs", [False, True])
def test_the_loss_of_a_step_is_the_mean_over_its_trained_tokens(tiny_llama: Path, tmp_path: Path, packs: bool) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).train()
    said: list[str] = []
    loss = check_loss(trainer(model, tmp_path, packs=packs), trainable(model), SAMPLES, said.append, packs=packs)

    (line,) = said
    assert line.startswith("check loss: 5.7")
    assert float(line.split(" on 3 rows, ")[1].split()[0]) < 1e-6
    assert loss == pytest.approx(row_loss(model.eval(), SAMPLES[0], Precision(torch.float32))[0])


class HalvesItsLoss(LlamaForCausalLM):
    """A model whose loss knows nothing of the step."""

    def forward(self, num_items_in_batch: object = None, **inputs: Any) -> Any:
        return super().forward(**inputs)


class AddsToItsLoss(LlamaForCausalLM):
    """A model with a loss of its own beside the cross entropy."""

    def forward(self, num_items_in_batch: object = None, **inputs: Any) -> Any:
        outputs = super().forward(num_items_in_batch=num_items_in_batch, **inputs)
        if outputs.loss is not None:
            outputs.loss = outputs.loss + 0.05
        return outputs


@pytest.mark.parametrize("kind", [HalvesItsLoss, AddsToItsLoss])
def test_a_model_with_another_loss_is_refused(tiny_llama: Path, tmp_path: Path, kind: type[LlamaForCausalLM]) -> None:
    model = kind.from_pretrained(tiny_llama)
    with pytest.raises(ModelError) as caught:
        check_loss(trainer(model, tmp_path), trainable(model), SAMPLES, print, packs=False)
    message = str(caught.value)
    assert message.startswith("self-check: on 3 rows the loss of a training step is ")
    assert "the mean over their 31 trained tokens, each row by itself, is 5.7" in message
    assert message.endswith("--skip-checks trains anyway")


def test_a_loss_that_is_not_finite_is_left_to_the_first_step(tiny_llama: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    said: list[str] = []
    check_loss(trainer(model, tmp_path), trainable(model), SAMPLES, said.append, packs=False)
    assert said == ["check loss: not compared, the loss of the first rows is not finite"]


def lora(base: LlamaForCausalLM, **options: Any) -> Any:
    return get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], **options))


@pytest.mark.parametrize("quantized", [False, True])
def test_a_new_adapter_changes_nothing(tiny_llama: Path, quantized: bool) -> None:
    quantization = BitsAndBytesConfig(load_in_8bit=True) if quantized else None
    model = lora(LlamaForCausalLM.from_pretrained(tiny_llama, quantization_config=quantization, device_map={"": "cpu"}))
    loss, _ = row_loss(model.eval(), SAMPLES[1], Precision(torch.float32))
    said: list[str] = []
    check_adapter(trainable(model), SAMPLES[1], loss, said.append)
    assert said == ["check adapter: it changes nothing yet (a row's loss by 0e+00)"]


def test_an_adapter_that_is_no_identity_is_refused(tiny_llama: Path) -> None:
    model = lora(LlamaForCausalLM.from_pretrained(tiny_llama), init_lora_weights=False)
    loss, _ = row_loss(model.eval(), SAMPLES[1], Precision(torch.float32))
    with pytest.raises(ModelError, match=r"self-check: the new adapter changes the model before it is trained: the "):
        check_adapter(trainable(model), SAMPLES[1], loss * 1.1, print)


@pytest.mark.parametrize(("length", "first"), [(50, 20), (1000, 20), (1000, 500), (1000, 990), (1000, 0)])
@pytest.mark.parametrize("max_tokens", [12, 128])
def test_of_a_long_row_a_part_with_trained_tokens_is_taken(length: int, first: int, max_tokens: int) -> None:
    part = cut(sample(length, first), max_tokens)
    assert len(part["input_ids"]) == len(part["labels"]) == min(length, max_tokens)
    assert (part["labels"][1:] != -100).any()


def test_parts_differ_in_length_so_that_there_is_padding_and_are_longer_where_arithmetic_rounds(
    tiny_llama: Path,
) -> None:
    rows = [sample(1000, first) for first in (20, 500, 0)]
    exact = trainable(LlamaForCausalLM.from_pretrained(tiny_llama))
    rounded = replace(exact, hardware=Hardware(Precision(torch.bfloat16), Attention("sdpa", flatten=False)))
    lengths = [[len(part["labels"]) for part in cut_all(rows, candidate)] for candidate in (exact, rounded)]
    assert lengths == [[10, 20, 14], [112, 128, 120]]


class CountsPadding(LlamaForCausalLM):
    """A model that takes what fills a row for a token to be learned."""

    def forward(self, logits_to_keep: object = 0, shift_labels: object = None, **inputs: Any) -> Any:
        if "attention_mask" in inputs:
            inputs["labels"] = inputs["labels"].masked_fill(inputs["attention_mask"] == 0, 2)
        return super().forward(**inputs)


def test_a_loss_that_counts_padding_is_found_on_the_short_parts_of_long_rows(tiny_llama: Path, tmp_path: Path) -> None:
    model = CountsPadding.from_pretrained(tiny_llama)
    parts = cut_all([sample(1000, first) for first in (20, 500, 0)], trainable(model))
    with pytest.raises(ModelError, match="self-check: on 3 rows the loss of a training step is "):
        check_loss(trainer(model, tmp_path), trainable(model), parts, print, packs=False)
