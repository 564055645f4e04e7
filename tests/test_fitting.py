"""What says auto in a real run, and the line for who has run out of memory."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from tests.story import LORA, metrics, train, write_run
from tests.tiny import save_tiny_llama

from finetune.config import load_config
from finetune.config.run import RESOLVED
from finetune.estimate.devices import host_bytes
from finetune.fitting import estimate_line, memory_share, plan_memory, settle_auto

AUTO = [*LORA, "--micro_batch_size=auto", "--batch_size=8", "--gradient_checkpointing=auto"]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_run(tmp_path, save_tiny_llama(tmp_path / "model"))


def resolved(folder: Path) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load((folder / RESOLVED).read_text())
    return values


def test_the_loss_is_the_same_for_every_split(config_file: Path) -> None:
    folders = {
        micro: train(
            config_file,
            *LORA,
            f"--micro_batch_size={micro}",
            "--batch_size=8",
            f"--output_dir={config_file.parent / str(micro)}",
        )
        for micro in (1, 2, 8)
    }
    first, *others = (metrics(folder, "loss") for folder in folders.values())
    for losses in others:
        assert losses == pytest.approx(first, rel=1e-4)


def test_a_run_decides_what_says_auto_and_writes_it_down(config_file: Path) -> None:
    folder = train(config_file, *AUTO)
    values = resolved(folder)
    assert (values["micro_batch_size"], values["gradient_accumulation_steps"]) == (8, 1)
    assert values["gradient_checkpointing"] is False


def test_a_run_that_goes_on_keeps_the_split_of_the_first(config_file: Path) -> None:
    fixed = [*LORA, "--micro_batch_size=2", "--batch_size=8", "--save_steps=2", "--num_epochs=1"]
    whole = train(config_file, *fixed)
    before = load_file(whole / "adapter_model.safetensors")
    going_on = [*AUTO, "--save_steps=2", "--num_epochs=1", f"--resume_from_checkpoint={whole / 'checkpoint-2'}"]
    again = train(config_file, *going_on, f"--output_dir={config_file.parent / 'again'}")
    assert resolved(again)["micro_batch_size"] == 2
    after = load_file(again / "adapter_model.safetensors")
    assert all(before[name].equal(after[name]) for name in before)


def test_nothing_is_read_where_nothing_says_auto(config_file: Path) -> None:
    config = load_config(config_file, ["--base_model=./not/there"])
    assert settle_auto(config, lambda _: None) is config


def test_the_line_for_running_out_of_memory_says_what_was_needed_and_for_what(config_file: Path) -> None:
    line = estimate_line(load_config(config_file, ["--sequence_len=1048576"]))
    gib = host_bytes() / 2**30
    assert line.startswith("By the estimate this run needs ")
    assert f"of {gib:.1f} GiB (activations " in line
    assert line.endswith(f"finetune estimate {config_file} shows all of it, and what fits")


def test_a_model_that_is_not_known_has_no_estimate(config_file: Path) -> None:
    file = config_file.parent / "model" / "config.json"
    file.write_text(file.read_text().replace('"hidden_size"', '"other_size"'))
    config = load_config(config_file)
    assert plan_memory(config) is None
    assert memory_share(config) in (0, 1)
    assert estimate_line(config) == ""
