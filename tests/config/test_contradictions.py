"""Keys that exclude, need, or silence each other, in one section or across sections."""

from pathlib import Path
from typing import Any

import pytest
from tests.config.conftest import faults
from tests.conftest import WriteConfig

from finetune.config import load_config

LORA = {"adapter": "lora", "lora_target_linear": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load_in_4bit": True}, "load_in_4bit freezes the weights, so nothing could be trained; add adapter: lora"),
        (
            {"adapter": "qlora", "lora_target_linear": True},
            "adapter: qlora needs load_in_4bit: true; use adapter: lora for an unquantized base",
        ),
        (
            {"adapter": "lora"},
            "adapter: lora needs lora_target_modules, or lora_target_linear: true for every linear module",
        ),
        (
            {"load_in_4bit": True, "load_in_8bit": True, "adapter": "lora", "lora_target_linear": True},
            "load_in_4bit and load_in_8bit exclude each other",
        ),
        (
            {"adapter": "lora", "lora_target_linear": True, "unfrozen_parameters": ["norm"]},
            "unfrozen_parameters trains the weights themselves and adapter: lora freezes them; drop one of the two",
        ),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "warmup_steps and warmup_ratio exclude each other"),
        (
            {"batch_size": 8, "micro_batch_size": 2, "gradient_accumulation_steps": 2},
            "batch_size 8 is not micro_batch_size 2 x gradient_accumulation_steps 2; leave one of the three out",
        ),
        ({"evals_per_epoch": 2}, "evals_per_epoch needs validation data; set val_set_size or test_datasets"),
        ({"early_stopping_patience": 2}, "early_stopping_patience needs validation data"),
        (
            {"val_set_size": 0.1, "test_datasets": [{"path": "x", "type": "alpaca"}]},
            "val_set_size and test_datasets exclude each other",
        ),
        ({"eval_strategy": "steps", "val_set_size": 2}, "eval_strategy: steps needs eval_steps"),
        ({"save_strategy": "epoch", "save_steps": 5}, "save_strategy: epoch excludes save_steps and saves_per_epoch"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16 exclude each other"),
        ({"fp8": True, "fp16": True}, "fp8 rounds bfloat16 to 8 bits, and fp16: true computes in another format"),
        ({"fp8": "tensorwise", "bf16": False}, "and bf16: false computes in another format; set bf16: true"),
        (
            {**LORA, "load_in_4bit": True, "fp8": True},
            "fp8 rounds unquantized weights, and load_in_4bit quantizes them; drop one of the two",
        ),
        (
            {"cosine_min_lr_ratio": 0.1, "lr_scheduler": "linear"},
            "cosine_min_lr_ratio needs lr_scheduler: cosine, not linear",
        ),
        ({"sample_packing": True, "group_by_length": True}, "group_by_length has no meaning with sample_packing"),
        ({"chat_template": "jinja"}, "chat_template: jinja and chat_template_jinja belong together"),
        ({"trust_remote_code": True, "base_model": "a/b"}, "pin the commit that you have read with model_revision"),
        ({"flash_attention": True, "sdp_attention": True}, "more than one attention backend is asked for"),
        ({"wandb_name": "x"}, "wandb_name without wandb_project: nothing would be tracked"),
        (
            {"load_best_model_at_end": True, "save_strategy": "no", "val_set_size": 2},
            "save_strategy: no leaves load_best_model_at_end without weights to load",
        ),
        (
            {
                "unfrozen_parameters": ["norm"],
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"use_reentrant": True},
            },
            "use_reentrant: true loses gradients where the first layers are frozen",
        ),
        (
            {"model_revision": "main"},
            "model_revision names a commit on the hub, but base_model is a folder here; take it out",
        ),
        (
            {"model_revision": "main", "base_model": "~/model"},
            "model_revision names a commit on the hub, but base_model is a folder here; take it out",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused_with_the_reason(
    write_config: WriteConfig, changes: dict[str, Any], message: str
) -> None:
    assert message in "\n".join(faults(write_config(**changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"load_in_8bit": True, **LORA, "bnb_config_kwargs": {"bnb_4bit_quant_type": "fp4"}},
            "bnb_config_kwargs: bnb_4bit_quant_type needs load_in_4bit: true",
        ),
        (
            {"load_in_4bit": True, **LORA, "bnb_config_kwargs": {"llm_int8_threshold": 5.0}},
            "bnb_config_kwargs: llm_int8_threshold needs load_in_8bit: true",
        ),
        (
            {"lora_r": 4, "lora_target_linear": True},
            "lora_r, lora_target_linear: without an adapter this has no effect and the weights themselves are trained; "
            "add adapter: lora",
        ),
        ({"peft_use_dora": True}, "peft_use_dora: without an adapter this has no effect"),
        ({"lora_model_dir": "./adapter"}, "lora_model_dir: without an adapter this has no effect"),
        (
            {"lora_model_dir": "./adapter", **LORA},
            "lora_target_linear: no effect with lora_model_dir, whose adapter has its own modules; leave this out",
        ),
        (
            {
                "adapter": "lora",
                "lora_model_dir": "./adapter",
                "lora_target_modules": ["q_proj"],
                "lora_modules_to_save": ["lm_head"],
            },
            "lora_modules_to_save, lora_target_modules: no effect with lora_model_dir",
        ),
        (
            {"default_system_message": "Be brief."},
            "default_system_message is read by type: sharegpt alone, and no data set here is of it; take it out",
        ),
        (
            {"eot_tokens": ["<|im_end|>"], "datasets": [{"path": "x", "type": "sharegpt"}]},
            "eot_tokens is read by type: chat_template alone, and no data set here is of it; take it out",
        ),
        (
            {"lr_scheduler": "constant", "warmup_steps": 5},
            "warmup_steps: no effect with lr_scheduler: constant; write lr_scheduler: constant_with_warmup",
        ),
        ({"lr_scheduler": "constant", "warmup_ratio": 0.1}, "warmup_ratio: no effect with lr_scheduler: constant"),
        (
            {"optimizer": "sgd", "adam_beta1": 0.8, "adam_epsilon": 1e-6},
            "adam_beta1, adam_epsilon: no effect with optimizer: sgd; take this out",
        ),
        ({"optimizer": "adagrad", "adam_beta2": 0.8}, "adam_beta2: no effect with optimizer: adagrad"),
        ({"optimizer": "rmsprop", "adam_beta2": 0.8}, "adam_beta2: no effect with optimizer: rmsprop"),
        ({"optimizer": "adafactor", "adam_epsilon": 1e-6}, "adam_epsilon: no effect with optimizer: adafactor"),
        ({"optimizer": "lion_8bit", "adam_epsilon": 1e-6}, "adam_epsilon: no effect with optimizer: lion_8bit"),
        ({"eval_max_new_tokens": 64}, "eval_max_new_tokens: no effect without eval_table_size; set both or neither"),
    ],
)
def test_a_key_without_effect_is_refused_with_the_reason(
    write_config: WriteConfig, changes: dict[str, Any], message: str
) -> None:
    assert message in "\n".join(faults(write_config(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "lora_modules_to_save": [], "peft_use_dora": False},
        {"adapter": "lora", "lora_model_dir": "./adapter", "lora_r": 4, "lora_target_linear": False},
        {"load_in_4bit": True, **LORA, "bnb_config_kwargs": {"llm_int8_skip_modules": ["lm_head"]}},
        {"load_in_8bit": True, **LORA, "bnb_config_kwargs": {"llm_int8_threshold": 5.0}},
        {"optimizer": "lion_32bit", "adam_beta1": 0.8, "adam_beta2": 0.95},
        {"optimizer": "ademamix", "adam_beta1": 0.8, "adam_epsilon": 1e-6},
        {"optimizer": "sgd", "adam_beta1": 0.9},
        {"lr_scheduler": "constant", "warmup_steps": 0},
        {"default_system_message": "Be brief.", "datasets": [{"path": "x", "type": "sharegpt"}]},
        {"eot_tokens": ["<|im_end|>"], "test_datasets": [{"path": "x", "type": "chat_template"}]},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"early_stop": False}},
        {"model_revision": "main", "base_model": "some/model"},
    ],
    ids=lambda changes: ", ".join(name for name in changes if name not in LORA),
)
def test_a_key_with_an_effect_or_its_default_is_accepted_without_a_note(
    write_config: WriteConfig, changes: dict[str, Any]
) -> None:
    assert load_config(write_config(**changes)).source.notes == []


def test_a_folder_is_known_by_being_there_and_needs_no_revision(
    write_config: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_config(base_model="own/model", trust_remote_code=True)
    assert "pin the commit that you have read with model_revision" in faults(path)[0]
    (tmp_path / "own" / "model").mkdir(parents=True)
    assert load_config(path).model.base_is_folder
    assert "base_model is a folder here" in faults(path, "--model_revision=main")[0]
