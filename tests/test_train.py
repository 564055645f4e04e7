"""The whole story on a tiny model: what it learns, what it leaves, how it stops and goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.story import LORA, PACKED, UNFROZEN, metrics, train, write_run
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.attempt.state import read_state
from finetune.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config_file(tmp_path: Path, model_dir: Path) -> Path:
    return write_run(tmp_path, model_dir)


METHODS = {
    "lora": LORA,
    "4-bit": [*LORA, "--load_in_4bit=true"],
    "8-bit": [*LORA, "--load_in_8bit=true"],
    "dora": [*LORA, "--peft_use_dora=true"],
    "unfrozen": UNFROZEN,
    "full": [],
    "lora packed": [*LORA, *PACKED],
    "unfrozen packed": [*UNFROZEN, *PACKED, "--gradient_checkpointing=true"],
    "8-bit optimizer": ["--optimizer=adamw_8bit", "--gradient_accumulation_steps=2"],
    "by length": ["--group_by_length=true", "--optimizer=paged_adamw_8bit"],
}


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_training_learns_and_leaves_a_complete_folder(config_file: Path, changes: list[str]) -> None:
    out = train(config_file, *changes)

    losses = metrics(out, "eval_loss")
    assert losses[-1] < losses[0] - 0.2
    names = {file.name for file in out.iterdir()}
    weights = "adapter_model.safetensors" if LORA[0] in changes else "model.safetensors"
    assert {weights, "README.md", "metrics.jsonl", "loss.png", "config.resolved.yml", "data_report.json"} <= names
    assert "tokenizer.json" in names
    assert not list(out.rglob("training_args.bin"))


def test_a_4_bit_adapter_run_trains_nothing_but_the_adapter(config_file: Path, model_dir: Path) -> None:
    out = train(config_file, *LORA, "--load_in_4bit=true")

    assert all("lora_" in name for name in load_file(out / "adapter_model.safetensors"))
    assert "4-bit weights" in (out / "README.md").read_text()


def test_unfrozen_training_moves_only_what_the_patterns_name(config_file: Path, model_dir: Path) -> None:
    out = train(config_file, *UNFROZEN, "--weight_decay=0.1")

    before, after = load_file(model_dir / "model.safetensors"), load_file(out / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "mlp" in name or "embed_tokens" in name}
    rows = "model.embed_tokens.weight"
    assert torch.equal(before[rows][:5], after[rows][:5])
    assert not torch.equal(before[rows][5:], after[rows][5:])


def test_packing_changes_neither_the_samples_nor_the_first_loss(config_file: Path) -> None:
    """The whole data set in one step, once padded and once packed: the same loss over the same tokens."""
    whole = ["--max_steps=1", "--learning_rate=1e-4", "--warmup_steps=0", "--sequence_len=256"]
    padded = train(config_file, *whole, "--micro_batch_size=32", "--output_dir", str(config_file.parent / "padded"))
    packed = train(
        config_file,
        *whole,
        "--sample_packing=true",
        "--micro_batch_size=8",
        "--output_dir",
        str(config_file.parent / "packed"),
    )

    for name in ("loss", "grad_norm", "eval_loss"):
        assert metrics(packed, name) == pytest.approx(metrics(padded, name), rel=1e-5)


def test_a_saved_model_is_an_ordinary_folder(config_file: Path) -> None:
    out = train(config_file, "--chat_template=chatml")

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.use_cache is True
    assert "<|im_start|>" in tokenizer.chat_template
    ids = tokenizer("Capital of Norway, 3? ", return_tensors="pt")["input_ids"]
    assert model(ids).logits.isfinite().all()


def test_the_card_says_what_ran(config_file: Path) -> None:
    out = train(config_file, *LORA, "--micro_batch_size=2", "--eval_table_size=2", "--eval_max_new_tokens=4")

    card = (out / "README.md").read_text()
    assert "# the user's own comment" in card
    assert "- train_batch_size: 2\n" in card
    assert "micro_batch_size: 2" in card
    assert "fine-tuned version of `llama` on the rows.jsonl dataset" in card
    assert f"- Loss: {metrics(out, 'eval_loss')[-1]:.4f}" in card
    assert card.count("**Prompt") == 2
    assert (out / "samples.md").read_text().count("**After**") == 2


def test_the_card_counts_rows_of_test_datasets_beside_the_training_rows(config_file: Path) -> None:
    tests = config_file.parent / "test.jsonl"
    tests.write_text(json.dumps({"instruction": "Capital of Chile?", "output": "Santiago."}) + "\n")
    entry = f"[{{path: {tests}, type: {{no_input_format: '{{instruction}} '}}}}]"

    out = train(config_file, *LORA, "--val_set_size=0", f"--test_datasets={entry}", "--max_steps=1")

    assert "- Rows: 41 read, 41 kept (40 for training, 1 for evaluation)\n" in (out / "README.md").read_text()


def test_a_second_run_is_refused_and_replace_keeps_the_first(config_file: Path) -> None:
    out = train(config_file, *LORA, "--max_steps=1")

    with pytest.raises(ConfigError, match="holds another run"):
        train(config_file, *LORA, "--max_steps=1")
    train(config_file, *LORA, "--max_steps=1", replace=True)
    assert (out.parent / "out.previous-1" / "adapter_model.safetensors").is_file()


def test_data_without_an_answer_column_is_refused_before_anything_but_lock_and_state_are_written(
    config_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*(output|answer)"):
        train(config_file, "--datasets[0].type.field_output=answer")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [".lock", ".run-id", "run.json"]
    state = read_state(tmp_path / "out")
    assert state is not None
    assert (state.status, state.exit_code, state.retryable) == ("failed", 3, False)


def start(config_file: Path, *changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune", "train", str(config_file), *LORA, "--num_epochs=400", *changes]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(process: subprocess.Popen[str], folder: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    path = folder / "metrics.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if path.is_file() and path.read_text().count("\n") > 2:
            return
        time.sleep(0.1)
    raise AssertionError(process.communicate()[0] if process.poll() is not None else "no step in time")


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_saves_a_checkpoint_that_the_next_run_goes_on_from(
    config_file: Path, number: signal.Signals, exit_code: int
) -> None:
    process = start(config_file, "--evals_per_epoch=null", "--eval_strategy=no")
    wait_for_step(process, config_file.parent / "out")
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == exit_code, output
    assert f"stopped by {number.name} after step" in output
    state = read_state(config_file.parent / "out")
    assert state is not None
    assert (state.status, state.exit_code, state.retryable) == ("stopped", exit_code, True)
    step = max(int(path.name.split("-")[1]) for path in (config_file.parent / "out").glob("checkpoint-*"))
    out = train(
        config_file,
        *LORA,
        "--eval_strategy=no",
        "--evals_per_epoch=null",
        "--auto_resume_from_checkpoints=true",
        f"--max_steps={step + 2}",
        allowed=["num_epochs", "max_steps"],
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [*range(1, step + 3)]


def test_a_run_does_not_go_on_with_other_data(config_file: Path) -> None:
    first = train(config_file, *LORA, "--max_steps=2", "--save_steps=1")
    rows = config_file.parent / "rows.jsonl"
    rows.write_text(rows.read_text().replace("Oslo", "Bergen"))

    with pytest.raises(DataError) as caught:
        train(config_file, *LORA, "--save_steps=1", "--auto_resume_from_checkpoints=true", "--max_steps=2")

    said = "belongs to a run on other samples (32 of them, now 32): a data file, the tokenizer, an option or the code"
    assert str(caught.value).startswith(f"{first / 'checkpoint-2'} {said}")


def test_wandb_offline_records_the_run(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = train(config_file, *LORA, "--max_steps=2", "--wandb_project=p", "--wandb_name=n", "--wandb_watch=gradients")

    assert list((out / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_cannot_start_does_not_stop_the_run(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")

    out = train(config_file, *LORA, "--max_steps=1", "--wandb_project=p")

    assert (out / "adapter_model.safetensors").is_file()
