"""The two published runs, verbatim but for their paths."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.conftest import SHARED, needs_shared
from tests.tiny import save_tiny_llama
from transformers import AutoTokenizer

from finetune.config import load_config
from finetune.narration import Narrator
from finetune.train import run


def train(config_file: Path, *changes: str) -> Path:
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere:
        return run(load_config(config_file, list(changes)), Narrator(Console(file=nowhere)))


@needs_shared
def test_the_formula_seed_runs_on_its_own_file(tmp_path: Path) -> None:
    """Verbatim but for the paths, with the tiny tokenizer in the place of Llama's."""
    base = save_tiny_llama(tmp_path / "llama")
    changes = [
        f"--base_model={base}",
        f"--datasets[0].path={SHARED / 'data' / 'formula_train.jsonl'}",
        f"--output_dir={tmp_path / 'out'}",
        "--deepspeed=null",
        "--special_tokens.pad_token=<pad>",
        f"--dataset_prepared_path={tmp_path / 'prepared'}",
    ]
    out = train(SHARED / "seeds" / "formula_llama_3_1_8b_4bits_r4.yml", *changes, "--max_steps=6")

    report: dict[str, Any] = json.loads((out / "data_report.json").read_text())
    assert (report["num_train"], report["num_validation"]) == (784, 16)
    card = (out / "README.md").read_text()
    assert "| No log        |" in card
    assert "- optimizer: Use OptimizerNames.ADAMW_TORCH_FUSED with betas=(0.9,0.999) and epsilon=1e-08" in card


@needs_shared
def test_the_dolphin_seed_runs_packed_with_its_added_tokens(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "llama", num_layers=32, dtype=torch.bfloat16)
    changes = [
        f"--base_model={base}",
        f"--datasets[0].path={SHARED / 'data' / 'dummy_conversation.json'}",
        f"--output_dir={tmp_path / 'out'}",
        "--deepspeed=null",
        f"--dataset_prepared_path={tmp_path / 'prepared'}",
    ]
    out = train(SHARED / "seeds" / "dolphin-2.9.4-llama3.1-8b.yml", *changes, "--max_steps=1", "--sequence_len=512")

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token) == (
        "<|im_end|>",
        "<|begin_of_text|>",
        "<|finetune_right_pad_id|>",
    )
    weights = load_file(out / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape[0] == len(tokenizer)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "- lr_scheduler_warmup_steps: 100" in (out / "README.md").read_text()
