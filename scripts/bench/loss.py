"""What the loss made in chunks saves on a real model: memory and CPU time of a step, with and without it.

    python scripts/bench/loss.py --model FOLDER [--write]

Both ways go through the same model and the same batch, 2,048 tokens of which half are trained, in turn.  ``--write``
puts the table into scripts/bench/ESTIMATE.md.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from results import machine, table, write_section

from estimate import LORA, RESULTS, Case, apart, build, make_batch, make_step, peak_bytes

ROUNDS = 3
VARIANTS = {
    "fp32": {"bf16": False},
    "bf16": {"bf16": True},
    "bf16, checkpointing": {"bf16": True, "gradient_checkpointing": True},
}


@dataclass(frozen=True)
class Way:
    """One way to the loss, measured."""

    peak: int
    """Bytes beyond the weights."""
    cpu_seconds: float
    """Of a step, median."""


def main() -> None:
    """Measure both number formats, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    keys = {"base_model": str(options.model), "sequence_len": 2048, "sample_packing": True, **LORA}
    rows = []
    for name, more in VARIANTS.items():
        chunked, whole = apart(measure, Case("", {**keys, **more, "micro_batch_size": 1}))
        rows.append(row(f"{options.model.name}, LoRA, {name}", chunked, whole))
    header = ["run", "peak, MB", "with full logits", "ratio", "CPU s a step", "with full logits", "ratio"]
    text = (
        f"{machine()}; torch {torch.__version__}, transformers {transformers.__version__}. Steps on 2,048 tokens in "
        f"samples of 512, the last half of each trained; medians of {ROUNDS} interleaved steps. The peak is that of "
        "all tensors but the weights; full logits are those at trained positions (chunked_cross_entropy: false).\n\n"
        f"{table(header, rows)}\n"
    )
    sys.stdout.write(text)
    if options.write:
        write_section("The loss in chunks", text, RESULTS)


def measure(case: Case) -> tuple[Way, Way]:
    """Return the chunked way and the one of full logits."""
    transformers.logging.disable_progress_bar()
    setup, trainable = build(case.keys)
    batch = make_batch(setup, trainable, case.sample_len, trained=0.5)
    ways = (trainable, replace(trainable, head=None))
    steps = [make_step(way, batch) for way in ways]
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for step, found in zip(steps, seconds, strict=True):
            started = time.process_time()
            step()
            found.append(time.process_time() - started)
    chunked, whole = (
        Way(peak_bytes(way, batch), statistics.median(found)) for way, found in zip(ways, seconds, strict=True)
    )
    return chunked, whole


def row(name: str, chunked: Way, whole: Way) -> list[str]:
    """Return a line of the table."""
    return [
        name,
        f"{chunked.peak / 1e6:,.0f}",
        f"{whole.peak / 1e6:,.0f}",
        f"{whole.peak / chunked.peak:.2f}",
        f"{chunked.cpu_seconds:.1f}",
        f"{whole.cpu_seconds:.1f}",
        f"{whole.cpu_seconds / chunked.cpu_seconds:.2f}",
    ]


if __name__ == "__main__":
    main()
