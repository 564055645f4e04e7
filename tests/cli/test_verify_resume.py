"""``finetune verify-resume`` proves a resume on the user's own set-up, in a folder beside the run's."""

from pathlib import Path

import pytest
from tests.conftest import Finetune, WriteConfig
from tests.story import LORA, write_run
from tests.tiny import save_tiny_llama


@pytest.fixture(autouse=True)
def on_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_killed_run_goes_on_exactly(tmp_path: Path, finetune: Finetune) -> None:
    config_file = write_run(tmp_path, save_tiny_llama(tmp_path / "llama"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("stays")
    outcome = finetune("verify-resume", config_file, *LORA, "--lora_dropout=0.1", "--steps", 4, "--at", 2)

    assert outcome.exit_code == 0, outcome.out + outcome.err
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "1. 4 steps without a break",
        "2. the same, killed by SIGKILL in step 3",
        "3. gone on from checkpoint-2 with the same command and --resume",
    ]
    assert lines[3:9] == [
        "   batches: identical (2 steps)",
        "   random states: identical (2 steps)",
        "   learning rate: identical (2 steps)",
        "   loss: identical (2 steps)",
        "   gradient norm: identical (2 steps)",
        "   final weights: identical (28 tensors)",
    ]
    assert lines[9] == "RESUME IS EXACT: steps 3 to 4 and the final weights are the same to the last bit"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yml", "llama", "out", "prepared", "rows.jsonl"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "6"], "--at 6 leaves no step to compare; give at most 5, or more --steps"),
        (["--num-machines", "2"], "verify-resume runs on one machine; leave --num-machines out"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    finetune: Finetune, write_config: WriteConfig, words: list[str], message: str
) -> None:
    outcome = finetune("verify-resume", write_config(), *words)
    assert (outcome.exit_code, outcome.err) == (2, f"finetune: {message}\n")


def test_a_launcher_cannot_start_it(
    finetune: Finetune, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    outcome = finetune("verify-resume", write_config())
    assert outcome.err.startswith("finetune: verify-resume starts and kills processes itself, and a launcher has")


def test_a_run_that_fails_hands_its_exit_code_and_words_on(
    tmp_path: Path, finetune: Finetune, write_config: WriteConfig
) -> None:
    outcome = finetune("verify-resume", write_config(output_dir=str(tmp_path / "out")))

    assert outcome.exit_code == 4
    assert "verify-resume: the run (whole) ended with exit code 4:\n" in outcome.err
    assert "base_model: there is no folder" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]
