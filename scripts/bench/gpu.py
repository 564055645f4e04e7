"""How fast and how large training is on one GPU: Llama 8B and 1B shapes with random weights, no network needed.

    python scripts/bench/gpu.py [--cases NAME ...] [--steps 12] [--seconds 520] [--work FOLDER] [--write]
    python scripts/bench/gpu.py --device cpu --tiny      every step of it, with a tiny model

Each case is one `finetune train` on packed rows of 4096 tokens whose lengths are those of chats; TRL's SFTTrainer
trains the same rows beside it where trl can be imported. The rates are those of the later steps. The gradient's norm
has to be above zero in each step and samples have to be isolated, or the case is not counted. What `finetune estimate`
expects stands beside the memory that was needed; a case that it says does not fit is left out unless it is named. The
most telling cases come first, and --seconds ends them all.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
import time
from pathlib import Path

import torch
from gpu_training import Case, CaseFailedError, GpuBench, Measured
from random_model import write_rows
from results import machine, table, write_section

LORA = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
QLORA = {**LORA, "adapter": "qlora", "load_in_4bit": True, "gradient_checkpointing": True}
FULL_8B = {"optimizer": "adamw_bnb_8bit", "gradient_checkpointing": True}
COMPILED = {**LORA, "torch_compile": True}
FP8 = {"torch_compile": True, "bf16": True, "fp8": True}

CASES = {
    "8B LoRA": Case("8B", LORA, 15_000),
    "1B LoRA": Case("1B", LORA, 82_000),
    "8B QLoRA": Case("8B", QLORA),
    "8B full, 8-bit optimizer": Case("8B", FULL_8B, 8_500),
    "8B full, compiled, fp8, 8-bit optimizer": Case("8B", {**FULL_8B, **FP8}, 8_500, needs="torchao"),
    "8B LoRA, compiled": Case("8B", COMPILED, 15_000),
    "8B LoRA, TRL": Case("8B", LORA, needs="trl", with_trl="8B LoRA"),
    "8B LoRA, compiled, fp8": Case("8B", {**LORA, **FP8}, needs="torchao"),
    "1B LoRA, compiled": Case("1B", COMPILED, 82_000),
    "1B LoRA, TRL": Case("1B", LORA, needs="trl", with_trl="1B LoRA"),
    "8B LoRA, compiled, fp8 tensorwise": Case("8B", {**LORA, **FP8, "fp8": "tensorwise"}, needs="torchao"),
    "1B full": Case("1B", {}, 60_000),
    "8B LoRA, checkpointing": Case("8B", {**LORA, "gradient_checkpointing": True}, 11_000),
}
TINY = {
    "tiny LoRA": Case("tiny", LORA),
    "tiny LoRA, TRL": Case("tiny", LORA, needs="trl", with_trl="tiny LoRA"),
    "tiny LoRA, compiled": Case("tiny", COMPILED),
    "tiny full": Case("tiny", {}),
}
HEADER = ["", "tokens/s", "goal on an H100", "MFU", "s per step", "peak GiB", "estimated GiB", "gradient norm"]


def main() -> None:
    """Train each case, print the table, and write the section where that is asked for."""
    arguments = _arguments()
    sequence_len = 128 if arguments.tiny else 4096
    deadline = time.monotonic() + arguments.seconds
    bench = GpuBench(arguments.work, arguments.device, sequence_len, arguments.steps, deadline)
    bench.work.mkdir(parents=True, exist_ok=True)
    write_rows(bench.work / "rows.jsonl", sequence_len, 3 * arguments.steps * sequence_len)
    found, remarks = measure_all(bench, TINY if arguments.tiny else CASES, arguments.cases)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    lines = [
        f"{machine()}; {device}; {_versions()}. Packed rows of {sequence_len} tokens, {bench.batch} in a step, random "
        f"weights, {arguments.steps} steps, medians of the later half.",
        "",
        table(HEADER, [_row(name, case, measured) for name, (case, measured) in found.items()]),
        "",
        *(f"- {remark}" for remark in [*_ratios(found), *remarks]),
    ]
    print("\n".join(lines))
    if arguments.write:
        write_section("One GPU (`scripts/bench/gpu.py`)", "\n".join(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=[*CASES, *TINY], metavar="NAME")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=520.0, help="all cases end within these")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that everything works")
    parser.add_argument("--work", type=Path, default=Path(__file__).parents[2] / ".cache" / "bench" / "gpu")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is visible; --device cpu --tiny tries the script itself")
    return arguments


Found = dict[str, tuple[Case, Measured]]


def measure_all(bench: GpuBench, cases: dict[str, Case], chosen: list[str] | None) -> tuple[Found, list[str]]:
    """Return what was measured of each case by its name, and why others were not."""
    found: Found = {}
    remarks = []
    for name in chosen or cases:
        case, began = cases[name], time.monotonic()
        try:
            found[name] = (case, _measure(bench, case, chosen is not None))
        except CaseFailedError as error:
            remarks.append(f"{name}: {error}")
        said = " | ".join(_row(name, *found[name])) if name in found else remarks[-1]
        print(f"{said} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
    return found, remarks


def _measure(bench: GpuBench, case: Case, is_named: bool) -> Measured:
    if time.monotonic() > bench.deadline:
        raise CaseFailedError("left out, the time of all cases was over")
    if case.needs and importlib.util.find_spec(case.needs) is None:
        raise CaseFailedError(f"left out, {case.needs} is not installed")
    return bench.measure_trl(case) if case.with_trl else bench.measure(case, even_if_too_large=is_named)


def _row(name: str, case: Case, measured: Measured) -> list[str]:
    return [
        name,
        f"{measured.tokens_per_second:,.0f}",
        f"{case.goal:,}" if case.goal else "",
        f"{measured.mfu:.1%}" if measured.mfu else "",
        f"{measured.step_seconds:.3f}",
        f"{measured.peak_gib:.1f}" if measured.peak_gib else "",
        f"{measured.estimated_gib:.1f}" if measured.estimated_gib else "",
        f"{min(measured.norms):.3g} to {max(measured.norms):.3g}",
    ]


def _ratios(found: Found) -> list[str]:
    """Say how fast we are beside TRL, for each case that both have."""
    own = {name: measured for name, (case, measured) in found.items() if not case.with_trl}
    return [
        f"{name} over TRL's SFTTrainer: {ours.tokens_per_second / theirs.tokens_per_second:.2f}x the tokens/s"
        for case, theirs in found.values()
        for name, ours in own.items()
        if case.with_trl and name.startswith(case.with_trl)
    ]


def _versions() -> str:
    names = ["torch", "transformers", "peft", "trl", "torchao", "flash-attn", "liger-kernel", "bitsandbytes"]
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names if name in installed)


if __name__ == "__main__":
    main()
