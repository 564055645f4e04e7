"""However many processes share a global batch, and however ZeRO shards it: the same losses, the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.distributed.runs import LORA, Case, largest_difference, metrics, run_cases

ROWS = ("--unfrozen_parameters=[mlp, '^model.embed_tokens.weight$[5:211]']", "--weight_decay=0.1")
PACKED = ("--sample_packing=true", "--eval_sample_packing=true")
CHECKPOINTED = ("--gradient_checkpointing=true",)
METHODS = {
    "full padded": (),
    "lora padded": LORA,
    "4-bit lora packed": (*LORA, *PACKED, "--load_in_4bit=true", *CHECKPOINTED),
    "unfrozen packed": (*ROWS, *PACKED, *CHECKPOINTED),
}
"""Padded: 38 rows in global batches of 8, so the last step of an epoch has 6.  Packed: 15 bins in batches of 4."""

LAYOUTS = {
    "2 processes": (2, 2, None),
    "4 processes": (4, 1, None),
    "2 processes, ZeRO-1": (2, 2, 1),
    "2 processes, ZeRO-2": (2, 1, 2),
    "2 processes, ZeRO-3": (2, 2, 3),
    "4 processes, ZeRO-3": (4, 1, 3),
    "1 process, ZeRO-1": (1, 2, 1),
}
"""Processes, accumulation and ZeRO stage of one global batch."""


def case(config: Path, method: str, layout: str | None) -> Case:
    world_size, accumulation, stage = LAYOUTS[layout] if layout else (1, 1, None)
    global_batch = 4 if PACKED[0] in METHODS[method] else 8
    micro = global_batch // world_size // accumulation
    changes = [*METHODS[method], f"--micro_batch_size={micro}", f"--gradient_accumulation_steps={accumulation}"]
    if stage is not None:
        changes.append(f"--deepspeed=zero{stage}.json")
    return Case(config, f"{method} {layout or 'alone'}", world_size, tuple(changes))


@pytest.fixture(scope="module")
def grid(run_config: Path) -> dict[tuple[str, str | None], Case]:
    cases = {(method, layout): case(run_config, method, layout) for method in METHODS for layout in (None, *LAYOUTS)}
    run_cases(list(cases.values()))
    return cases


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_numbers_are_those_of_one_process(
    grid: dict[tuple[str, str | None], Case], method: str, layout: str
) -> None:
    alone, spread = grid[method, None], grid[method, layout]
    assert spread.exit_codes == [0] * spread.world_size, spread.log

    for name in ("loss", "eval_loss"):
        assert metrics(spread.out, name) == pytest.approx(metrics(alone.out, name), rel=2e-6)
    assert metrics(spread.out, "grad_norm") == pytest.approx(metrics(alone.out, "grad_norm"), rel=1e-4)
    assert largest_difference(alone.out, spread.out) < 1e-5
    assert {file.name for file in spread.out.iterdir()} >= {file.name for file in alone.out.glob("*.*")}


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if "2 processes" in layout])
def test_rows_outside_a_range_stay_bit_for_bit(
    grid: dict[tuple[str, str | None], Case], run_config: Path, layout: str
) -> None:
    before = load_file(run_config.parent / "llama" / "model.safetensors")["model.embed_tokens.weight"]
    after = load_file(grid["unfrozen packed", layout].out / "model.safetensors")["model.embed_tokens.weight"]

    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[211:], after[211:])
    assert not torch.equal(before[5:211], after[5:211])


def test_the_main_process_alone_speaks_and_says_who_takes_part(grid: dict[tuple[str, str | None], Case]) -> None:
    spread = grid["unfrozen packed", "2 processes, ZeRO-3"]
    log = spread.log

    assert log.count("processes: 2, ZeRO-3") == 1
    assert log.count("check samples: side by side they are isolated") == 1
    assert log.count("  lr ") == len(metrics(spread.out, "loss"))


def test_the_card_counts_the_processes(grid: dict[tuple[str, str | None], Case]) -> None:
    card = (grid["full padded", "4 processes"].out / "README.md").read_text()

    assert "- distributed_type: multi-CPU\n- num_devices: 4\n" in card
    assert "- total_train_batch_size: 8\n- total_eval_batch_size: 8\n" in card
    assert "num_devices" not in (grid["full padded", None].out / "README.md").read_text()
