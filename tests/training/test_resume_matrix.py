"""From every saved step of several epochs, whatever trains: the rest of the run is the same to the last bit."""

from pathlib import Path

import pytest
from tests.story import LORA, train, write_run

from finetune.training.agreement import RunTrace, compare_runs
from finetune.training.ledger import LEDGER

SHORT = ("--val_set_size=0", "--evals_per_epoch=null", "--save_steps=1", "--save_total_limit=99", "--num_epochs=3")
METHODS = {
    "LoRA with dropout": (*LORA, "--lora_dropout=0.1", "--gradient_accumulation_steps=2"),
    "full": ("--gradient_accumulation_steps=2", "--weight_decay=0.1"),
    "4-bit": (*LORA, "--load_in_4bit=true", "--lora_dropout=0.1", "--gradient_accumulation_steps=2"),
    "packed, rows of the embedding": (
        "--unfrozen_parameters=[mlp, '^model.embed_tokens.weight$[5:]']",
        "--sample_packing=true",
        "--micro_batch_size=2",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_checkpoint_leads_to_the_same_end(
    tmp_path: Path, tiny_llama: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file = write_run(tmp_path, tiny_llama)
    rows = config_file.parent / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:13]))  # a prime: no batch comes out even

    def run(name: str, *words: str) -> RunTrace:
        ledger = tmp_path / f"ledger {name}"
        ledger.mkdir()
        monkeypatch.setenv(LEDGER, str(ledger))
        return RunTrace(ledger, train(config_file, *METHODS[method], *SHORT, *words, f"--output_dir={tmp_path / name}"))

    whole = run("whole")
    saved = sorted(int(path.name.split("-")[1]) for path in whole.output_dir.glob("checkpoint-*"))
    assert len(saved) in (3, 6)
    wrong = []
    for step in saved[:-1]:
        resumed = run(f"from {step}", f"--resume_from_checkpoint={whole.output_dir / f'checkpoint-{step}'}")
        wrong += [f"{step}: {found}" for found in compare_runs(whole, resumed, step) if not found.identical]
    assert wrong == []
