"""Products in 8 bits: whose they are, that they train, and that nothing of them is in what is saved."""

import importlib.util
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from finetune.errors import HardwareError, ModelError
from finetune.model.attention import Attention
from finetune.model.build import Hardware, TrainableModel
from finetune.model.fp8 import Recipe, multiply_in_fp8, refuse_capability
from finetune.model.precision import Precision
from finetune.model.stored import StoredFormat, save_weights
from finetune.model.summary import summarize_parameters
from finetune.training.checks.isolation import check_isolation
from finetune.training.checks.loss import tolerance

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs torchao (pip install 'finetune[fp8]')"
)
RECIPES: tuple[Recipe, ...] = ("rowwise", "tensorwise")
IDS = torch.arange(3, 69).reshape(2, 33)
"""66 tokens: no multiple of 16, over which the gradients of weights are sums."""


def load(folder: Path, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    model: PreTrainedModel = LlamaForCausalLM.from_pretrained(folder, dtype=dtype, use_cache=False)
    return model


def with_lora(model: PreTrainedModel) -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))


def train(model: torch.nn.Module) -> list[float]:
    """Take 12 steps on one batch; return the losses."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=IDS, labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(weight.grad is not None and weight.grad.norm() > 0 for weight in trained)
    return losses


@needs_torchao
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_adapter_on_8_bit_products_trains_as_on_bfloat16(tiny_llama: Path, recipe: Recipe) -> None:
    rounded = with_lora(load(tiny_llama))
    assert multiply_in_fp8(rounded, recipe) == 14
    before = {name: value.clone() for name, value in rounded.named_parameters() if not value.requires_grad}

    losses, plain = train(rounded), train(with_lora(load(tiny_llama)))

    assert losses[-1] < losses[0] - 0.4
    assert losses == pytest.approx(plain, rel=0.02)
    assert losses != plain
    after = dict(rounded.named_parameters())
    assert all(torch.equal(after[name], value) and after[name].grad is None for name, value in before.items())


@needs_torchao
@pytest.mark.parametrize("recipe", RECIPES)
def test_whole_weights_train_on_8_bit_products(tiny_llama: Path, recipe: Recipe) -> None:
    rounded = load(tiny_llama, torch.float32)
    multiply_in_fp8(rounded, recipe)

    losses, plain = train(rounded), train(load(tiny_llama, torch.float32))

    assert losses[-1] < losses[0] - 1
    assert losses == pytest.approx(plain, rel=0.05, abs=0.05)
    assert {weight.dtype for weight in rounded.parameters()} == {torch.float32}


@needs_torchao
def test_only_the_base_of_the_decoder_layers_is_rounded() -> None:
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = with_lora(LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=40)))

    assert multiply_in_fp8(model, "rowwise") == 4  # the three of the feed-forward have a dimension of 40

    rounded = {name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"}
    layer = "base_model.model.model.layers.0.self_attn"
    assert rounded == {f"{layer}.{name}_proj.base_layer" for name in "qkvo"}


@needs_torchao
def test_a_model_without_a_layer_that_fits_is_named() -> None:
    shape = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=40))

    with pytest.raises(ModelError, match="no linear layer of this model has two dimensions that are multiples of 16"):
        multiply_in_fp8(model, "rowwise")


@needs_torchao
def test_what_is_saved_is_an_ordinary_model(tiny_llama: Path, tmp_path: Path) -> None:
    rounded, names = load(tiny_llama, torch.float32), list(load(tiny_llama).state_dict())
    multiply_in_fp8(rounded, "rowwise")
    train(rounded)
    assert list(rounded.state_dict()) == names

    save_weights(rounded, tmp_path, StoredFormat(torch.float32, {}))

    again = load(tmp_path, torch.float32)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in rounded.state_dict().items())
    multiply_in_fp8(again, "rowwise")
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, rounded(input_ids=IDS).logits)


@needs_torchao
def test_a_saved_adapter_goes_on_the_base_and_merges(tiny_llama: Path, tmp_path: Path) -> None:
    rounded = with_lora(load(tiny_llama, torch.float32))
    multiply_in_fp8(rounded, "rowwise")
    train(rounded)
    rounded.save_pretrained(tmp_path)
    assert all("lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))

    again = PeftModel.from_pretrained(load(tiny_llama, torch.float32), tmp_path)

    merged, theirs = (model.merge_and_unload().state_dict() for model in (rounded, again))
    assert all(torch.equal(merged[name], value) for name, value in theirs.items())


@needs_torchao
@pytest.mark.parametrize("recipe", RECIPES)
def test_samples_in_a_row_stay_isolated_and_exactly_so_with_a_scale_for_each_row(
    tiny_llama: Path, recipe: Recipe
) -> None:
    model, said = load(tiny_llama), list[str]()
    multiply_in_fp8(model, recipe)
    hardware = Hardware(Precision(torch.bfloat16, fp8=recipe), Attention("sdpa", flatten=False))
    summary = summarize_parameters(model)
    trainable = TrainableModel(model, hardware, summary, (), None, StoredFormat(torch.bfloat16, {}))

    check_isolation(trainable, 200, said.append)

    assert ("a neighbour moves logits by 0 of" in said[0]) == (recipe == "rowwise")
    assert tolerance(trainable) == 5e-2


@pytest.mark.parametrize("capability", [(8, 9), (9, 0), (10, 0)])
def test_ada_and_what_came_after_it_have_the_units(capability: tuple[int, int]) -> None:
    refuse_capability("a GPU", capability)


def test_an_older_gpu_is_refused_by_name() -> None:
    with pytest.raises(HardwareError) as refused:
        refuse_capability("NVIDIA A100-SXM4-40GB", (8, 0))

    assert str(refused.value) == (
        "fp8 needs a GPU of compute capability 8.9 or above (Ada, Hopper and later), and NVIDIA A100-SXM4-40GB has "
        "8.0; use bf16: true without it"
    )
