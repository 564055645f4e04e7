"""What a save costs: with manifest, hashes and fsync, beside that of the stock Trainer."""

import shutil
import time
from pathlib import Path

from tests.tiny import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.data.files import sync
from finetune.training.checkpoints.manifest import MANIFEST, content, seal
from reliability.forks import run
from reliability.record import Row, not_shown
from reliability.runs import Lab, published
from reliability.stock import Stock, stock

NUM_SAVES = 5


def save_overhead(lab: Lab) -> Row:
    """Compare runs that save at each of five steps with runs that do not save."""
    if lab.short:
        return not_shown("–", "what a save costs", "in the full form")
    model = _larger_model(lab)
    shared = {"base_model": str(model), "max_steps": NUM_SAVES, "num_epochs": None, "save_total_limit": 2}
    saving = lab.case("save", **{**shared, "save_steps": 1})
    idle = lab.case("no-save", **{**shared, "save_steps": None, "save_strategy": "no"})
    idle.run()  # prepares the data
    without = idle.run("--replace").seconds
    ends = [saving.run()]
    newest = saving.out / f"checkpoint-{NUM_SAVES}"
    ours = (ends[0].seconds - without) / NUM_SAVES
    theirs = _stock(lab, model)
    size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6 if newest.is_dir() else 0.0
    sealing = _seal_seconds(newest) if size else 0.0
    good = ends[0].exit_code == 0 and NUM_SAVES in published(saving.out)
    return Row(
        "–",
        f"a save of {size:.0f} MB, from runs with and without saves",
        1,
        int(good),
        f"{1000 * ours:.0f} ms, of which hashes and fsync of what is already written {1000 * sealing:.0f} ms"
        if good
        else ends[0].last_words,
        f"{1000 * theirs:.0f} ms",
        {"ms": 1000 * ours, "stock_ms": 1000 * theirs, "sealing_ms": 1000 * sealing},
    )


def _larger_model(lab: Lab) -> Path:
    folder = lab.folder / "larger-llama"
    width = 512

    def work() -> int:
        tokenizer = tiny_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=6,
            num_attention_heads=8,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return 0

    run(work, folder.with_suffix(".log"))
    return folder


def _stock(lab: Lab, model: Path) -> float:
    """Return the seconds of one save."""
    script = stock(lab, "save")
    larger = Stock(model, lab.rows, script.out)
    without = larger.run(max_steps=NUM_SAVES, save_strategy="no").seconds
    shutil.rmtree(script.out, ignore_errors=True)
    return (larger.run(max_steps=NUM_SAVES, save_steps=1).seconds - without) / NUM_SAVES


def _seal_seconds(folder: Path) -> float:
    """Hash and fsync a whole checkpoint once more."""
    files = [path for path in content(folder) if path.name != MANIFEST]
    started = time.monotonic()
    seal(files, folder)
    for path in [*files, folder]:
        sync(path)
    return time.monotonic() - started
