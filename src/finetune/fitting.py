"""The estimate inside a run: what says ``auto`` is decided, and how close the run comes to the memory that there is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.config import RunConfig
from finetune.errors import ConfigError, ModelError
from finetune.estimate.ask import setup_of
from finetune.estimate.auto import asks, recorded_values, settle
from finetune.estimate.devices import Device, host_bytes
from finetune.estimate.memory import Estimate, estimate
from finetune.estimate.setup import Setup
from finetune.processes import ProcessPlace, this_process
from finetune.training.deepspeed import load_deepspeed
from finetune.training.engine import Engine


@dataclass(frozen=True)
class MemoryPlan:
    """What a run is expected to need of the device that it has."""

    setup: Setup
    needed: Estimate

    @property
    def share(self) -> float:
        """Of the device's memory."""
        return self.needed.peak / self.setup.device.num_bytes


def settle_auto(config: RunConfig, say: Callable[[str], None]) -> RunConfig:
    """Return ``config`` with what says ``auto`` decided, as the run that it goes on with had it.

    Raises:
        ModelError: the memory of this model is not known, so that nothing can be decided.
    """
    if not asks(config.training):
        return config
    settled = settle(_setup(config), recorded_values(config.training))
    for note in settled.notes:
        say(note)
    return config.model_copy(update={"training": settled.training})


def refuse_disagreement(config: RunConfig, engine: Engine) -> None:
    """Compare what the processes decided by themselves; a collective.

    Raises:
        ConfigError: their devices differ, so that they would train on other batches.
    """
    if engine.place.world_size == 1:
        return
    micro, device = config.training.micro_batch_size, _torch_device()
    most, least = engine.largest(micro, device), -engine.largest(-micro, device)
    if most != least:
        raise ConfigError(
            f"micro_batch_size: auto is {least} on one device and {most} on another, since their memories differ; "
            f"write micro_batch_size: {least}"
        )


def plan_memory(config: RunConfig) -> MemoryPlan | None:
    """Estimate the run on the device of this process; None for a model whose memory is not known."""
    try:
        setup = _setup(config)
    except ModelError:
        return None
    return MemoryPlan(setup, estimate(setup))


def memory_share(config: RunConfig) -> float:
    """Return the share of the device's memory that the run is expected to need.

    What is not known counts as all of a GPU's memory, and as none of a machine's, which holds more than one program.
    """
    plan = plan_memory(config)
    return plan.share if plan else float(torch.cuda.is_available())


def estimate_line(config: RunConfig) -> str:
    """Return a sentence for who has run out of memory: what was needed, and for what; empty where that is not known."""
    plan = plan_memory(config)
    if plan is None:
        return ""
    parts = sorted(plan.needed.parts, key=lambda part: -part.device)[:3]
    largest = ", ".join(f"{part.name} {part.device / 2**30:.1f}" for part in parts)
    return (
        f"By the estimate this run needs {plan.needed.peak / 2**30:.1f} of "
        f"{plan.setup.device.num_bytes / 2**30:.1f} GiB ({largest}); "
        f"finetune estimate {config.source.file} shows all of it, and what fits"
    )


def device_of(place: ProcessPlace, num_local: int) -> Device:
    """Return what this process may use; the same for all processes of like machines, whatever else runs there."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(place.local_rank)
        return Device(properties.name, "cuda", properties.total_memory)
    return Device("the memory of this machine", "cpu", host_bytes() // num_local)


def _setup(config: RunConfig) -> Setup:
    place = this_process()
    found = load_deepspeed(config.distributed, Path(config.source.file))
    return setup_of(config, found[1] if found else None, place.world_size, device_of(place, place.world_size))


def _torch_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
