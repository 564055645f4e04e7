"""A number that is not finite on one process stops all of them before the update, whichever engine trains."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distributed.runs import LORA, Case, run_cases, write_run
from tests.tiny import tiny_tokenizer

ROW = (*LORA, "--save_steps=1", "--save_total_limit=99", "--evals_per_epoch=null", "--eval_strategy=no")
GRADIENT = (*ROW, "--base_model=huge")

CASES: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "row": (None, ROW),
    "row ZeRO-1": (1, ROW),
    "row ZeRO-3": (3, ROW),
    "gradient": (None, GRADIENT),
    "gradient ZeRO-0": (0, GRADIENT),
    "gradient ZeRO-1": (1, GRADIENT),
    "gradient ZeRO-3": (3, GRADIENT),
}
"""ZeRO stage and changes, two processes each."""


def copy_base(base: Path, name: str, changes: dict[str, list[tuple[object, float]]]) -> None:
    """Write a copy of a base beside it, with parts of its tensors changed."""
    copy = base.with_name(name)
    copy.mkdir()
    for file in base.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = load_file(base / "model.safetensors")
    for tensor, places in changes.items():
        for place, value in places:
            weights[tensor][place] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """A base that cannot read "@", which one row has, and one whose gradient is too large for a float."""
    folder = tmp_path_factory.mktemp("non_finite")
    config = write_run(folder)
    (token,) = tiny_tokenizer().encode("@", add_special_tokens=False)
    head = [((slice(0, None, 2), 0), 1e36), ((slice(1, None, 2), 0), -1e36)]
    copy_base(folder / "llama", "poisoned", {"model.embed_tokens.weight": [(token, math.nan)]})
    copy_base(folder / "llama", "huge", {"model.embed_tokens.weight": [(slice(None), 1e-5)], "lm_head.weight": head})
    lines = (folder / "rows.jsonl").read_text().splitlines()
    lines[11] = json.dumps({"instruction": "Capital @ home?", "output": "Bergen."})
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    made = {}
    for name, (stage, changes) in CASES.items():
        base = "huge" if changes is GRADIENT else "poisoned"
        words = [word for word in changes if not word.startswith("--base_model")] + [f"--base_model={folder / base}"]
        words += [f"--deepspeed=zero{stage}.json"] if stage is not None else []
        made[name] = Case(config, name, 2, tuple(words))
    run_cases(list(made.values()))
    return made


@pytest.mark.parametrize("engine", ["", " ZeRO-1", " ZeRO-3"])
def test_a_row_of_one_process_stops_both_before_the_update(cases: dict[str, Case], engine: str) -> None:
    case = cases[f"row{engine}"]

    assert case.exit_codes == [6, 6], case.log
    told = re.search(
        r"step (\d+): the loss is not finite on process ([01]) of 2; the step was not taken\. .*", case.log
    )
    assert told, case.log
    assert told[0].endswith(f"The last checkpoint is {case.out}/checkpoint-{int(told[1]) - 1}.")
    assert re.search(r"rows\.jsonl:12: (loss nan|not tried): '<s>Capital @ home\? Bergen\.</s>'", case.log)
    for checkpoint in case.out.glob("checkpoint-*"):
        for file in checkpoint.glob("*.safetensors"):
            weights = load_file(file)
            assert all(torch.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.parametrize("engine", ["", " ZeRO-0", " ZeRO-1", " ZeRO-3"])
def test_a_gradient_that_is_not_finite_stops_both_before_the_update(cases: dict[str, Case], engine: str) -> None:
    case = cases[f"gradient{engine}"]

    assert case.exit_codes == [6, 6], case.log
    assert re.search(
        r"step 1: the gradient norm is (nan|inf), and every loss is finite; the step was not taken\. There is no "
        r"checkpoint yet\.",
        case.log,
    ), case.log
    assert not list(case.out.glob("checkpoint-*"))
    assert not list(case.out.glob("*.safetensors"))
