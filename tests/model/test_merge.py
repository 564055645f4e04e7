"""The merged model computes what base and adapter compute."""

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import WriteConfig
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.config import RunConfig, load_config
from finetune.config.adapter import AdapterSection
from finetune.config.model import ModelSection
from finetune.errors import CheckpointError, ModelError
from finetune.model.adapters import add_adapter, load_adapter
from finetune.model.base import find_base
from finetune.model.embeddings import add_token_rows
from finetune.model.merge import merge_adapter
from finetune.model.tokenizer import load_tokenizer

IDS = torch.tensor([[3, 50, 60, 70, 80, 90]])


def train_something(config: RunConfig, folder: str) -> torch.Tensor:
    """Save a random adapter for the run in ``folder`` and return the logits of base and adapter."""

    def base() -> torch.nn.Module:
        loaded = load_tokenizer(config.model, find_base(config.model))
        model = AutoModelForCausalLM.from_pretrained(config.model.base_model)
        add_token_rows(model, len(loaded.tokenizer), loaded.added_ids)
        return model

    loaded = load_tokenizer(config.model, find_base(config.model))
    section = AdapterSection(**{**config.adapter.model_dump(), "lora_model_dir": None})
    adapted = add_adapter(base(), section, loaded.added_ids, quantized=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder)
    loaded.tokenizer.chat_template = "trained template"
    loaded.tokenizer.save_pretrained(folder)
    return load_adapter(base(), folder, trainable=False).eval()(IDS).logits


@pytest.mark.parametrize(
    ("tie", "changes"),
    [
        (False, {}),
        (True, {}),
        (False, {"peft_use_dora": True}),
        (False, {"peft_use_rslora": True, "lora_r": 4}),
        (False, {"tokens": ["<a>", "<b>"]}),
        (True, {"tokens": ["<a>", "<b>"]}),
        (False, {"lora_modules_to_save": ["embed_tokens", "lm_head"], "tokens": ["<a>"]}),
    ],
    ids=["lora", "tied", "dora", "rslora", "added tokens", "added tokens, tied", "modules to save"],
)
def test_merged_logits_equal_base_and_adapter(
    write_config: WriteConfig, tmp_path: Path, tie: bool, changes: dict[str, object]
) -> None:
    base = save_tiny_llama(tmp_path / "base", tie=tie)
    out = tmp_path / "out"
    config = load_config(
        write_config(base_model=str(base), adapter="lora", lora_target_linear=True, output_dir=str(out), **changes)
    )
    expected = train_something(config, str(out))

    merged = out / "merged"
    merge_adapter(config.model, str(out), merged)

    model = AutoModelForCausalLM.from_pretrained(merged).eval()
    assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tie
    assert AutoTokenizer.from_pretrained(merged).chat_template == "trained template"
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert not list(tmp_path.rglob("*.staging"))


def test_the_merged_weights_have_the_format_of_the_base(write_config: WriteConfig, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    out = str(tmp_path / "out")
    config = load_config(write_config(base_model=str(base), adapter="lora", lora_target_linear=True, output_dir=out))
    train_something(config, out)

    merged = tmp_path / "elsewhere" / "model"
    merge_adapter(config.model, out, merged)

    assert {p.dtype for p in AutoModelForCausalLM.from_pretrained(merged).parameters()} == {torch.bfloat16}


def test_merging_never_writes_over_a_folder(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already; move it away or give another --output"):
        merge_adapter(ModelSection(base_model=str(tiny_llama)), str(tmp_path), tmp_path)


def test_a_folder_without_an_adapter_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json; name the folder with --lora-model-dir"):
        merge_adapter(ModelSection(base_model=str(tiny_llama)), str(tmp_path), tmp_path / "merged")
