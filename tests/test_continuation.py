"""Going on from a checkpoint: refused under other values, or under them because the user says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.story import LORA, metrics, train, write_run
from tests.tiny import save_tiny_llama

from finetune.errors import ConfigError, DataError

STEADY = ("--lr_scheduler=constant", "--warmup_steps=0")
ON = "--auto_resume_from_checkpoints=true"
QUICK = ("--evals_per_epoch=null", "--eval_strategy=no", "--val_set_size=0", "--save_steps=3")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_run(tmp_path, save_tiny_llama(tmp_path / "llama"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def test_each_value_that_changed_is_named_with_what_to_do(config_file: Path) -> None:
    train(config_file, *LORA, *QUICK, "--max_steps=3")

    with pytest.raises(ConfigError) as caught:
        train(config_file, *LORA, *QUICK, ON, "--max_steps=3", "--learning_rate=0.5", "--seed=7", "--weight_decay=0.1")
    first, *middle, last = str(caught.value).splitlines()
    assert first.endswith("checkpoint-3 belongs to a run with other values, and what is saved goes on with them:")
    assert middle == [
        "  seed: 42 -> 7 (cannot change in the middle of a run: rows are dealt out by it, and the run is in the "
        "middle of an epoch)",
        "  learning_rate: 0.01 -> 0.5",
        "  weight_decay: 0.0 -> 0.1",
    ]
    assert last == (
        "Take these changes back; to go on with them, which is recorded, add --allow-changed "
        "learning_rate,weight_decay; or start anew with --replace or another output_dir"
    )


def test_an_allowed_learning_rate_is_the_one_that_trains(config_file: Path) -> None:
    """With plain SGD the rest of the run can be had in another way: from the checkpoint's weights."""
    sgd = (*QUICK, *STEADY, "--optimizer=sgd", "--max_grad_norm=0", "--max_steps=6")
    out = train(config_file, *sgd)
    before, unchanged = weights(out / "checkpoint-3"), weights(out)
    train(
        config_file,
        *sgd,
        f"--output_dir={config_file.parent / 'faster'}",
        f"--resume_from_checkpoint={out / 'checkpoint-3'}",
        "--max_steps=4",
        "--learning_rate=0.02",
        allowed=["learning_rate"],
    )
    train(
        config_file,
        *sgd,
        f"--output_dir={config_file.parent / 'same'}",
        f"--resume_from_checkpoint={out / 'checkpoint-3'}",
        "--max_steps=4",
    )

    faster, same = weights(config_file.parent / "faster"), weights(config_file.parent / "same")
    assert not all(torch.equal(unchanged[name], same[name]) for name in same)
    for name in before:
        torch.testing.assert_close(faster[name] - before[name], 2 * (same[name] - before[name]), rtol=1e-4, atol=2e-6)


def test_what_changed_is_written_down_everywhere(config_file: Path) -> None:
    out = train(config_file, *LORA, *QUICK, *STEADY, "--max_steps=3")
    train(config_file, *LORA, *QUICK, *STEADY, ON, "--max_steps=6", "--learning_rate=0.02", allowed=["all"])
    train(config_file, *LORA, *QUICK, *STEADY, ON, "--max_steps=7", "--learning_rate=0.02")

    line = "after step 3: learning_rate: 0.01 -> 0.02"
    assert (out / "config.resolved.yml").read_text().startswith(f"# changed {line}\n# model\n")
    assert f"\n- changed {line.replace('>', '&gt;')}\n" in (out / "README.md").read_text()
    rows = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["changed"] for row in rows if "changed" in row] == [["learning_rate: 0.01 -> 0.02"]]
    assert metrics(out, "learning_rate") == [0.01] * 3 + [0.02] * 4
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6, 7]


def test_a_longer_run_under_a_falling_learning_rate_has_to_be_asked_for(config_file: Path) -> None:
    """The rate goes on as the schedule over the new length has it, where the old one had come to its end."""
    out = train(config_file, *LORA, *QUICK, "--max_steps=6")
    with pytest.raises(ConfigError, match="max_steps: 6 -> 9\n"):
        train(config_file, *LORA, *QUICK, ON, "--max_steps=9")
    train(config_file, *LORA, *QUICK, ON, "--max_steps=9", allowed=["max_steps"])
    rates = metrics(out, "learning_rate")
    whole = train(config_file, *LORA, *QUICK, "--max_steps=9", f"--output_dir={config_file.parent / 'whole'}")

    assert rates[6:] == metrics(whole, "learning_rate")[6:]
    assert rates[5] < rates[6]


def test_other_weights_under_the_same_name_are_refused(config_file: Path) -> None:
    train(config_file, *LORA, *QUICK, "--max_steps=3")
    base = config_file.parent / "llama"
    moved = shutil.copytree(base, config_file.parent / "moved")
    train(config_file, *LORA, *QUICK, ON, "--max_steps=3", f"--base_model={moved}")

    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"base_model \(content\)\.model\.safetensors: \w{16} -> \w{16}\n"):
        train(config_file, *LORA, *QUICK, ON, "--max_steps=3")


def test_an_option_of_the_data_may_change_where_the_samples_stay_the_same(config_file: Path) -> None:
    run = (*LORA, *QUICK, "--max_steps=3", ON)
    train(config_file, *run)
    copied = shutil.copy(config_file.parent / "rows.jsonl", config_file.parent / "copied.jsonl")
    moved = f"datasets[0].path={copied}"

    with pytest.raises(ConfigError, match=r"datasets\[0\]\.path: .*rows.jsonl -> .*copied.jsonl\n"):
        train(config_file, *run, moved)
    train(config_file, *run, moved, allowed=["datasets"])
    with Path(copied).open("a") as file:
        file.write('{"instruction": "One more?", "output": "Yes."}\n')
    with pytest.raises(
        DataError, match=r"checkpoint-3 belongs to a run on other samples \(40 of them, now 41\): .* cannot be allowed"
    ):
        train(config_file, *run, moved, allowed=["all"])


def test_in_a_stream_nothing_about_the_data_may_change(config_file: Path) -> None:
    run = (*LORA, *QUICK, "--streaming=true", "--max_steps=3", "--num_epochs=1", ON)
    train(config_file, *run)

    with pytest.raises(ConfigError, match=r"sequence_len: 128 -> 64 \(cannot change in the middle of a run: the run"):
        train(config_file, *run, "--sequence_len=64", allowed=["all"])


def test_a_damaged_record_beside_a_foreign_checkpoint_says_nothing(config_file: Path) -> None:
    """Without a manifest the record of the folder counts, and where there is none nothing is known."""
    out = train(config_file, *LORA, *QUICK, *STEADY, "--max_steps=3")
    alone = config_file.parent / "alone" / "checkpoint-3"
    shutil.copytree(out / "checkpoint-3", alone)
    (alone / "manifest.json").unlink()
    again = f"--resume_from_checkpoint={alone}"
    other = f"--output_dir={config_file.parent / 'other'}"
    train(config_file, *LORA, *QUICK, *STEADY, "--max_steps=4", "--weight_decay=0.1", again, other)

    for name in ("config.resolved.yml", "surroundings.json", "data_report.json"):
        shutil.copy(out / name, alone.parent)
    with pytest.raises(ConfigError, match=r"weight_decay: 0\.0 -> 0\.1"):
        train(config_file, *LORA, *QUICK, *STEADY, "--max_steps=4", "--weight_decay=0.1", again, other)
