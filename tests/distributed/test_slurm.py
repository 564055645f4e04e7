"""The SLURM script with a stand-in for SLURM: real processes, a real stop, and the way back into the queue."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.distributed.launches import ENDLESS, environment, finish, wait_for_steps
from tests.distributed.runs import metrics, write_run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "multi-node" / "train.slurm"

PROGRAMS = {
    # one task on each of two machines; SLURM's exit code is the highest of the tasks', and signals go to all of them
    "srun": """#!/bin/bash
trap 'kill -TERM $first $second' TERM
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
echo $$ > srun.pid
code=0
for task in $first $second; do
    wait $task; ended=$?
    while kill -0 $task 2>/dev/null; do wait $task; ended=$?; done
    if [ $ended -gt $code ]; then code=$ended; fi
done
exit $code
""",
    "scontrol": """#!/bin/bash
case $1 in
    show) echo localhost; echo other ;;
    requeue) echo "$2" >> requeued ;;
esac
""",
    "finetune": f'#!/bin/bash\nexec "{sys.executable}" -m finetune "$@"\n',
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with a configuration, and the programs that a cluster has."""
    folder = tmp_path_factory.mktemp("cluster")
    write_run(folder)
    (folder / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder


def submit(cluster: Path, *words: str, restarts: int = 0) -> subprocess.Popen[str]:
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
        "SLURM_RESTART_COUNT": str(restarts),
        "GLOO_SOCKET_IFNAME": "lo",
        "PATH": f"{cluster / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), "config.yml", *words],
        cwd=cluster,
        env=environment(**job),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_that_is_stopped_goes_back_into_the_queue_and_on_from_its_checkpoint(cluster: Path) -> None:
    out = cluster / "out"
    process = submit(cluster, *ENDLESS)
    wait_for_steps(process, out, 3)
    os.kill(int((cluster / "srun.pid").read_text()), signal.SIGTERM)
    exit_code, output = finish(process)
    assert exit_code == 75, output
    assert (cluster / "requeued").read_text() == f"{os.getpid()}\n"

    done = len(metrics(out, "loss"))
    shorter = (f"--max_steps={done + 2}", "--allow-changed=max_steps")
    exit_code, output = finish(submit(cluster, *ENDLESS, *shorter, restarts=1))
    assert exit_code == 0, output
    assert len(metrics(out, "loss")) == done + 2
    assert "- num_devices: 2" in (out / "README.md").read_text()
    assert (cluster / "requeued").read_text().count("\n") == 1


def test_a_job_with_a_fault_does_not_go_back_into_the_queue(cluster: Path) -> None:
    (cluster / "requeued").unlink(missing_ok=True)
    exit_code, output = finish(submit(cluster, "--learning_rte=1"))
    assert exit_code == 2, output
    assert not (cluster / "requeued").exists()


def test_the_script_parses() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)
