"""Adapters: targets, variants, added tokens, and what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from finetune.config.adapter import AdapterSection
from finetune.errors import ConfigError, ModelError
from finetune.model.adapters import add_adapter, load_adapter
from finetune.model.embeddings import add_token_rows


@pytest.fixture
def model(tiny_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llama)


def adapted_modules(model: torch.nn.Module) -> set[str]:
    return {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters() if ".lora_A" in name}


def section(**changes: object) -> AdapterSection:
    return AdapterSection(**{"adapter": "lora", "lora_target_linear": True, **changes})


def test_linear_targets_are_all_but_the_output_embedding(model: LlamaForCausalLM) -> None:
    adapted = add_adapter(model, section(), [], quantized=False)

    assert adapted_modules(adapted) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_list_and_linear_are_united(model: LlamaForCausalLM) -> None:
    adapted = add_adapter(model, section(lora_target_modules=["embed_tokens"]), [], quantized=False)

    assert any("lora_embedding_A" in name for name, _ in adapted.named_parameters())
    assert "q_proj" in adapted_modules(adapted)


def test_a_regular_expression_matches_whole_names(model: LlamaForCausalLM) -> None:
    pattern = r"model\.layers\.1\.self_attn\.(q|v)_proj"
    adapted = add_adapter(model, section(lora_target_linear=False, lora_target_modules=pattern), [], quantized=False)

    assert sorted(name for name, _ in adapted.named_parameters() if ".lora_A" in name) == [
        f"base_model.model.model.layers.1.self_attn.{which}_proj.lora_A.default.weight" for which in "qv"
    ]


def test_one_unmatched_target_of_several_is_refused(model: LlamaForCausalLM) -> None:
    with pytest.raises(
        ConfigError, match=r"no module is called 'vv_proj'\. Did you mean 'v_proj'\? Linear modules here: down_proj"
    ):
        add_adapter(
            model, section(lora_target_linear=False, lora_target_modules=["q_proj", "vv_proj"]), [], quantized=False
        )
    with pytest.raises(ConfigError, match=r"'q_proj' matches the whole name of no module; write \[q_proj\] for"):
        add_adapter(model, section(lora_target_linear=False, lora_target_modules="q_proj"), [], quantized=False)


def test_variants_reach_peft(model: LlamaForCausalLM) -> None:
    adapted = add_adapter(
        model, section(peft_use_dora=True, peft_use_rslora=True, lora_r=4, lora_dropout=0.1), [], quantized=False
    )
    config = adapted.peft_config["default"]

    assert (config.use_dora, config.use_rslora, config.r, config.lora_dropout) == (True, True, 4, 0.1)
    assert any("lora_magnitude_vector" in name for name, _ in adapted.named_parameters())


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "4-bit"])
def test_rows_of_added_tokens_train_and_come_back_with_the_adapter(
    tiny_llama: Path, tmp_path: Path, quantized: bool
) -> None:
    def base() -> LlamaForCausalLM:
        model = LlamaForCausalLM.from_pretrained(tiny_llama)
        size = model.get_input_embeddings().weight.shape[0]
        add_token_rows(model, size + 2, [size, size + 1])
        return model

    size = base().get_input_embeddings().weight.shape[0]
    adapted = add_adapter(base(), section(), [size - 2, size - 1], quantized=quantized)
    rows = {name: p for name, p in adapted.named_parameters() if "trainable_tokens" in name}
    assert len(rows) == 2
    with torch.no_grad():
        for parameter in rows.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    ids = torch.tensor([[5, size - 1, size - 2, 7]])
    expected = adapted.eval()(ids).logits
    adapted.save_pretrained(tmp_path / "adapter")

    again = load_adapter(base(), str(tmp_path / "adapter"), trainable=False).eval()(ids).logits

    assert torch.allclose(again, expected, atol=1e-6)


def test_modules_to_save_take_the_place_of_single_rows(model: LlamaForCausalLM) -> None:
    names = ["embed_tokens", "lm_head"]
    adapted = add_adapter(model, section(lora_modules_to_save=names), [298, 299], quantized=False)

    assert not [name for name, _ in adapted.named_parameters() if "trainable_tokens" in name]
    assert len([name for name, p in adapted.named_parameters() if "modules_to_save" in name and p.requires_grad]) == 2


def test_training_goes_on_from_a_given_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    first = add_adapter(LlamaForCausalLM.from_pretrained(tiny_llama), section(), [], quantized=False)
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    first.save_pretrained(tmp_path / "adapter")

    more = AdapterSection(adapter="lora", lora_model_dir=str(tmp_path / "adapter"))
    second = add_adapter(LlamaForCausalLM.from_pretrained(tiny_llama), more, [], quantized=False)

    values = [p for name, p in second.named_parameters() if "lora_B" in name]
    assert values
    assert all(parameter.requires_grad and torch.all(parameter == 0.5) for parameter in values)


def test_keys_that_differ_from_the_given_adapter_are_refused(
    tiny_llama: Path, model: LlamaForCausalLM, tmp_path: Path
) -> None:
    add_adapter(model, section(lora_r=4), [], quantized=False).save_pretrained(tmp_path / "adapter")
    more = AdapterSection(adapter="lora", lora_model_dir=str(tmp_path / "adapter"), lora_r=16, lora_alpha=16.0)

    with pytest.raises(ConfigError, match="lora_r is 4, not 16; leave these keys out"):
        add_adapter(LlamaForCausalLM.from_pretrained(tiny_llama), more, [], quantized=False)


def test_a_folder_without_an_adapter_is_refused(model: LlamaForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json \(no such folder\)"):
        load_adapter(model, str(tmp_path / "none"), trainable=False)


def test_an_adapter_of_another_shape_is_refused(tiny_llama: Path, model: LlamaForCausalLM, tmp_path: Path) -> None:
    add_adapter(model, section(), [], quantized=False).save_pretrained(tmp_path / "adapter")
    config = model.config.__class__(**{**model.config.to_dict(), "hidden_size": 64})

    with pytest.raises(ModelError, match="does not fit this base model"):
        load_adapter(LlamaForCausalLM(config), str(tmp_path / "adapter"), trainable=False)
