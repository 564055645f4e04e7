"""Two machines, one process each: two network namespaces joined by a cable, with a real rendezvous over it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.distributed.launches import ENDLESS, SHORT, environment, finish, kill_rank, run, wait_for_steps
from tests.distributed.runs import metrics

CABLE = ("fta", "ftb")
"""Names of the two namespaces; the ends of the cable are called the same."""
ADDRESSES = ("10.97.0.1", "10.97.0.2")


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def why_not() -> str | None:
    """Return why two namespaces cannot be made here, or None."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "needs Linux and the ip command (Debian's package iproute2)"
    if os.geteuid() != 0:
        return "needs root, which alone may make network namespaces"
    made = ip("netns", "add", "finetune-probe")
    ip("netns", "delete", "finetune-probe")
    return f"network namespaces are not allowed here: {made.stderr.strip()}" if made.returncode else None


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[str, str]]:
    """Make both namespaces and the cable; return their names, which no other run of this test uses."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    names = tuple(f"{end}{os.getpid() % 100000}" for end in CABLE)
    try:
        for name in names:
            must("netns", "add", name)
        must("link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            must("-n", name, "address", "add", f"{address}/24", "dev", name)
            must("-n", name, "link", "set", name, "up")
            must("-n", name, "link", "set", "lo", "up")
        yield names[0], names[1]
    finally:
        for name in names:
            ip("netns", "delete", name)


def must(*words: str) -> None:
    done = ip(*words)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def start_node(node: str, rank: int, *words: object) -> subprocess.Popen[str]:
    """Start ``finetune train`` as one of two machines inside a namespace."""
    machines = ["--num-machines", 2, "--machine-rank", rank, "--main-process-ip", ADDRESSES[0]]
    command = ["ip", "netns", "exec", node, sys.executable, "-m", "finetune", "train", *words, *machines]
    # gloo asks for its own host's name by default, which leads to the loopback device here
    surroundings = environment(GLOO_SOCKET_IFNAME=node)
    return subprocess.Popen(
        [*map(str, command)], env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def losses_of_one_machine(run_config: Path) -> list[float]:
    out = run_config.parent / "one-machine"
    run("-m", "finetune", "train", run_config, *SHORT, "--num-processes", 2, "--output_dir", out)
    return metrics(out, "loss")


@pytest.mark.parametrize(
    ("launcher", "changes"),
    [
        ("accelerate", []),
        ("torchrun", ["--deepspeed", "deepspeed_configs/zero3.json"]),
    ],
    ids=["accelerate", "torchrun zero3"],
)
def test_two_machines_train_as_one_machine_with_two_processes(
    run_config: Path,
    nodes: tuple[str, str],
    losses_of_one_machine: list[float],
    tmp_path: Path,
    launcher: str,
    changes: list[str],
) -> None:
    words = [run_config, *SHORT, "--launcher", launcher, "--output_dir", tmp_path / "out", *changes]
    processes = [start_node(node, rank, *words) for rank, node in enumerate(nodes)]
    outcomes = [finish(process) for process in processes]

    assert [exit_code for exit_code, _ in outcomes] == [0, 0], "\n".join(output for _, output in outcomes)
    assert metrics(tmp_path / "out", "loss") == pytest.approx(losses_of_one_machine, rel=1e-5)
    assert re.search(r"^- num_devices: 2$", (tmp_path / "out" / "README.md").read_text(), re.MULTILINE)
    assert "step 3/3" in outcomes[0][1]
    assert "step 3/3" not in outcomes[1][1], "only machine 0 says how training goes"


def test_a_process_that_is_killed_on_one_machine_ends_the_run_on_both(
    run_config: Path, nodes: tuple[str, str], tmp_path: Path
) -> None:
    words = [run_config, *ENDLESS, "--output_dir", tmp_path / "out"]
    first, second = (start_node(node, rank, *words) for rank, node in enumerate(nodes))
    wait_for_steps(first, tmp_path / "out", 3)
    kill_rank(second, 1)
    exit_code, output = finish(first)
    assert exit_code == 8, output
    assert finish(second)[0] == 8
