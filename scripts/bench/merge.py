"""Merging a LoRA adapter: finetune beside PEFT, and Axolotl where it is installed.

    python scripts/bench/merge.py [--rounds 3] [--layers 24] [--axolotl /path/to/its/python] [--work FOLDER]

Makes a random Llama (bfloat16, about 2.35 GB with 24 layers, in six files) and a random adapter of rank 16 on every
linear layer, merges it with each program in turn, in processes of their own, and compares the weights bit by bit.
Prints the table and writes it into RESULTS.md.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, get_peft_model
from random_model import save_llama
from results import machine, write_section
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, output = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output, max_shard_size="450MB")
AutoTokenizer.from_pretrained(base).save_pretrained(output)
"""


@dataclass
class Measured:
    """What the runs of one program took."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    equal: str = ""


def make_model(folder: Path, num_layers: int) -> None:
    """Save a random Llama with a word-level tokenizer of a few words."""
    words = {word: index for index, word in enumerate(["<s>", "</s>", "<pad>", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    shape = {
        "vocab_size": 32_000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    }
    save_llama(folder, "cpu", shape, max_shard_size="450MB")


def make_adapter(base: Path, folder: Path) -> None:
    """Save an adapter of rank 16 on every linear layer, with numbers as training leaves them."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=targets))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float() + 0.01 * torch.randn(parameter.shape)
    adapted.save_pretrained(folder)


def measure(command: list[str], into: Measured) -> None:
    """Run ``command`` and note its time and the largest memory of it and its children together."""
    before, start = os.times(), time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        peak = anonymous = 0
        while process.poll() is None:
            resident, own = tree_memory(process.pid)
            peak, anonymous = max(peak, resident), max(anonymous, own)
            time.sleep(0.02)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)}\n{log.read().decode(errors='replace')[-2000:]}")
    after = os.times()
    into.seconds.append(time.monotonic() - start)
    into.cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    into.peak.append(peak)
    into.anonymous.append(anonymous)


def tree_memory(root: int) -> tuple[int, int]:
    """Resident and anonymous kilobytes of a process and all below it."""
    resident = anonymous = 0
    pids = [root]
    while pids:
        pid = pids.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pids += [int(child) for child in children.split()]
        sizes = {
            line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon"))
        }
        resident += int(sizes.get("VmRSS", 0))
        anonymous += int(sizes.get("RssAnon", 0))
    return resident, anonymous


def tensors(folder: Path) -> dict[str, Path]:
    """Which file of a model folder holds each tensor."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            found.update(dict.fromkeys(handle.keys(), file))
    return found


def compare(folder: Path, other: Path) -> str:
    """Say how many tensors of the two are equal bit for bit."""
    ours, theirs = tensors(folder), tensors(other)
    equal = 0
    for name in ours.keys() & theirs.keys():
        with safe_open(ours[name], framework="pt") as one, safe_open(theirs[name], framework="pt") as two:
            first, second = one.get_tensor(name), two.get_tensor(name)
            equal += first.dtype == second.dtype and torch.equal(first, second)
    return f"{equal} of {len(ours.keys() | theirs.keys())} tensors"


def configuration(work: Path) -> Path:
    """Write the YAML that finetune and Axolotl read."""
    values = {
        "base_model": str(work / "base"),
        "adapter": "lora",
        "lora_r": 16,
        "lora_alpha": 32,
        "datasets": [{"path": "rows.jsonl", "type": "alpaca"}],
        "learning_rate": 1e-4,
        "micro_batch_size": 1,
        "bf16": True,
        "lora_model_dir": str(work / "adapter"),
        "output_dir": str(work / "out"),
    }
    path = work / "config.yml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def programs(work: Path, axolotl: str | None) -> dict[str, tuple[list[str], Path]]:
    """Command and output folder of each program."""
    config = str(configuration(work))
    ours = [sys.executable, "-m", "finetune", "merge-lora", config]
    found = {
        "finetune, --no-verify": ([*ours, "--no-verify", "--output", str(work / "ours")], work / "ours"),
        "PEFT merge_and_unload": (
            [sys.executable, "-c", PEFT, str(work / "base"), str(work / "adapter"), str(work / "peft")],
            work / "peft",
        ),
        "finetune, verifying": ([*ours, "--output", str(work / "verified")], work / "verified"),
    }
    if axolotl:
        command = [axolotl, "-m", "axolotl.cli.merge_lora", config, f"--output-dir={work / 'axolotl'}"]
        found["Axolotl merge-lora"] = (command, work / "axolotl" / "merged")
    return found


def table(results: dict[str, Measured], size: float, rounds: int, axolotl: str | None) -> str:
    """Render what was measured."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "peft"))
    lines = [
        f"A random Llama of {size:.2f} GB in bfloat16, adapter of rank 16 on every linear layer; {machine()}; "
        f"{packages}; median of {rounds} interleaved rounds, start of Python included. Memory is that of the process "
        "and its children.",
        "",
        "| | seconds | CPU seconds | peak memory | of it anonymous | equal to PEFT |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in results.items():
        median = statistics.median
        lines.append(
            f"| {name} | {median(measured.seconds):.1f} | {median(measured.cpu):.1f} "
            f"| {max(measured.peak) / 1000:,.0f} MB | {max(measured.anonymous) / 1000:,.0f} MB | {measured.equal} |"
        )
    if not axolotl:
        lines += ["", "Axolotl was not measured: it was not installed (`--axolotl` takes a Python that has it)."]
    return "\n".join(lines)


def main() -> None:
    """Make the model, run the programs in turn, compare and write."""
    parser = argparse.ArgumentParser(description="Time and memory of merging an adapter.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--axolotl", help="the Python that Axolotl is installed for")
    parser.add_argument("--work", type=Path, help="folder for the models; default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        if not (work / "adapter").is_dir():
            make_model(work / "base", options.layers)
            make_adapter(work / "base", work / "adapter")
        runs = programs(work, options.axolotl)
        results = {name: Measured() for name in runs}
        for _ in range(options.rounds):
            for name, (command, output) in runs.items():
                shutil.rmtree(output, ignore_errors=True)
                measure(command, results[name])
        for name, (_, output) in runs.items():
            results[name].equal = compare(output, runs["PEFT merge_and_unload"][1])
        report = json.loads((runs["finetune, verifying"][1] / "merge.json").read_text(encoding="utf-8"))["verification"]
        size = sum(file.stat().st_size for file in (work / "base").glob("*.safetensors")) / 1e9
        text = table(results, size, options.rounds, options.axolotl)
        merged = report["merged"]
        text += (
            f"\n\nThe verification's own figures: largest difference of a logit {merged['max_difference']:.3g} "
            f"(bound {report['bound']:.3g}), KL {merged['kl']:.2g}, same first choice at {merged['top1']:.1%} of "
            f"{report['num_positions']} positions."
        )
        print(text)
        write_section("Merging an adapter: `scripts/bench/merge.py`", text)


if __name__ == "__main__":
    main()
