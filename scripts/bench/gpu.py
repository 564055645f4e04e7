"""How fast and how large training is on one GPU: Llama 8B and 1B shapes with random weights, no network needed.

    python scripts/bench/gpu.py [--cases NAME ...] [--steps 12] [--seconds 540] [--work FOLDER] [--write]
    python scripts/bench/gpu.py --device cpu --tiny      every step of it, with a tiny model

Each case is one `finetune train` on packed rows of 4096 tokens whose lengths are those of chats. The rates are those
of the later steps. The gradient's norm has to be above zero in each step and samples have to be isolated, or the case
is not counted. What `finetune estimate` expects stands beside the memory that was needed. Cases that would begin after
--seconds are left out by name.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import machine, table, write_section
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHAPES: dict[str, dict[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8},
}
LORA = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
EIGHT_BIT = {"optimizer": "adamw_bnb_8bit", "gradient_checkpointing": True}


@dataclass(frozen=True)
class Case:
    """One training, and the tokens per second of one H100 that it is to reach."""

    shape: str
    keys: dict[str, Any]
    goal: int | None = None


CASES = {
    "1B LoRA": Case("1B", LORA, 82_000),
    "1B full": Case("1B", {}),
    "8B LoRA": Case("8B", LORA, 15_000),
    "8B LoRA, checkpointing": Case("8B", {**LORA, "gradient_checkpointing": True}, 11_000),
    "8B QLoRA": Case("8B", {**LORA, "adapter": "qlora", "load_in_4bit": True, "gradient_checkpointing": True}),
    "8B full, 8-bit optimizer": Case("8B", EIGHT_BIT, 8_500),
}
TINY = {"tiny LoRA": Case("tiny", LORA), "tiny full": Case("tiny", {})}


def main() -> None:
    """Train each case, print the table, and write the section where that is asked for."""
    arguments = _arguments()
    cases = TINY if arguments.tiny else CASES
    sequence_len, deadline = (128 if arguments.tiny else 4096), time.monotonic() + arguments.seconds
    arguments.work.mkdir(parents=True, exist_ok=True)
    write_rows(arguments.work / "rows.jsonl", sequence_len, arguments.steps)
    rows, remarks = [], []
    for name in arguments.cases or cases:
        if time.monotonic() > deadline:
            remarks.append(f"{name}: left out, its time was over")
            continue
        try:
            rows.append(measure(name, cases[name], arguments, sequence_len))
            print(rows[-1], file=sys.stderr)
        except CaseFailedError as error:
            remarks.append(f"{name}: {error}")
            print(remarks[-1], file=sys.stderr)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    header = ["", "tokens/s", "goal on an H100", "MFU", "s per step", "peak GiB", "estimated GiB", "gradient norm"]
    lines = [
        f"{machine()}; {device}; torch {torch.__version__}. Packed rows of {sequence_len} tokens, random weights, "
        f"{arguments.steps} steps, medians of the later half.",
        "",
        table(header, rows),
        "",
        *(f"- {remark}" for remark in remarks),
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section("One GPU (`scripts/bench/gpu.py`)", "\n".join(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=[*CASES, *TINY], metavar="NAME")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=540.0, help="no case begins after this")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that everything works")
    parser.add_argument("--work", type=Path, default=Path(__file__).parents[2] / ".cache" / "bench" / "gpu")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is visible; --device cpu --tiny tries the script itself")
    return arguments


class CaseFailedError(Exception):
    """The case did not end well, or what it showed does not count."""


def measure(name: str, case: Case, arguments: argparse.Namespace, sequence_len: int) -> list[str]:
    """Train one case and return its row of the table.  Raises CaseFailedError."""
    words = _words(case, arguments, sequence_len)
    expected = _finetune("estimate", words, arguments, (0, 5))
    said = _finetune("train", [*words, "--replace"], arguments, (0,))
    if "they are isolated" not in said:
        raise CaseFailedError("packed samples were not found isolated")
    lines = (arguments.work / "out" / "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if "loss" in row]
    shutil.rmtree(arguments.work / "out")
    norms = [row["grad_norm"] for row in steps]
    if not all(norm > 0 for norm in norms):
        raise CaseFailedError(f"a gradient norm is not above zero: {norms}")
    late = steps[len(steps) // 2 :]
    rate, step, mfu = (
        statistics.median(row.get(key, 0.0) for row in late) for key in ("tokens_per_second", "step_time", "mfu")
    )
    peak = max(row["peak_memory_gb"] for row in steps) * 1e9 / 2**30
    estimated = re.search(r"([\d.]+) GiB", next((line for line in expected.splitlines() if "peak" in line.lower()), ""))
    goal = f"{case.goal:,}" if case.goal else ""
    found = estimated[1] if estimated else ""
    return [
        name,
        f"{rate:,.0f}",
        goal,
        f"{mfu:.1%}" if mfu else "",
        f"{step:.3f}",
        f"{peak:.1f}",
        found,
        f"{min(norms):.3g} to {max(norms):.3g}",
    ]


def _words(case: Case, arguments: argparse.Namespace, sequence_len: int) -> list[str]:
    given = {
        "base_model": str(make_model(arguments.work, case.shape, arguments.device)),
        "datasets": [{"path": str(arguments.work / "rows.jsonl"), "type": "pretokenized"}],
        "dataset_prepared_path": str(arguments.work / "prepared"),
        "output_dir": str(arguments.work / "out"),
        "sequence_len": sequence_len,
        "sample_packing": True,
        "micro_batch_size": 2 if arguments.device == "cuda" else 1,
        "gradient_accumulation_steps": 1,
        "max_steps": arguments.steps,
        "learning_rate": 1e-5,
        "lr_scheduler": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        **case.keys,
    }
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]


def _finetune(command: str, words: list[str], arguments: argparse.Namespace, codes: tuple[int, ...]) -> str:
    """Run one of our commands and return what it said.  Raises CaseFailedError."""
    config = arguments.work / "config.yml"
    config.write_text("micro_batch_size: 1\n")
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if arguments.device == "cpu" else {"CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "finetune", command, str(config), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **hidden, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode not in codes:
        raise CaseFailedError(
            f"finetune {command} ended with {done.returncode}: {' / '.join(done.stderr.splitlines()[-3:])}"
        )
    return done.stdout


def write_rows(path: Path, sequence_len: int, num_steps: int) -> None:
    """Write tokens of chats: lengths lognormal around an eighth of the sequence, the later half of each trained."""
    rng = np.random.default_rng(0)
    wanted = 3 * num_steps * sequence_len
    with path.open("w") as file:
        while wanted > 0:
            length = int(np.clip(rng.lognormal(np.log(sequence_len / 8), 0.8), 8, sequence_len))
            ids = rng.integers(3, 256, length)
            labels = np.where(np.arange(length) < length // 2, -100, ids)
            file.write(json.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}) + "\n")
            wanted -= length


def make_model(work: Path, shape: str, device: str) -> Path:
    """Save random weights in bfloat16 and a tokenizer of bytes, the first time."""
    folder = work / shape
    if (folder / "tokenizer.json").is_file():
        return folder
    vocab_size = 512 if shape == "tiny" else 128_256
    config = LlamaConfig(
        vocab_size=vocab_size,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500_000.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        dtype="bfloat16",
        **SHAPES[shape],
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    alphabet = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
