"""What a step did is written down to the last bit, and two runs are compared by it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.story import LORA, metrics, train, write_run

from finetune.training.ledger import KILLED_AT, LEDGER, batch_digest, open_ledger, read_ledger


def test_no_ledger_is_kept_unless_the_environment_asks(tmp_path: Path) -> None:
    assert open_ledger({}, 0) == []
    (kept,) = open_ledger({LEDGER: str(tmp_path), KILLED_AT: "4"}, 1)
    assert (kept.path, kept.killed_at) == (tmp_path / "1.jsonl", 4)


def test_a_digest_changes_with_every_value_shape_and_name() -> None:
    batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[1, 2]]), "use_cache": False}
    others = [
        {**batch, "labels": torch.tensor([[1, 3]])},
        {**batch, "labels": torch.tensor([[1], [2]])},
        {**batch, "labels": torch.tensor([[1, 2]], dtype=torch.int32)},
        {"input_ids": batch["input_ids"], "targets": batch["labels"]},
    ]
    digests = {batch_digest(other) for other in [batch, *others]}
    assert len(digests) == 5
    assert batch_digest(dict(reversed(batch.items()))) == batch_digest(batch)


def test_each_step_has_its_batches_and_its_numbers(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LEDGER, str(tmp_path))
    config_file = write_run(tmp_path, tiny_llama)
    out = train(config_file, *LORA, "--max_steps=3", "--gradient_accumulation_steps=2", "--lora_dropout=0.1")

    rows = read_ledger(tmp_path)
    assert list(rows) == [1, 2, 3]
    assert [len(step[0]["batches"]) for step in rows.values()] == [2, 2, 2], "validation is not noted"
    assert len({digest for step in rows.values() for digest in step[0]["batches"]}) == 6
    assert len({step[0]["random"] for step in rows.values()}) == 3
    assert [float.fromhex(step[0]["loss"]) for step in rows.values()] == metrics(out, "loss")


def test_a_process_kills_itself_where_it_is_told_to(tmp_path: Path, tiny_llama: Path) -> None:
    config_file = write_run(tmp_path, tiny_llama)
    code = f"""if True:
        import os
        os.environ |= {{"{LEDGER}": {str(tmp_path)!r}, "{KILLED_AT}": "3"}}
        from finetune.cli import main
        main(["train", {str(config_file)!r}, "--save_steps=2", "--evals_per_epoch=null"])
    """
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert finished.returncode == -signal.SIGKILL, finished.stderr
    rows = [json.loads(line) for line in (tmp_path / "0.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert (tmp_path / "out" / "checkpoint-2").is_dir()
