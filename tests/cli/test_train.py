"""``finetune train`` decides who starts processes, and refuses what cannot be before anything starts."""

import subprocess
import sys

import pytest
from tests.conftest import WriteConfig

from finetune.cli import main


@pytest.fixture(autouse=True)
def outside_any_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def refusal(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, words)])
    assert caught.value.code == 2
    return capfd.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--launcher", "none", "--num-processes", "2"],
        ["--launcher=none", "--num_processes=2"],
        ["--lora_r", "8", "--num_processes", "2", "--launcher", "none"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_refused_before_anything_starts(
    capfd: pytest.CaptureFixture[str], write_config: WriteConfig, words: list[str]
) -> None:
    message = "finetune: --launcher none trains in this process alone, and --num-processes 2 asks for more"
    assert refusal(capfd, write_config(), *words).startswith(message)


def test_words_after_the_dashes_are_for_the_launcher_alone(
    capfd: pytest.CaptureFixture[str], write_config: WriteConfig
) -> None:
    message = refusal(capfd, write_config(), "--num-processes", 2, "--", "--learning_rte", "--nnodes", "2")
    assert message == "finetune: --nnodes after --: give --num-machines before -- instead, where it is checked\n"


def test_an_unknown_launcher_is_refused_with_those_that_are_known(
    capfd: pytest.CaptureFixture[str], write_config: WriteConfig
) -> None:
    assert "'mpirun' is not one of 'accelerate', 'torchrun', 'none'" in refusal(
        capfd, write_config(), "--launcher", "mpirun"
    )


def test_inside_a_launcher_options_about_processes_are_refused(
    capfd: pytest.CaptureFixture[str], write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    message = refusal(capfd, write_config(), "--num-processes", 2)
    assert message.startswith("finetune: a launcher has already started this process (LOCAL_RANK is set)")


def test_a_faulty_file_is_answered_once_and_nothing_is_launched(
    capfd: pytest.CaptureFixture[str], write_config: WriteConfig
) -> None:
    path = write_config(learning_rte=1)
    lines = refusal(capfd, path, "--num-processes", 2).splitlines()
    assert lines[0] == f"finetune: {path}: 1 problem"
    assert len(lines) == 2


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_a_refusal_of_the_launcher_itself_is_passed_on(write_config: WriteConfig, launcher: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "finetune", "train", write_config(), "--launcher", launcher, "--", "--no-such-option"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert "no-such-option" in finished.stderr
