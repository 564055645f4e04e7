"""The commands that start processes, word for word, and what is refused before anything starts."""

import sys
from dataclasses import replace

import pytest

from finetune.errors import ConfigError
from finetune.launch import (
    LaunchOptions,
    LaunchPlan,
    inside_launcher,
    launch_command,
    launch_environment,
    plan_launch,
    refuse_second_launch,
)

TWO_HOSTS = LaunchOptions(num_machines=2, machine_rank=1, main_process_ip="10.0.0.1")


def plan(options: LaunchOptions, num_accelerators: int = 0) -> LaunchPlan:
    planned = plan_launch(options, num_accelerators)
    assert planned is not None
    return planned


def command(options: LaunchOptions, num_accelerators: int = 0) -> str:
    python, *words = launch_command(plan(options, num_accelerators), ["run.yml", "--lora_r", "8"])
    assert python == sys.executable
    return " ".join(words)


def accelerate(numbers: str) -> str:
    said_outright = "--gpu_ids all --mixed_precision no --dynamo_backend no"
    return f"-m accelerate.commands.launch {numbers} {said_outright} -m finetune.train run.yml --lora_r 8"


def torchrun(numbers: str) -> str:
    return f"-m torch.distributed.run {numbers} -m finetune.train run.yml --lora_r 8"


@pytest.mark.parametrize("num_accelerators", [0, 1], ids=["cpu", "one gpu"])
def test_one_process_needs_no_launcher(num_accelerators: int) -> None:
    assert plan_launch(LaunchOptions(), num_accelerators) is None


def test_every_visible_accelerator_takes_part() -> None:
    assert command(LaunchOptions(), 8) == accelerate(
        "--multi_gpu --num_processes 8 --num_machines 1 --machine_rank 0 --main_process_port 0"
    )


def test_two_processes_on_a_cpu_are_started_without_accelerates_cpu_option() -> None:
    words = command(LaunchOptions(num_processes=2))
    assert "--cpu" not in words
    assert "--multi_gpu --num_processes 2 " in words


def test_fewer_processes_than_accelerators_can_be_asked_for() -> None:
    assert "--num_processes 2 " in command(LaunchOptions(num_processes=2), 4)
    assert plan_launch(LaunchOptions(num_processes=1), 4) is None


def test_no_launcher_means_this_process_alone_on_any_machine() -> None:
    assert plan_launch(LaunchOptions(launcher="none"), 8) is None
    assert plan_launch(LaunchOptions(launcher="none", num_processes=1), 8) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LaunchOptions(launcher="torchrun"), torchrun("--standalone --nproc_per_node 4")),
        (
            LaunchOptions(launcher="torchrun", main_process_port=4000),
            torchrun("--nnodes 1 --node_rank 0 --nproc_per_node 4 --master_addr 127.0.0.1 --master_port 4000"),
        ),
        (
            replace(TWO_HOSTS, launcher="torchrun"),
            torchrun("--nnodes 2 --node_rank 1 --nproc_per_node 4 --master_addr 10.0.0.1 --master_port 29500"),
        ),
        (
            replace(TWO_HOSTS, launcher="torchrun", num_processes=4, main_process_port=4000),
            torchrun("--nnodes 2 --node_rank 1 --nproc_per_node 2 --master_addr 10.0.0.1 --master_port 4000"),
        ),
        (
            LaunchOptions(main_process_port=4000),
            accelerate("--multi_gpu --num_processes 4 --num_machines 1 --machine_rank 0 --main_process_port 4000"),
        ),
        (
            TWO_HOSTS,
            accelerate(
                "--multi_gpu --num_processes 8 --num_machines 2 --machine_rank 1 "
                "--main_process_ip 10.0.0.1 --main_process_port 29500"
            ),
        ),
    ],
    ids=["torchrun", "torchrun port", "torchrun two hosts", "torchrun numbers", "accelerate port", "two hosts"],
)
def test_options_become_the_launchers_own(options: LaunchOptions, expected: str) -> None:
    assert command(options, 4) == expected


def test_two_machines_without_accelerators_run_one_process_each() -> None:
    assert plan(TWO_HOSTS).num_local == 1
    assert "--num_processes 2 " in command(TWO_HOSTS)


def test_a_launcher_named_outright_is_used_for_one_process_too() -> None:
    assert command(LaunchOptions(launcher="torchrun"), 1) == torchrun("--standalone --nproc_per_node 1")
    assert command(LaunchOptions(launcher="accelerate"), 1).startswith(
        "-m accelerate.commands.launch --num_processes 1 "
    )


def test_what_follows_the_dashes_reaches_the_launcher_last() -> None:
    words = command(LaunchOptions(launcher="torchrun", launcher_arguments=("--shutdown_timeout", "300")), 2)
    assert words == torchrun("--standalone --nproc_per_node 2 --shutdown_timeout 300")


@pytest.mark.parametrize("words", [("--config_file", "a.yaml"), ("--config_file=a.yaml",), ("--config-file", "a.yaml")])
def test_an_accelerate_configuration_file_decides_what_is_not_said_here(words: tuple[str, ...]) -> None:
    expected = f"-m accelerate.commands.launch {' '.join(words)} -m finetune.train run.yml --lora_r 8"
    assert command(LaunchOptions(launcher_arguments=words), 8) == expected


def test_a_machines_rank_is_said_beside_a_configuration_file() -> None:
    options = LaunchOptions(machine_rank=1, launcher_arguments=("--config_file", "a.yaml"))
    assert command(options).startswith("-m accelerate.commands.launch --machine_rank 1 --config_file a.yaml -m ")


REFUSED = {
    "rank too high": (
        LaunchOptions(num_machines=2, machine_rank=2, main_process_ip="a"),
        "--machine-rank 2: with --num-machines 2 the machines are numbered from 0 to 1",
    ),
    "rank of one machine": (
        LaunchOptions(machine_rank=1),
        "--machine-rank 1: with --num-machines 1 the machines are just one, number 0",
    ),
    "no address": (
        LaunchOptions(num_machines=2, machine_rank=0),
        "--num-machines 2 needs --main-process-ip: the address of machine 0, as the others reach it",
    ),
    "no rank": (
        LaunchOptions(num_machines=3, main_process_ip="a"),
        "--num-machines 3 needs --machine-rank: 0 on the machine that --main-process-ip names, "
        "and up to 2 on the others",
    ),
    "address of one machine": (
        LaunchOptions(main_process_ip="10.0.0.1"),
        "--main-process-ip is where several machines meet; add --num-machines, or drop it",
    ),
    "uneven": (
        LaunchOptions(num_processes=3, num_machines=2, machine_rank=0, main_process_ip="a"),
        "--num-processes 3 counts the processes of all machines together, and 3 cannot be shared out evenly among 2",
    ),
    "too few GPUs": (
        LaunchOptions(num_processes=8),
        "--num-processes 8: each process needs a GPU of its own; this machine would run 8 and shows 4. "
        "CUDA_VISIBLE_DEVICES= (empty) before the command trains on the CPU",
    ),
    "no launcher, two processes": (
        LaunchOptions(launcher="none", num_processes=2),
        "--launcher none trains in this process alone, and --num-processes 2 asks for more; "
        "use --launcher accelerate or torchrun",
    ),
    "no launcher, two machines": (
        LaunchOptions(launcher="none", num_machines=2),
        "--launcher none trains in this process alone, and --num-machines 2 asks for more; "
        "use --launcher accelerate or torchrun",
    ),
    "no launcher, its options": (
        LaunchOptions(launcher="none", launcher_arguments=("--debug",)),
        "--launcher none starts nothing that could take what comes after --: --debug",
    ),
    "own option after the dashes": (
        LaunchOptions(launcher_arguments=("--num_processes=4",)),
        "--num_processes=4 after --: give --num-processes before -- instead, where it is checked",
    ),
    "torchrun's name for it": (
        LaunchOptions(launcher="torchrun", launcher_arguments=("--nproc-per-node", "4")),
        "--nproc-per-node after --: give --num-processes before -- instead, where it is checked",
    ),
    "accelerate's --cpu": (
        LaunchOptions(num_processes=2, launcher_arguments=("--cpu",)),
        "--cpu after --: with it accelerate starts a single process; drop it, and hide the GPUs with "
        "CUDA_VISIBLE_DEVICES= (empty) before the command",
    ),
    "a configuration for torchrun": (
        LaunchOptions(launcher="torchrun", launcher_arguments=("--config_file", "a.yaml")),
        "--config_file after --: torchrun reads no accelerate configuration; use --launcher accelerate",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused_with_the_reason(options: LaunchOptions, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_launch(options, 4)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"])
def test_a_process_knows_that_a_launcher_started_it(name: str) -> None:
    assert inside_launcher({name: "0", "PATH": "/bin"}) == name


def test_a_process_of_a_person_is_inside_no_launcher() -> None:
    assert inside_launcher({"SLURM_PROCID": "0", "MASTER_ADDR": "a"}) is None


def test_options_about_processes_are_refused_inside_a_launcher() -> None:
    message = r"a launcher has already started this process \(RANK is set\), so options about processes come too late"
    with pytest.raises(ConfigError, match=message):
        refuse_second_launch(LaunchOptions(num_processes=2), "RANK")
    refuse_second_launch(LaunchOptions(launcher="none"), "RANK")
    refuse_second_launch(LaunchOptions(), "RANK")


PATIENT = {
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3600",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
}
"""Time to save after a signal, and SLURM's among the signals that are passed on."""


def test_processors_are_shared_out_among_the_processes_of_a_machine() -> None:
    assert launch_environment(plan(TWO_HOSTS, 4), {}, num_cpus=64)["OMP_NUM_THREADS"] == "16"
    assert launch_environment(plan(LaunchOptions(num_processes=4)), {}, num_cpus=2)["OMP_NUM_THREADS"] == "1"


def test_threads_that_were_chosen_stay_chosen() -> None:
    environment = {"OMP_NUM_THREADS": "3", "HOME": "/root", **PATIENT, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "9"}
    assert launch_environment(plan(TWO_HOSTS, 4), environment, num_cpus=64) == environment
    from_file = plan(LaunchOptions(launcher_arguments=("--config_file", "a.yaml")))
    assert launch_environment(from_file, {}, num_cpus=64) == PATIENT


def test_several_machines_meet_at_an_address_and_a_port() -> None:
    assert plan(TWO_HOSTS).meeting == "10.0.0.1:29500"
    assert plan(replace(TWO_HOSTS, main_process_port=4242)).meeting == "10.0.0.1:4242"
    assert plan(LaunchOptions(num_processes=2)).meeting is None
