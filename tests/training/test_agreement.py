"""Two runs are the same to the last bit, or the first difference is named with its size."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from finetune.training.agreement import Finding, RunTrace, compare_runs, compare_weights, within_spread

ROW = {
    "batches": ["a", "b"],
    "random": "r",
    "loss": (2.0).hex(),
    "grad_norm": (1.0).hex(),
    "learning_rate": (0.1).hex(),
}


def trace(folder: Path, *changed: dict[str, Any], weights: float = 1.0) -> RunTrace:
    """Write three steps of two processes, each step changed as said."""
    folder.mkdir()
    for rank in (0, 1):
        rows = [{"step": step, **ROW, **change} for step, change in enumerate(changed, 1)]
        (folder / f"{rank}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file({"x": torch.tensor([1.0, weights])}, folder / "model.safetensors")
    return RunTrace(folder, folder)


def test_equal_runs_are_identical_in_everything(tmp_path: Path) -> None:
    found = compare_runs(trace(tmp_path / "a", {}, {}, {}), trace(tmp_path / "b", {"loss": "0x1p9"}, {}, {}), after=1)

    assert all(finding.identical for finding in found)
    assert [str(finding) for finding in found] == [
        "batches: identical (2 steps)",
        "random states: identical (2 steps)",
        "learning rate: identical (2 steps)",
        "loss: identical (2 steps)",
        "gradient norm: identical (2 steps)",
        "final weights: identical (1 tensors)",
    ]


def test_the_first_difference_and_the_largest_are_named(tmp_path: Path) -> None:
    other = trace(tmp_path / "b", {}, {"loss": (2.5).hex()}, {"loss": (4.0).hex(), "batches": ["a", "c"]}, weights=1.25)
    found = compare_runs(trace(tmp_path / "a", {}, {}, {}), other, after=0)

    assert [str(finding) for finding in found if not finding.identical] == [
        "batches: differs from step 3 on",
        "loss: differs from step 2 on, by up to 2",
        "final weights: differs from tensor x on, by up to 0.25",
    ]


def test_a_step_that_only_one_run_took_is_a_difference(tmp_path: Path) -> None:
    found = compare_runs(trace(tmp_path / "a", {}, {}, {}), trace(tmp_path / "b", {}, {}), after=1)

    assert [finding.where for finding in found] == ["step 3"] * 5 + [""]


def test_no_steps_at_all_are_no_agreement(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert not all(
        finding.identical
        for finding in compare_runs(
            RunTrace(tmp_path / "a", tmp_path / "a"), RunTrace(tmp_path / "b", tmp_path / "b"), after=0
        )
    )


def test_weights_of_another_shape_or_name_differ_without_bound(tmp_path: Path) -> None:
    for name, tensors in (("a", {"x": torch.ones(2)}), ("b", {"x": torch.ones(3)}), ("c", {"y": torch.ones(2)})):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")

    assert compare_weights(tmp_path / "a", tmp_path / "b").difference == float("inf")
    assert compare_weights(tmp_path / "a", tmp_path / "c").where == "tensor x"


def test_a_difference_counts_by_what_two_runs_differ_by_anyhow() -> None:
    loss, usual = Finding("loss", 3, "step 2", 1.5), Finding("loss", 3, "step 2", 1.0)
    batches = Finding("batches", 3, "step 2", is_number=False)

    assert within_spread([loss], [usual])
    assert not within_spread([Finding("loss", 3, "step 2", 2.5)], [usual])
    assert not within_spread([loss], [Finding("loss", 3)])
    assert not within_spread([batches], [batches])
