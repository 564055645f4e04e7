import importlib
from importlib.resources import files

import pytest
import yaml

FOLDER = files("finetune.config")
TEXT = FOLDER.joinpath("axolotl_keys.yml").read_text(encoding="utf-8")
KEYS = yaml.safe_load(TEXT)
EXAMPLES = {
    "fsdp_config": "result",
    "rl": "result",
    "dpo_beta": "result",
    "lora_rank_pattern": "result",
    "relora": "result",
    "pretraining_sample_concatenation": "result",
    "tensor_parallel_size": "result",
    "evaluation_strategy": "result",
    "lora_mlp_kernel": "hint",
    "liger_cross_entropy": "hint",
    "cut_cross_entropy": "hint",
    "torch_compile_mode": "hint",
    "dataloader_num_workers": "hint",
    "mlflow_tracking_uri": "hint",
    "hub_token": "secret",
    "comet_api_key": "secret",
    "swanlab_api_key": "secret",
}


def our_keys() -> set[str]:
    """Return the top-level keys of every section class."""
    names = [path.name.removesuffix(".py") for path in FOLDER.iterdir() if path.name.endswith(".py")]
    modules = [importlib.import_module(f"finetune.config.{name}") for name in names]
    section = importlib.import_module("finetune.config.section").Section
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {
        field
        for model in classes
        if issubclass(model, section) and model.__name__.endswith("Section")
        for field in model.model_fields
    }


@pytest.mark.parametrize("name", KEYS)
def test_every_foreign_key_has_an_effect_and_an_advice(name: str) -> None:
    entry = KEYS[name]
    assert {"effect", "advice"} <= set(entry) <= {"effect", "advice", "default"}
    assert entry["effect"] in {"result", "hint", "secret"}
    # the advice stands inside a sentence of the loader
    assert 10 < len(entry["advice"]) < 100
    assert not entry["advice"].endswith(".")


def test_no_key_is_written_twice() -> None:
    written = [line.split(":")[0] for line in TEXT.splitlines() if line and not line.startswith("#")]
    assert len(written) == len(set(written)) == len(KEYS)


def test_no_key_is_both_ours_and_foreign() -> None:
    ours = our_keys()
    assert {"base_model", "datasets", "lora_r", "output_dir"} <= ours
    assert ours & set(KEYS) == set()


@pytest.mark.parametrize(("name", "effect"), EXAMPLES.items(), ids=EXAMPLES)
def test_known_keys_have_the_right_effect(name: str, effect: str) -> None:
    assert KEYS[name]["effect"] == effect


@pytest.mark.parametrize("name", [name for name, entry in KEYS.items() if entry["effect"] == "secret"])
def test_secrets_point_to_an_environment_variable(name: str) -> None:
    assert any(word.strip("()").isupper() and "_" in word for word in KEYS[name]["advice"].split())
