"""The DeepSpeed file: where it is found, what is wrong with it, what the YAML fills in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.sections import training_section

from finetune.config.distributed import DistributedSection
from finetune.errors import ConfigError
from finetune.model.precision import Precision
from finetune.training.deepspeed import find_deepspeed, load_deepspeed, resolve_deepspeed, shipped_folder


def resolve(settings: dict[str, Any], *, dtype: torch.dtype = torch.float32, cpu: bool = False, **changes: Any) -> Any:
    section = training_section(micro_batch_size=2, gradient_accumulation_steps=3, **changes)
    return resolve_deepspeed((Path("zero.json"), settings), section, Precision(dtype), 4, cpu=cpu)


def test_the_file_beside_the_yaml_is_taken_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "yaml", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "my.json").write_text("{}")
    monkeypatch.chdir(here)

    assert find_deepspeed("my.json", beside / "config.yml") == beside / "my.json"
    (beside / "my.json").unlink()
    assert find_deepspeed("my.json", beside / "config.yml") == here / "my.json"


@pytest.mark.parametrize("name", ["deepspeed_configs/zero1.json", "zero1.json"])
def test_a_shipped_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_deepspeed(name, tmp_path / "config.yml") == shipped_folder() / "zero1.json"


def test_a_missing_file_is_named_with_the_places_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"zerro1\.json \(in .*config\.yml\) is not there.*Did you mean 'zero1\.json'"
    ):
        find_deepspeed("deepspeed_configs/zerro1.json", tmp_path / "config.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1,\n}', r"bad\.json:3:1: not JSON: .*\(named by deepspeed: in .*config\.yml\)"),
        ("[]", r"bad\.json:1:1: DeepSpeed settings are a JSON object"),
    ],
)
def test_bad_json_is_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text)

    with pytest.raises(ConfigError, match=message):
        load_deepspeed(DistributedSection(deepspeed="bad.json"), tmp_path / "config.yml")


def test_without_the_key_there_is_no_deepspeed(tmp_path: Path) -> None:
    assert load_deepspeed(DistributedSection(), tmp_path / "config.yml") is None


@pytest.mark.parametrize(
    "auto", [{}, {"train_batch_size": "auto", "gradient_clipping": "auto"}], ids=["left out", "auto"]
)
def test_what_the_file_leaves_open_comes_from_the_yaml(auto: dict[str, str]) -> None:
    settings = resolve(auto, dtype=torch.bfloat16, max_grad_norm=0.5)

    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert settings["gradient_accumulation_steps"] == 3
    assert settings["train_batch_size"] == 24
    assert settings["gradient_clipping"] == 0.5
    assert (settings["bf16"]["enabled"], settings["fp16"]["enabled"]) == (True, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu is 8, and micro_batch_size is 2"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps is 1, and gradient_accumulation_steps is 3"),
        ({"train_batch_size": 6}, "train_batch_size is 6, and micro_batch_size x .* x 4 processes is 24"),
        ({"gradient_clipping": 0.3}, "gradient_clipping is 0.3, and max_grad_norm is 1"),
        ({"bf16": {"enabled": True}}, r"bf16\.enabled is true, and this run computes in float32"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler is given, and lr_scheduler is cosine; remove the block"),
        ({"optimizer": {"type": "Lamb"}}, r"optimizer\.type is Lamb, and optimizer is adamw_torch_fused"),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1.0}}},
            r"optimizer\.params\.lr is 1\.0, and learning_rate is 0\.001",
        ),
        ({"zero_optimization": {"stage": 4}}, r"zero_optimization\.stage is 4; it is 0, 1, 2 or 3"),
    ],
)
def test_a_value_that_contradicts_the_yaml_is_named_with_its_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^zero\.json contradicts the YAML:.*{message}"):
        resolve(settings)


def test_bfloat16_in_the_file_becomes_float32_on_a_cpu() -> None:
    assert resolve({"bf16": {"enabled": True}}, cpu=True)["bf16"] == {"enabled": False}


def test_8_bit_products_and_zero_3_are_refused() -> None:
    section, precision = training_section(), Precision(torch.bfloat16, fp8="rowwise")
    found = (Path("zero3.json"), {"zero_optimization": {"stage": 3}})

    with pytest.raises(ConfigError, match=r"^zero3.json: zero_optimization.stage is 3, and fp8 .* use ZeRO-1 or 2, or"):
        resolve_deepspeed(found, section, precision, 4, cpu=False)


def test_the_settings_read_are_left_as_they_were() -> None:
    settings = json.loads('{"bf16": {"enabled": "auto"}}')
    resolve(settings)

    assert settings == {"bf16": {"enabled": "auto"}}


def test_a_credential_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """DeepSpeed would write it into every checkpoint."""
    path = tmp_path / "zero.json"
    path.write_text(json.dumps({"comet": {"api_key": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"}}))

    with pytest.raises(ConfigError) as caught:
        load_deepspeed(DistributedSection(deepspeed=str(path)), tmp_path / "config.yml")
    assert str(caught.value).startswith(f"{path}: comet.api_key: looks like a Hugging Face token")
    assert "hf_abc" not in str(caught.value)
