"""A checkpoint appears whole or not at all, whatever happens while it is saved."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.checkpoints.saves import OTHER, RUN, make_store, names, parts, save, write_part

from finetune.errors import CheckpointError
from finetune.training.checkpoints.find import verify
from finetune.training.checkpoints.manifest import read_manifest
from finetune.training.checkpoints.publish import refuse_taken
from finetune.training.checkpoints.space import Needs

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), *sys.path]), "OMP_NUM_THREADS": "1"}
MAY_MOUNT = subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0


def run_script(*command: object) -> Any:
    """Run a script beside this file and return the JSON that it prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_checkpoint_is_sealed_announced_and_linked(tmp_path: Path) -> None:
    said: list[str] = []
    store = make_store(tmp_path, said=said)
    store.save(120, parts(120), best=120)

    assert verify(tmp_path / "checkpoint-120").step == 120
    assert re.fullmatch(r"checkpoint-120 saved in \d+\.\d s \(\d kB\)", said[0])
    assert {str((tmp_path / name).readlink()) for name in ("latest", "best")} == {"checkpoint-120"}
    assert names(tmp_path) == {path.name for path in tmp_path.iterdir()} == {"checkpoint-120", "latest", "best"}


def test_old_checkpoints_go_after_the_new_one_has_come(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=2)
    for step in (1, 2, 3, 4):
        store.save(step, [*parts(step), lambda _: present.append(names(tmp_path))], best=1)

    assert names(tmp_path) == {"checkpoint-1", "checkpoint-4", "latest", "best"}
    assert {"checkpoint-1", "checkpoint-3"} <= present[-1]


present: list[set[str]] = []
"""What stood in the folder while a checkpoint was being written."""


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), RuntimeError("it broke\nat length"), CheckpointError("tensor x is empty")],
    ids=["disk", "library", "check"],
)
def test_a_failure_in_any_phase_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    store = save(tmp_path, 1)

    def fail(_: Path) -> None:
        raise error

    for number in range(3):
        writers = parts(2)
        writers.insert(number, fail)
        with pytest.raises(CheckpointError, match=r"Input/output error|it broke\)|tensor x is empty"):
            store.save(2, writers)
        assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1", "latest"}


def test_memory_that_ran_out_is_not_called_a_disk(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        make_store(tmp_path).save(1, [fail])
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_never_overwritten(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint-1 is there and was not written by this run.*Move it away"):
        store.save(1, parts(1))
    save(tmp_path, 2, run=OTHER)
    with pytest.raises(CheckpointError, match=r"checkpoint-2 is there"):
        store.save(2, parts(2))
    with pytest.raises(CheckpointError, match=r"checkpoint-3 is there"):  # it came while this one was written
        store.save(3, [*parts(3), lambda _: (tmp_path / "checkpoint-3").mkdir()])

    assert list((tmp_path / "checkpoint-1").iterdir()) == []
    assert read_manifest(tmp_path / "checkpoint-2").facts.run == OTHER


def test_a_name_that_is_taken_is_refused_before_the_first_step(tmp_path: Path) -> None:
    save(tmp_path, 4)
    save(tmp_path, 8, run=OTHER)

    refuse_taken(tmp_path, RUN, 0, 7)
    refuse_taken(tmp_path, RUN, 8, 20)
    with pytest.raises(CheckpointError, match=r"checkpoint-8 is there and was not written by this run"):
        make_store(tmp_path).prepare(Needs(1, 1), 4, 8, [])


def test_a_step_that_is_saved_is_not_saved_again(tmp_path: Path) -> None:
    store = save(tmp_path, 1)
    store.save(1, [write_part("model.safetensors", "other")])
    assert verify(tmp_path / "checkpoint-1").files.keys() > {"optimizer.pt"}


def test_a_part_that_a_process_wrote_elsewhere_is_missed(tmp_path: Path) -> None:
    """As on two machines whose output_dir is a folder of each: here of two random states that are one too many."""
    writers = [write_part(f"rng_state_{rank}.pth", "x") for rank in range(2)]
    with pytest.raises(CheckpointError, match=r"2 of 1 processes wrote into it; output_dir has to be a folder that"):
        make_store(tmp_path).save(1, [*parts(1), *writers])


def test_a_kill_at_any_file_operation_loses_nothing(tmp_path: Path) -> None:
    """A checkpoint, a result, and a start that clears up; after each the run goes on without a person."""
    outcomes = run_script(sys.executable, HERE / "crashes.py", tmp_path)

    assert {kind: faults for kind, (_, faults) in outcomes.items()} == {"checkpoint": [], "final": [], "start": []}
    assert outcomes["checkpoint"][0] > 60
    assert outcomes["final"][0] > 40


@pytest.mark.skipif(not MAY_MOUNT, reason="no file system may be mounted here")
def test_a_full_disk_at_any_phase_is_named_and_loses_nothing(tmp_path: Path) -> None:
    *outcomes, final, rest = run_script("unshare", "-rm", sys.executable, HERE / "full_disks.py", tmp_path)

    assert outcomes[-1] == "saved"
    full = f"{tmp_path}/out/checkpoint-2 could not be saved: the disk is full; it takes about 1 MB, and "
    assert [text for text in outcomes[:-1] if not text.startswith(full)] == []
    assert len(outcomes) > 20
    assert final.startswith(f"{tmp_path}/out could not be saved: the disk is full; it takes about 300 kB, and ")
    assert rest == "left []"
