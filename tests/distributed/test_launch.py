"""Real launches on the CPU: how many processes train, how they end, and what the exit code says."""

import re
import signal
import socket
from pathlib import Path

import pytest
import yaml
from tests.distributed.launches import ENDLESS, SHORT, finish, kill_rank, run, start, wait_for_steps
from tests.distributed.runs import metrics

from finetune.attempt.state import read_state

TRAIN = ("-m", "finetune", "train")
ACCELERATE_CONFIG = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",  # without a GPU: gloo processes; MULTI_CPU would start mpirun
    "num_processes": 2,
    "num_machines": 1,
    "machine_rank": 0,
    "main_process_port": 0,
    "mixed_precision": "no",
    "use_cpu": False,
}


@pytest.fixture
def accelerate_config(tmp_path: Path) -> Path:
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(ACCELERATE_CONFIG))
    return path


def num_devices(output_dir: Path) -> int:
    """Return what the card says; a run of one process says nothing."""
    found = re.search(r"^- num_devices: (\d+)$", (output_dir / "README.md").read_text(), re.MULTILINE)
    return int(found[1]) if found else 1


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_processes_train_on_a_cpu(run_config: Path, tmp_path: Path, launcher: str) -> None:
    words = ["--launcher", launcher, "--num-processes", 2, "--output_dir", tmp_path / "out"]
    output = run(*TRAIN, run_config, *SHORT, *words)
    assert num_devices(tmp_path / "out") == 2
    assert len(metrics(tmp_path / "out", "loss")) == 3
    assert output.count("step 3/3") == 2, "training and validation loss, each said once"
    assert not re.search(r"warning|model shards|built|%\|", output, re.IGNORECASE), output
    for name in ("debug.log", "debug-1.log"):
        assert "find_unused_parameters" in (tmp_path / "out" / name).read_text(), "said by each, and no use to anybody"


def test_accelerate_launch_works_as_it_is(run_config: Path, tmp_path: Path) -> None:
    module = ("-m", "finetune.train", run_config, *SHORT, "--output_dir", tmp_path / "out")
    run("-m", "accelerate.commands.launch", "--num_processes", 1, *module, HF_HOME=str(tmp_path))
    assert num_devices(tmp_path / "out") == 1


def test_accelerate_launch_works_with_its_own_configuration(
    run_config: Path, tmp_path: Path, accelerate_config: Path
) -> None:
    module = ("-m", "finetune.train", run_config, *SHORT, "--output_dir", tmp_path / "out")
    run("-m", "accelerate.commands.launch", "--config_file", accelerate_config, *module)
    assert num_devices(tmp_path / "out") == 2


def test_train_hands_an_accelerate_configuration_on_and_debug_shows_all_with_the_rank_in_front(
    run_config: Path, tmp_path: Path, accelerate_config: Path
) -> None:
    words = ["--debug", "--output_dir", tmp_path / "out", "--", "--config_file", accelerate_config]
    output = run(*TRAIN, run_config, *SHORT, *words)
    assert num_devices(tmp_path / "out") == 2
    assert "[rank 0] step 3/3" in output
    assert re.search(r"^\[rank 1\] .*find_unused_parameters", output, re.MULTILINE), output
    assert not list((tmp_path / "out").glob("debug*.log"))


def test_torchrun_works_as_it_is(run_config: Path, tmp_path: Path) -> None:
    module = ("-m", "finetune.train", run_config, *SHORT, "--output_dir", tmp_path / "out")
    run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, *module)
    assert num_devices(tmp_path / "out") == 2


def test_the_exit_code_of_a_process_gets_past_its_launcher(run_config: Path, tmp_path: Path) -> None:
    """Every process misses the base model and ends with 4, which the launcher turns into 1."""
    absent = tmp_path / "absent"
    exit_code, output = finish(start(*TRAIN, run_config, *SHORT, "--num-processes", 2, "--base_model", absent))
    assert exit_code == 4, output
    assert output.count(f"finetune: base_model: there is no folder {absent}") == 1
    assert "Traceback" not in output, "the launcher's own"


def test_a_stop_is_passed_on_and_reported_as_one(run_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(*TRAIN, run_config, "--launcher", "torchrun", "--num-processes", 2, *ENDLESS, "--output_dir", out)
    wait_for_steps(process, out, 3)
    process.send_signal(signal.SIGUSR1)
    exit_code, output = finish(process)
    assert exit_code == 75, output
    assert output.count("stopped by SIGUSR1 after step") == 1
    assert list(out.glob("checkpoint-*/model.safetensors"))
    state = read_state(out)
    assert state is not None
    assert (state.status, state.exit_code, state.last_checkpoint) == ("stopped", 75, f"checkpoint-{state.step}")


def test_a_process_that_is_killed_ends_the_run_with_8(run_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(*TRAIN, run_config, "--num-processes", 2, *ENDLESS, "--output_dir", out)
    wait_for_steps(process, out, 3)
    kill_rank(process, 1)
    exit_code, output = finish(process)
    assert exit_code == 8, output
    assert "process 1 was ended by SIGKILL without a word of its own" in output
    state = read_state(out)
    assert state is not None
    assert state.error is not None
    assert (state.status, state.exit_code, state.retryable) == ("failed", 8, True)
    assert "process 1 was ended by SIGKILL" in state.error.message
    assert "Traceback" not in output
    assert "Root Cause" in (out / "debug-launcher.log").read_text()


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_a_wrong_address_is_named_after_a_bounded_time(run_config: Path, tmp_path: Path, launcher: str) -> None:
    """The launchers wait 10 minutes by themselves, which words after -- shorten."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    machines = ["--num-machines", 2, "--machine-rank", 1, "--main-process-ip", "127.0.0.1", "--main-process-port", port]
    words = [run_config, *machines, "--launcher", launcher, "--output_dir", tmp_path / "out"]
    exit_code, output = finish(start(*TRAIN, *words, "--", "--rdzv_conf", "timeout=2"))
    assert exit_code == 8, output
    assert output.startswith(f"finetune: the machines did not meet at 127.0.0.1:{port} (")
    assert "Traceback" not in output
