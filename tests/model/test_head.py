"""A model whose output layer gives losses trains as the model itself does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from finetune.data.collate import PackedCollator, PaddedCollator, SupervisedCollator
from finetune.model.head import attach_head, split_batch

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
    "attn_implementation": "eager",
}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "untied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "capped": (Gemma2ForCausalLM, Gemma2Config, {"final_logit_softcapping": 2.0}),
    "scaled down": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 4.0}),
    "scaled up": (Cohere2ForCausalLM, Cohere2Config, {"logit_scale": 2.0}),
}


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model_class, config_class, changes = MODELS[name]
    model: PreTrainedModel = model_class(config_class(**SMALL, **changes))
    return model


def samples() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    made = []
    for length in (9, 14, 5):
        ids = random.integers(1, 60, length).astype(np.int32)
        made.append({"input_ids": ids, "labels": np.where(random.random(length) < 0.5, ids, -100).astype(np.int32)})
    return made


COLLATORS = {
    "padded": lambda: SupervisedCollator(PaddedCollator(0, 16))(samples()),
    "packed": lambda: SupervisedCollator(PackedCollator(0, 32))([samples()[:2], samples()[2:]]),
}


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("layout", COLLATORS)
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_the_model(name: str, layout: str) -> None:
    model, batch = make(name), COLLATORS[layout]()
    own = {key: value for key, value in batch.items() if not key.startswith("trained_")}
    num_items = len(batch["trained_targets"])
    expected = model(**own, num_items_in_batch=num_items).loss
    theirs = gradients(model, expected)

    loss = attach_head(model).loss_sum(model, batch) / num_items
    ours = gradients(model, loss)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[key], rtol=1e-5, atol=1e-6)


def test_single_losses_are_those_of_the_logits() -> None:
    model, batch = make("untied").eval(), COLLATORS["padded"]()
    inputs, _ = split_batch(batch)
    labels = batch["labels"][:, 1:]
    expected = torch.nn.functional.cross_entropy(
        model(**inputs).logits[:, :-1][labels != -100], labels[labels != -100], reduction="none"
    )
    torch.testing.assert_close(attach_head(model).token_losses(model, batch), expected, rtol=0, atol=1e-5)


def test_without_gradients_the_sum_is_the_same() -> None:
    model, batch = make("untied").eval(), COLLATORS["padded"]()
    head = attach_head(model)
    with torch.no_grad():
        total = head.loss_sum(model, batch)
    assert total.shape == ()
    assert total.item() == pytest.approx(head.loss_sum(model, batch).item(), rel=1e-6)


def test_a_model_that_is_asked_for_logits_still_gives_them() -> None:
    model, batch = make("untied").eval(), COLLATORS["padded"]()
    inputs, _ = split_batch(batch)
    before = model(**inputs).logits
    head = attach_head(model)
    head.loss_sum(model, batch)

    assert torch.equal(model(**inputs).logits, before)
    head.remove()
    assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
    ],
    ids=["frozen head", "trained copy", "adapter on the head"],
)
def test_under_peft_an_adapted_output_layer_keeps_the_models_own_loss(changes: dict[str, Any], fits: bool) -> None:
    model, batch = get_peft_model(make("untied"), LoraConfig(task_type="CAUSAL_LM", **changes)), COLLATORS["padded"]()
    own = {key: value for key, value in batch.items() if not key.startswith("trained_")}
    expected = model(**own, num_items_in_batch=1).loss
    theirs = gradients(model, expected)

    head = attach_head(model)

    assert (head is not None) == fits
    if head is not None:
        loss = head.loss_sum(model, batch)
        ours = gradients(model, loss)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert ours.keys() == theirs.keys()
        for key, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[key], rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny_llama: Path) -> None:
    model, batch = LlamaForCausalLM.from_pretrained(tiny_llama).train(), COLLATORS["packed"]()
    head = attach_head(model)
    expected = gradients(model, head.loss_sum(model, batch))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for key, gradient in gradients(model, head.loss_sum(model, batch)).items():
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=0)


def test_a_model_that_leaves_its_output_layer_out_is_found() -> None:
    model = make("untied")
    head = attach_head(model)
    with pytest.raises(TypeError, match="the model did not call its output layer"):
        head.loss_sum(model.model, COLLATORS["padded"]())
