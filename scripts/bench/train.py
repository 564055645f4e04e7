"""How fast training steps are: ours beside a bare loop, the HF Trainer, TRL and LLaMA-Factory, and their losses.

    python scripts/bench/train.py [MODEL] [--repeats 3] [--steps 6] [--only CASE ...] [--quick] [--write]

Every program trains MODEL (a folder, see scripts/get_model.py) on the same prepared rows in the same order with the
same learning rate, in turns, on all cores. The first step is left out of the rates. Then the way from the command to
the end of the first step is taken on 50 short chats, and our techniques are switched on one after another.
--quick makes few and short runs, to see that everything works. --write puts the result into RESULTS.md.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from environments import HERE, PEERS, Installed, install, own_versions
from measure import RunFailedError
from results import machine, table, write_section

from training import BARE, HF, OURS, Case, Outcome, TrainingBench

ROOT = HERE.parents[1]
CASES = [Case(adapter, packed, bf16) for adapter in (True, False) for packed in (False, True) for bf16 in (False, True)]
WITH_PEERS = [case for case in CASES if case.packed == case.bf16]
"""Cases in which every program takes part; in the others ours and the bare loop."""

DENSE = "(packed, with a dense mask and sdpa instead)"
"""The rung that the next one does not stand on."""
PLAIN = {"chunked_cross_entropy": "false", "attn_implementation": "sdpa"}
LADDER: dict[str, tuple[Case, Mapping[str, str]]] = {
    "padded, float32, logits of the whole batch, sdpa": (Case(True, False, False), PLAIN),
    "+ loss in chunks, at trained positions": (Case(True, False, False), {"attn_implementation": "sdpa"}),
    "+ no padding, attention sample by sample": (Case(True, False, False), {}),
    "+ packed": (Case(True, True, False), {}),
    DENSE: (Case(True, True, False), {"attn_implementation": "sdpa"}),
    "+ bfloat16": (Case(True, True, True), {}),
    "+ compiled layers": (Case(True, True, True), {"torch_compile": "true"}),
}
"""Each technique on top of the ones before; the bare loop on padded batches is the ground."""
LADDER_NOTE = (
    "Rates of the second half of the steps, when the layers are compiled. Our padded batches with a mask are filled to "
    "a multiple of 64 tokens, the bare loop's to their longest row."
)

Runs = dict[tuple[str, str], list[Outcome]]


def main() -> None:
    """Measure, print, and write the section where that is asked for."""
    arguments = _arguments()
    found = {peer.name: install(peer, arguments.environments) for peer in PEERS if peer.trains}
    bench = TrainingBench(
        arguments.work.resolve(),
        arguments.model.resolve(),
        {name: peer for name, peer in found.items() if isinstance(peer, Installed)},
        num_steps=3 if arguments.quick else arguments.steps,
        threads=os.cpu_count() or 1,
    )
    absent = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    bench.prepare()
    cases = [case for case in CASES if not arguments.only or case.name in arguments.only]
    repeats = 1 if arguments.quick else arguments.repeats
    tools = [OURS, BARE, HF, *bench.peers]
    steps: Runs = {}
    starts: Runs = {}
    ladder: Runs = {}
    for repeat in range(repeats):
        for case in cases:
            for tool in tools if case in WITH_PEERS else [OURS, BARE]:
                _try(steps, (case.name, tool), absent, lambda tool=tool, case=case: bench.train(tool, case))
        for tool in tools:
            _try(starts, ("start", tool), absent, lambda tool=tool: bench.start(tool))
        for name, (case, keys) in {} if arguments.only else LADDER.items():
            if repeat and arguments.quick:
                continue
            _try(ladder, (name, OURS), absent, lambda case=case, keys=keys: bench.train(OURS, case, keys))
    lines = [
        f"Machine: {machine()}; load {os.getloadavg()[0]:.1f} at the end. {arguments.model.name}, {bench.threads} "
        f"threads, {bench.num_steps} steps of about {bench.tokens_per_step:.0f} tokens a run (the first is not "
        f"counted), medians of {repeats} runs in turns.",
        "",
        *(f"- {words}" for words in [own_versions(), *(peer.versions for peer in bench.peers.values())]),
        *(f"- {name}: {reason}" for name, reason in absent.items()),
        "",
        "### Steps",
        "",
        _steps(steps),
        "",
        "The first column is the time for a trained token over the bare loop's: less than 1 is faster. Total tokens "
        "are those of the data, without padding. Packed, TRL makes packs of its own of the same rows, and the "
        "others get ours. The bare loop and the HF Trainer attend over packed rows by `position_ids` and sdpa.",
        "",
        "### Losses of the first steps",
        "",
        _losses(steps),
        "",
        "### From the command to the end of the first step",
        "",
        _starts(starts),
        "",
        "LoRA on 50 short chats, sequences of 256; preparing the data is part of it.",
    ]
    if ladder:
        lines += ["", "### One technique after another (LoRA)", "", _ladder(ladder, steps), "", LADDER_NOTE]
    print("\n".join(lines))
    if arguments.write:
        write_section("Training (`scripts/bench/train.py`)", "\n".join(lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "models" / "SmolLM2-135M-Instruct")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a run")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--environments", type=Path, default=ROOT / ".cache" / "bench" / "environments")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench" / "train")
    parser.add_argument("--quick", action="store_true", help="one short run of everything")
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    return parser.parse_args()


def _try(runs: Runs, key: tuple[str, str], absent: dict[str, str], train: Callable[[], Outcome]) -> None:
    """Add one training to ``runs``; one that fails is noted in ``absent`` and not tried again."""
    label = ", ".join(word for word in key if word)
    if key[1] in absent or label in absent:
        return
    try:
        outcome = train()
    except RunFailedError as error:
        absent[label] = f"does not run: {error}"
        print(f"{label}: {error}", file=sys.stderr)
        return
    runs.setdefault(key, []).append(outcome)
    rate = f", {outcome.trained_rate:.1f} trained tokens/s" if len(outcome.times) > 1 else ""
    print(f"{label}: first step after {outcome.first_step:.1f} s{rate}", file=sys.stderr)


def _median(outcomes: list[Outcome], value: Callable[[Outcome], float]) -> float:
    return statistics.median(value(outcome) for outcome in outcomes)


def _steps(runs: Runs) -> str:
    rows = []
    for (case, tool), outcomes in sorted(
        runs.items(), key=lambda item: [name.name for name in CASES].index(item[0][0])
    ):
        rate = _median(outcomes, lambda run: run.trained_rate)
        bare = runs.get((case, BARE))
        ratio = f"{_median(bare, lambda run: run.trained_rate) / rate:.2f}" if bare else ""
        figures = [rate, _median(outcomes, lambda run: run.total_rate)]
        step, peak = _median(outcomes, lambda run: run.step_seconds), _median(outcomes, lambda run: run.peak_mb)
        rows.append([case, tool, ratio, *(f"{figure:,.0f}" for figure in figures), f"{step:.2f}", f"{peak:,.0f}"])
    header = ["", "", "time, bare loop = 1", "trained tokens/s", "total tokens/s", "s per step", "peak MB"]
    return table(header, rows)


def _losses(runs: Runs) -> str:
    num_shown = min(4, *(len(outcomes[0].losses) for outcomes in runs.values()))
    rows = [
        [case, tool, *(f"{loss:.6f}" for loss in outcomes[0].losses[:num_shown])]
        for (case, tool), outcomes in sorted(runs.items(), key=lambda item: item[0][0])
    ]
    return table(["", "", *(f"step {number + 1}" for number in range(num_shown))], rows)


def _starts(runs: Runs) -> str:
    bare = runs.get(("start", BARE))
    rows = []
    for (_, tool), outcomes in runs.items():
        seconds = _median(outcomes, lambda run: run.first_step)
        ratio = f"{seconds / _median(bare, lambda run: run.first_step):.2f}" if bare else ""
        rows.append([tool, ratio, f"{seconds:.1f}", f"{_median(outcomes, lambda run: run.cpu_seconds):.1f}"])
    return table(["", "bare script = 1", "s to the first step", "CPU s, whole run of two steps"], rows)


def _ladder(runs: Runs, steps: Runs) -> str:
    ground = steps.get((next(iter(LADDER.values()))[0].name, BARE))
    rows, before = [], None
    if ground:
        before = _median(ground, lambda run: run.trained_rate)
        rows.append(["bare loop, padded, float32", f"{before:,.0f}", "", ""])
    first = before
    for (name, _), outcomes in runs.items():
        rate = _median(outcomes, lambda run: run.late_rate)
        gains = [f"{rate / other:.2f}" if other else "" for other in (before, first)]
        rows.append([name, f"{rate:,.0f}", *gains])
        first = first or rate
        before = before if name == DENSE else rate
    return table(["", "trained tokens/s", "over the row above", "over the first row"], rows)


if __name__ == "__main__":
    main()
