"""Checkpoints of several processes: the same curve on the same processes, a refusal on others."""

import re
from pathlib import Path

import pytest
from tests.distributed.runs import LORA, Case, largest_difference, metrics, run_cases

from finetune.training.checkpoints.find import verify

SAVES = ("--save_steps=3", "--save_total_limit=9", "--evals_per_epoch=null", "--eval_strategy=no")
ENGINES: dict[str, tuple[str, ...]] = {
    "plain": (*LORA, "--lora_dropout=0.1"),
    "ZeRO-1": (*LORA, "--lora_dropout=0.1", "--deepspeed=zero1.json"),
    "ZeRO-3": ("--unfrozen_parameters=[mlp, '^lm_head.weight$[7:]']", "--weight_decay=0.1", "--deepspeed=zero3.json"),
}
"""38 rows in batches of 8: five steps an epoch, so checkpoint 3 is in the first epoch and 6 in the second."""


@pytest.fixture(scope="module")
def runs(run_config: Path) -> dict[str, Case]:
    whole = {name: Case(run_config, f"whole {name}", 2, (*changes, *SAVES)) for name, changes in ENGINES.items()}
    resumed = {
        f"{name} {step}": Case(
            run_config,
            f"resumed {name} {step}",
            2,
            (*changes, *SAVES, f"--resume_from_checkpoint={whole[name].out / f'checkpoint-{step}'}"),
        )
        for name, changes in ENGINES.items()
        for step in (3, 6)
    }
    refused = {
        "more": Case(run_config, "more", 4, ("--micro_batch_size=2", *resumed["plain 6"].changes)),
        "alone": Case(run_config, "alone", 1, resumed["ZeRO-1 6"].changes),
        "plainly": Case(run_config, "plainly", 2, (*resumed["ZeRO-1 6"].changes, "--deepspeed=null")),
    }
    finished = {
        f"{name} 10": Case(
            run_config,
            f"finished {name}",
            2,
            (*changes, *SAVES, f"--resume_from_checkpoint={whole[name].out / 'checkpoint-10'}"),
        )
        for name, changes in ENGINES.items()
        if name != "plain"
    }
    cases = {**whole, **resumed, **refused, **finished}
    run_cases(list(cases.values()))
    return cases


@pytest.mark.parametrize("step", [3, 6])
@pytest.mark.parametrize("name", ENGINES)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(runs: dict[str, Case], name: str, step: int) -> None:
    whole, resumed = runs[name], runs[f"{name} {step}"]
    assert resumed.exit_codes == [0, 0], resumed.log

    assert metrics(resumed.out, "loss") == metrics(whole.out, "loss")[step:]
    assert largest_difference(whole.out, resumed.out) == 0


@pytest.mark.parametrize("name", ["ZeRO-1", "ZeRO-3"])
def test_a_run_that_had_only_its_result_left_to_save_saves_it(runs: dict[str, Case], name: str) -> None:
    assert runs[f"{name} 10"].exit_codes == [0, 0], runs[f"{name} 10"].log

    assert largest_difference(runs[name].out, runs[f"{name} 10"].out) == 0


@pytest.mark.parametrize("name", ENGINES)
def test_the_manifest_knows_the_files_of_all_processes(runs: dict[str, Case], name: str) -> None:
    manifest = verify(runs[name].out / "checkpoint-6")

    assert manifest.facts.world_size == 2
    assert manifest.facts.engine == ("plain data parallelism" if name == "plain" else name)
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= manifest.files.keys()
    states = [file for file in manifest.files if file.endswith(("optim_states.pt", "optimizer.pt"))]
    assert len(states) == (1 if name == "plain" else 2)
    assert (runs[name].out / "latest").resolve().name == "checkpoint-10"
    assert runs[name].log.count("checkpoint-6 saved in ") == 1
    assert not [path for path in runs[name].out.iterdir() if path.name.startswith((".staging", ".trash"))]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("more", "was saved by 2 processes without DeepSpeed, and this run has 4 processes without DeepSpeed; "),
        ("alone", "was saved by 2 processes with ZeRO-1 or 2, and this run has 1 process with ZeRO-1 or 2; "),
        ("plainly", "was saved by 2 processes with ZeRO-1 or 2, and this run has 2 processes without DeepSpeed; "),
    ],
)
def test_another_layout_is_refused_with_the_reason(runs: dict[str, Case], name: str, message: str) -> None:
    assert runs[name].exit_codes == [7] * runs[name].world_size
    assert message in runs[name].log
    assert "Go on with --num-processes 2 and the deepspeed: file that it was saved with; or train its weights on" in (
        runs[name].log
    )
    assert re.search(r"with lora_model_dir: .*/checkpoint-6 and another output_dir", runs[name].log)
    assert not runs[name].out.exists()
