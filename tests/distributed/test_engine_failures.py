"""When something goes wrong in one of several processes: said once, by the one that knows, and soon over for all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tests.distributed.runs import ENVIRONMENT, LORA, torchrun

ENDLESS = (*LORA, "--num_epochs=4000", "--evals_per_epoch=null", "--eval_strategy=no", "--save_steps=1000")


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of the launched processes by rank."""
    ranked = {}
    for child in psutil.Process(launcher.pid).children():
        environment = child.environ()
        if "RANK" in environment:
            ranked[int(environment["RANK"])] = child.pid
    return [ranked[rank] for rank in sorted(ranked)]


def wait_for_steps(launcher: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and launcher.poll() is None:
        if (out / "metrics.jsonl").is_file() and (out / "metrics.jsonl").read_text().count("\n") > 3:
            return
        time.sleep(0.2)
    os.killpg(launcher.pid, signal.SIGKILL)
    raise AssertionError(launcher.communicate()[0])


def test_a_signal_to_one_process_stops_all_at_one_step_and_the_run_goes_on(run_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launcher = torchrun(2, run_config, *ENDLESS, f"--output_dir={out}")
    wait_for_steps(launcher, out)
    os.kill(workers(launcher)[1], signal.SIGTERM)
    output, _ = launcher.communicate(timeout=60)

    assert launcher.returncode != 0
    assert output.count("finetune: stopped by SIGTERM after step") == 1
    (checkpoint,) = out.glob("checkpoint-*")
    assert {"optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"} <= {file.name for file in checkpoint.iterdir()}
    step = int(checkpoint.name.split("-")[1])
    shorter = (f"--max_steps={step + 2}", "--num_epochs=1", "--allow-changed=max_steps,num_epochs")
    again = torchrun(2, run_config, *ENDLESS, f"--output_dir={out}", "--resume", *shorter)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [*range(1, step + 3)]


def test_when_a_process_is_killed_the_others_end_soon_and_say_why(run_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launcher = torchrun(2, run_config, *ENDLESS, f"--output_dir={out}")
    wait_for_steps(launcher, out)
    os.kill(workers(launcher)[1], signal.SIGKILL)
    started = time.monotonic()
    output, _ = launcher.communicate(timeout=60)

    assert time.monotonic() - started < 30
    assert launcher.returncode != 0
    assert "exitcode  : -9" in output
    assert output.count("finetune: another process of this run ended") <= 1  # or the launcher was faster


def test_the_failing_process_speaks_first_and_alone(run_config: Path, tmp_path: Path) -> None:
    """Process 1 is told of a base model that is not there; process 0 is left waiting for it."""
    script = (
        'extra=""; [ "$RANK" = 1 ] && extra="--base_model=/no/such/model"; '
        f'exec "{sys.executable}" -m finetune.train "$0" $extra --output_dir={tmp_path / "out"}'
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no_python"]
    started = time.monotonic()
    done = subprocess.run(
        [*launcher, "sh", "-c", script, str(run_config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=ENVIRONMENT,
    )

    assert time.monotonic() - started < 60
    assert done.returncode != 0
    assert done.stderr.count("finetune: ") == 1
    assert "finetune: base_model: there is no folder /no/such/model" in done.stderr


def test_what_all_processes_find_wrong_is_said_once(run_config: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")

    launcher = torchrun(2, run_config, f"--output_dir={tmp_path / 'out'}")
    output, _ = launcher.communicate(timeout=120)

    assert launcher.returncode != 0
    assert output.count("holds another run (mine.txt)") == 1
