"""A18, A19, A20: one loss, however the batch is laid out, packed, or evaluated."""

import json
import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tests.distributed.runs import largest_difference
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from reliability.forks import run
from reliability.record import Row, joined, listed
from reliability.resume import deepspeed_file
from reliability.runs import COLUMNS, ROWS, Case, Lab, ledger
from reliability.stock import Stock, stock

LOSS_BOUND, WEIGHT_BOUND = 1e-6, 1e-5
NUM_EVALUATED = 37
BATCH_SIZES = (1, 2, 3, 8)
EIGHT = {"num_epochs": 2, "save_strategy": "no", "save_steps": None}


def plain_model(lab: Lab) -> Path:
    """Return the Llama without dropout, whose masks would depend on the layout."""
    folder = lab.folder / "plain-llama"
    return folder if folder.is_dir() else save_tiny_llama(folder)


def layouts(lab: Lab) -> Row:
    """A18."""
    zero1, zero3 = deepspeed_file(lab, 1), deepspeed_file(lab, 3)
    found: list[tuple[str, int, int, int, str | None]] = [
        ("1 × 8 × 1", 1, 8, 1, None),
        ("1 × 4 × 2", 1, 4, 2, None),
        ("1 × 2 × 4", 1, 2, 4, None),
        ("1 × 1 × 8", 1, 1, 8, None),
        ("2 × 4 × 1", 2, 4, 1, None),
        ("2 × 2 × 2", 2, 2, 2, None),
        ("ZeRO-1, 2 × 2 × 2", 2, 2, 2, zero1),
        ("ZeRO-3, 2 × 2 × 2", 2, 2, 2, zero3),
    ]
    found = found[: lab.count(8, 5)]
    cases, failures = [], []
    for name, world_size, micro, passes, deepspeed in found:
        changes = {"micro_batch_size": micro, "gradient_accumulation_steps": passes, "deepspeed": deepspeed}
        case = lab.case(f"a18-{len(cases)}", base_model=str(plain_model(lab)), **EIGHT, **changes)
        done = case.run(world_size=world_size)
        failures += [f"{name}: {done.last_words}"] if done.exit_code else []
        cases.append(case)
    if failures:
        return Row("A18", "one global batch of 8 laid out in different ways", len(found), 0, listed(failures))
    spread, weights = _spread(cases)
    good = spread <= LOSS_BOUND and weights <= WEIGHT_BOUND
    return Row(
        "A18",
        "one global batch of 8 rows of uneven length, laid out in different ways (processes × rows × passes)",
        len(found),
        len(found) if good else 0,
        f"{len(found)} layouts: losses of 10 steps within {spread:.1e}, final weights within {weights:.1e}",
        figures={"loss": spread, "weights": weights},
    )


def _spread(cases: list[Case]) -> tuple[float, float]:
    """Return how far the losses, and the final weights, of runs are from the first one's."""
    first, *others = (ledger(case.out) for case in cases)
    losses = [
        abs(one[1] / two[1] - 1) if one[0] == two[0] else float("inf")
        for other in others
        for one, two in zip(first, other, strict=True)
    ]
    weights = [largest_difference(cases[0].out, case.out) for case in cases[1:]]
    return max(losses), max(weights)


def packing(lab: Lab) -> Row:
    """A19."""
    backends = ("sdpa", "eager")[: lab.count(2, 1)]
    figures: dict[str, float] = {}
    failures = []
    for backend in backends:
        shared: Mapping[str, Any] = {
            "base_model": str(plain_model(lab)),
            **EIGHT,
            "attn_implementation": backend,
            "gradient_accumulation_steps": 1,
            "sequence_len": 2048,
            "num_epochs": 4,
        }
        unpacked = lab.case(f"a19-{backend}-unpacked", **shared, micro_batch_size=len(ROWS))
        packed = lab.case(f"a19-{backend}-packed", **{**shared, "micro_batch_size": 1}, sample_packing=True)
        ends = [unpacked.run(), packed.run()]
        failures += [f"{backend}: {end.last_words}" for end in ends if end.exit_code]
        if not failures:
            loss, weights = _spread([unpacked, packed])
            figures[backend] = max(loss, weights)
            failures += [f"{backend}: differs by {figures[backend]:.1e}"] if figures[backend] > WEIGHT_BOUND else []
    seen = ", ".join(f"{backend} {value:.1e}" for backend, value in figures.items())
    return Row(
        "A19",
        "all 40 rows in one packed sequence against 40 padded rows, 4 steps",
        len(backends),
        len(backends) - len(failures),
        joined(f"largest difference of losses and final weights: {seen}", listed(failures)),
        figures={"packed": max(figures.values(), default=float("nan"))},
    )


def evaluation(lab: Lab) -> Row:
    """A20."""
    rows = lab.folder / "evaluated.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in _uneven()))
    layouts = list(product((1, 2), BATCH_SIZES))[: lab.count(8, 4)]
    errors, failures = [], []
    for world_size, size in layouts:
        case = lab.case(
            f"a20-{world_size}-{size}",
            base_model=str(plain_model(lab)),
            val_set_size=None,
            test_datasets=[{"path": str(rows), "type": COLUMNS, "split": "train"}],
            sequence_len=256,
            eval_batch_size=size,
            max_steps=8,
            save_strategy="no",
            save_steps=None,
        )
        done = case.run(world_size=world_size)
        if done.exit_code:
            failures.append(f"{world_size} × {size}: {done.last_words}")
            continue
        errors.append(abs(_logged(case.out) / brute_force(case.out, rows) - 1))
    failures += [f"an error of {error:.1e}" for error in errors if error > LOSS_BOUND]
    return Row(
        "A20",
        f"validation loss of {NUM_EVALUATED} rows against brute force, batches of {BATCH_SIZES}, 1 and 2 processes",
        len(layouts),
        len(layouts) - len(failures),
        joined(f"largest relative error {max(errors, default=0):.1e}", listed(failures)),
        _stock_evaluation(lab, rows),
        {"error": max(errors, default=float("nan"))},
    )


def _uneven() -> list[dict[str, str]]:
    """Return rows whose answers have one to forty words, the longest last."""
    return [
        {"instruction": f"Count to {n} in {row['output']}", "output": " ".join(f"{k}" for k in range(1, 2 + n))}
        for n, row in enumerate(ROWS[:NUM_EVALUATED])
    ]


def _logged(out: Path) -> float:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    value: float = [line["eval_loss"] for line in lines if "eval_loss" in line][-1]
    return value


def brute_force(folder: Path, rows: Path) -> float:
    """Return the summed cross entropy of all trained tokens by their number, one row at a time, in float64."""
    found = folder / "brute-force"

    def work() -> int:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        total, count = 0.0, 0
        for sample in Stock(folder, rows, folder).samples(tokenizer):
            ids, labels = torch.tensor([sample["input_ids"]]), torch.tensor(sample["labels"])[1:]
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            count += int((labels != -100).sum())
        found.write_text(repr(total / count))
        return 0

    done = run(work, folder.with_suffix(".brute"))
    if done.exit_code:
        raise RuntimeError(done.last_words)
    return float(found.read_text())


def _stock_evaluation(lab: Lab, rows: Path) -> str:
    """Evaluate the same rows with ``Trainer.evaluate``."""
    script = stock(lab, "a20")
    shutil.copytree(plain_model(lab), script.out)
    exact = brute_force(script.out, rows)
    errors: dict[int, list[float]] = {1: [], 2: []}
    for world_size, size in list(product((1, 2), BATCH_SIZES))[:: lab.count(1, 3)]:
        found = script.out / "eval-loss"

        def work(size: int = size, found: Path = found) -> int:
            trainer = Stock(script.out, rows, script.out).trainer(per_device_eval_batch_size=size)
            loss = trainer.evaluate()["eval_loss"]
            if trainer.is_world_process_zero():
                found.write_text(repr(loss))
            return 0

        done = run(work, script.out.with_suffix(".log"), world_size)
        errors[world_size].append(float(found.read_text()) / exact - 1 if not done.exit_code else float("nan"))
    return "; ".join(
        f"{count} process{'es' if count > 1 else ''}: {min(found):+.1%} to {max(found):+.1%}"
        for count, found in errors.items()
        if found
    )
