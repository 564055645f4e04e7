"""How processes start: the command of a launcher as a list of strings.  Runs nothing itself.

Two launchers are known, and both end in ``torch.distributed.run``: accelerate's, which also reads the configuration
files that ``accelerate config`` writes, and torchrun.  Numbers are accelerate's: ``num_processes`` counts the
processes of all machines together, one for each accelerator.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune.errors import ConfigError

MARKS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION")
"""Environment variables that a launcher sets.  ``accelerate launch`` of one process sets only the last."""

DEFAULT_PORT = 29500
"""Where several machines meet unless told otherwise: the port that both launchers document."""

SHUTDOWN_S = 3600
"""Seconds that a launcher leaves its processes to save and end after a signal; a second signal ends them at once."""

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""What a launcher passes on: its own list, and what SLURM sends with ``--signal=USR1@300``."""

OWN_OPTIONS = {
    "num_processes": "--num-processes",
    "nproc_per_node": "--num-processes",
    "num_machines": "--num-machines",
    "nnodes": "--num-machines",
    "machine_rank": "--machine-rank",
    "node_rank": "--machine-rank",
    "main_process_ip": "--main-process-ip",
    "master_addr": "--main-process-ip",
    "main_process_port": "--main-process-port",
    "master_port": "--main-process-port",
}
"""What launchers call the options that we have ourselves: given behind our back, they would contradict ours."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What the command line asks for; None where it says nothing."""

    launcher: str | None = None
    """``accelerate``, ``torchrun`` or ``none``."""
    num_processes: int | None = None
    """Processes on all machines together; by default one for each accelerator."""
    num_machines: int | None = None
    machine_rank: int | None = None
    """Which of the machines this is, from 0."""
    main_process_ip: str | None = None
    """Address of machine 0, as the others reach it."""
    main_process_port: int | None = None
    launcher_arguments: tuple[str, ...] = ()
    """Words after ``--``, for the launcher as they are."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """What will be started on this machine."""

    options: LaunchOptions
    num_processes: int
    """On all machines together."""
    num_machines: int

    @property
    def num_local(self) -> int:
        """Processes on this machine."""
        return self.num_processes // self.num_machines

    @property
    def meeting(self) -> str | None:
        """Where several machines meet, ``address:port``; None for a single one."""
        return f"{self.options.main_process_ip}:{_port(self)}" if self.num_machines > 1 else None


def inside_launcher(environment: Mapping[str, str]) -> str | None:
    """Return the variable that shows that a launcher has started this process, or None."""
    return next((name for name in MARKS if environment.get(name)), None)


def plan_launch(options: LaunchOptions, num_accelerators: int) -> LaunchPlan | None:
    """Decide how many processes to start, and how; None means that this process trains by itself.

    Args:
        num_accelerators: how many this machine shows to us; 0 means that training runs on the CPU.

    Raises:
        ConfigError: the options contradict each other or the machine.
    """
    _refuse_launcher_arguments(options)
    num_machines = options.num_machines or 1
    default = 1 if options.launcher == "none" else max(num_accelerators, 1) * num_machines
    num_processes = options.num_processes or default
    if options.launcher == "none":
        _refuse_without_launcher(num_processes, num_machines)
        return None
    if not _from_file(options):  # such a file may hold what is missing here, and accelerate checks it
        _refuse_machines(options, num_machines)
        _refuse_processes(num_processes, num_machines, num_accelerators)
    if num_processes == 1 and not options.launcher and not options.launcher_arguments:
        return None
    return LaunchPlan(options=options, num_processes=num_processes, num_machines=num_machines)


def refuse_second_launch(options: LaunchOptions, mark: str) -> None:
    """Options that would start processes mean nothing in a process that was itself started by a launcher.

    Raises:
        ConfigError: such an option was given.
    """
    if options not in (LaunchOptions(), LaunchOptions(launcher="none")):
        raise ConfigError(
            f"a launcher has already started this process ({mark} is set), so options about processes come too late: "
            "give them to that launcher, or start with finetune train alone"
        )


def launch_command(plan: LaunchPlan, arguments: Sequence[str], module: str = "finetune.train") -> list[str]:
    """Return the command that starts our ``module`` with ``arguments`` in every process of this machine."""
    launcher, flags = LAUNCHERS[plan.options.launcher or "accelerate"]
    start = [sys.executable, "-m", launcher, *flags(plan), *plan.options.launcher_arguments]
    return [*start, "-m", module, *arguments]


def launch_environment(plan: LaunchPlan, environment: Mapping[str, str], num_cpus: int) -> dict[str, str]:
    """Return ``environment`` with this machine's processors shared out among its processes, and time to stop.

    Both launchers would give each process a single thread, which makes an optimizer in CPU memory crawl.  They would
    also kill a process 30 seconds after a signal, in the middle of a long step or a large checkpoint, and be killed
    themselves by the signal that SLURM calls a warning.
    """
    patient = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S), "PET_SIGNALS_TO_HANDLE": SIGNALS, **environment}
    if _from_file(plan.options):
        return patient
    return {"OMP_NUM_THREADS": str(max(1, num_cpus // plan.num_local)), **patient}


def _accelerate_flags(plan: LaunchPlan) -> list[str]:
    options = plan.options
    given = {
        "--num_processes": options.num_processes,
        "--num_machines": options.num_machines,
        "--machine_rank": options.machine_rank,
        "--main_process_ip": options.main_process_ip,
        "--main_process_port": options.main_process_port,
    }
    if _from_file(options):
        return _flags(given)
    # everything is said outright, so that a default configuration in the home folder changes nothing
    resolved = {
        "--num_processes": plan.num_processes,
        "--num_machines": plan.num_machines,
        "--machine_rank": options.machine_rank or 0,
        "--main_process_ip": options.main_process_ip,
        "--main_process_port": _port(plan) or 0,  # 0 is any free port
        "--gpu_ids": "all",
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
    }
    # on a CPU too: with --cpu accelerate starts a single process, however many were asked for
    return (["--multi_gpu"] if plan.num_processes > 1 else []) + _flags(resolved)


def _torchrun_flags(plan: LaunchPlan) -> list[str]:
    port = _port(plan)
    if port is None:
        return ["--standalone", *_flags({"--nproc_per_node": plan.num_local})]
    # a fixed meeting place needs no name service; torchrun's other ways look up the name of machine 0
    return _flags(
        {
            "--nnodes": plan.num_machines,
            "--node_rank": plan.options.machine_rank or 0,
            "--nproc_per_node": plan.num_local,
            "--master_addr": plan.options.main_process_ip or "127.0.0.1",
            "--master_port": port,
        }
    )


LAUNCHERS: dict[str, tuple[str, Callable[[LaunchPlan], list[str]]]] = {
    "accelerate": ("accelerate.commands.launch", _accelerate_flags),
    "torchrun": ("torch.distributed.run", _torchrun_flags),
}
"""Launcher to the module that is it, and the function that writes its options."""


def _port(plan: LaunchPlan) -> int | None:
    """The port where the processes meet; None leaves the choice to the launcher, which one machine can afford."""
    default = DEFAULT_PORT if plan.num_machines > 1 else None
    return plan.options.main_process_port or default


def _flags(values: Mapping[str, object]) -> list[str]:
    return [word for name, value in values.items() if value is not None for word in (name, str(value))]


def _from_file(options: LaunchOptions) -> bool:
    """Whether an accelerate configuration file, named after ``--``, says how many processes there are."""
    return any(_name(word) == "config_file" for word in options.launcher_arguments)


def _name(word: str) -> str:
    """``--config-file=x`` is config_file."""
    return word.partition("=")[0].lstrip("-").replace("-", "_") if word.startswith("-") else ""


def _refuse_machines(options: LaunchOptions, num_machines: int) -> None:
    rank = options.machine_rank
    if rank is not None and rank >= num_machines:
        numbers = f"numbered from 0 to {num_machines - 1}" if num_machines > 1 else "just one, number 0"
        raise ConfigError(f"--machine-rank {rank}: with --num-machines {num_machines} the machines are {numbers}")
    if num_machines == 1 and options.main_process_ip is not None:
        raise ConfigError("--main-process-ip is where several machines meet; add --num-machines, or drop it")
    if num_machines > 1 and options.main_process_ip is None:
        raise ConfigError(
            f"--num-machines {num_machines} needs --main-process-ip: the address of machine 0, as the others reach it"
        )
    if num_machines > 1 and rank is None:
        raise ConfigError(
            f"--num-machines {num_machines} needs --machine-rank: 0 on the machine that --main-process-ip names, "
            f"and up to {num_machines - 1} on the others"
        )


def _refuse_launcher_arguments(options: LaunchOptions) -> None:
    for word in options.launcher_arguments:
        name = _name(word)
        if name in OWN_OPTIONS:
            raise ConfigError(f"{word} after --: give {OWN_OPTIONS[name]} before -- instead, where it is checked")
        if name == "config_file" and options.launcher == "torchrun":
            raise ConfigError(f"{word} after --: torchrun reads no accelerate configuration; use --launcher accelerate")
        if name == "cpu" and options.launcher != "torchrun":
            raise ConfigError(
                "--cpu after --: with it accelerate starts a single process; drop it, and hide the GPUs with "
                "CUDA_VISIBLE_DEVICES= (empty) before the command"
            )
    if options.launcher == "none" and options.launcher_arguments:
        words = " ".join(options.launcher_arguments)
        raise ConfigError(f"--launcher none starts nothing that could take what comes after --: {words}")


def _refuse_without_launcher(num_processes: int, num_machines: int) -> None:
    if num_processes > 1 or num_machines > 1:
        asked = f"--num-processes {num_processes}" if num_processes > 1 else f"--num-machines {num_machines}"
        raise ConfigError(
            f"--launcher none trains in this process alone, and {asked} asks for more; "
            "use --launcher accelerate or torchrun"
        )


def _refuse_processes(num_processes: int, num_machines: int, num_accelerators: int) -> None:
    if num_processes % num_machines:
        raise ConfigError(
            f"--num-processes {num_processes} counts the processes of all machines together, "
            f"and {num_processes} cannot be shared out evenly among {num_machines}"
        )
    num_local = num_processes // num_machines
    if num_local > num_accelerators > 0:
        raise ConfigError(
            f"--num-processes {num_processes}: each process needs a GPU of its own; this machine would run {num_local} "
            f"and shows {num_accelerators}. CUDA_VISIBLE_DEVICES= (empty) before the command trains on the CPU"
        )
