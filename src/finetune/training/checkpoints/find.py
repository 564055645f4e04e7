"""Finding the checkpoint to go on from: the newest whole one, and never the beginning in silence."""

import json
from dataclasses import dataclass
from pathlib import Path

from finetune.config.training import TrainingSection
from finetune.errors import CheckpointError
from finetune.training.checkpoints.manifest import (
    MANIFEST,
    DamagedError,
    Manifest,
    find_added,
    find_damage,
    read_manifest,
)
from finetune.training.checkpoints.names import checkpoints, step_of
from finetune.training.engine import Engine

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Found:
    """A checkpoint that a run can go on from."""

    path: Path
    step: int
    """Optimizer steps that are behind it."""
    manifest: Manifest | None
    """What it says of itself; None for one that another tool or an older version wrote."""
    notes: tuple[str, ...] = ()
    """What has to be said: which newer one is damaged, or that nothing vouches for this one."""


def find_resume(training: TrainingSection, engine: Engine, run: str | None = None) -> Found | None:
    """Return the checkpoint to resume from, every file of it verified, or None for a fresh start.

    ``run`` is the id of the run in ``output_dir``, whose checkpoints alone are taken.  To be called by one process:
    it reads each file of a checkpoint once.

    Raises:
        CheckpointError: a checkpoint was named and is missing or damaged, output_dir holds only damaged ones, or
            it was saved by another number of processes or another engine.
    """
    if training.resume_from_checkpoint:
        found: Found | None = _named(Path(training.resume_from_checkpoint))
    elif training.auto_resume_from_checkpoints:
        found = _newest(Path(training.output_dir), run)
    else:
        return None
    if found:
        _refuse_other_layout(found.path, engine)
    return found


def verify(path: Path) -> Manifest:
    """Return the manifest of a checkpoint that is whole.  Raises :class:`DamagedError` with what is wrong."""
    if not path.is_dir():
        raise DamagedError("no such folder")
    manifest = read_manifest(path)
    damage = find_added(path, manifest) or find_damage(path, manifest)
    if damage:
        raise DamagedError(damage)
    return manifest


def resume_step(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint has behind it."""
    return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])


def _named(given: Path) -> Found:
    """A link (``latest``, ``best``) stands for what it points to now."""
    path = given.resolve() if given.is_symlink() else given
    if path.is_dir() and not (path / MANIFEST).exists():
        return _without_manifest(path)
    try:
        manifest = verify(path)
    except DamagedError as fault:
        raise CheckpointError(
            f"resume_from_checkpoint: {path} is not a whole checkpoint ({fault}). --resume without this key takes the "
            "newest whole one of output_dir"
        ) from None
    return Found(path, manifest.step, manifest)


def _without_manifest(path: Path) -> Found:
    """To name it is to vouch for it: nothing here tells a whole checkpoint of other tools from half of one."""
    missing = _missing(path)
    if missing:
        raise CheckpointError(f"resume_from_checkpoint: {path} is not a whole checkpoint ({missing})")
    note = f"WARNING {path} has no {MANIFEST}: another tool or an older version wrote it, and nothing shows it whole"
    return Found(path, resume_step(path), None, (note,))


def _newest(output_dir: Path, run: str | None) -> Found | None:
    faults: dict[Path, str] = {}
    for path in reversed(checkpoints(output_dir)):
        try:
            manifest = verify(path)
            if run and manifest.facts.run != run:
                raise DamagedError("it belongs to another run")
        except DamagedError as fault:
            faults[path] = str(fault)
            continue
        return Found(path, manifest.step, manifest, tuple(_notes(faults, path, manifest.step)))
    if faults:
        listed = "".join(f"\n  {path.name}: {fault}" for path, fault in faults.items())
        raise CheckpointError(
            f"{output_dir}: no checkpoint is whole, and the run will not start over by itself.{listed}\n"
            "To go on from one without a manifest all the same, name it: resume_from_checkpoint: <folder>. To start "
            "from the beginning: --replace, or move them away"
        )
    return None


def _notes(faults: dict[Path, str], taken: Path, step: int) -> list[str]:
    return [
        f"WARNING {path.name} is not whole ({fault}); going on from {taken.name}, {step_of(path) - step} steps earlier"
        for path, fault in faults.items()
    ]


def _refuse_other_layout(path: Path, engine: Engine) -> None:
    """Random states, row order and optimizer shards belong to one number of processes and one way to share them."""
    world_size, sharding = num_processes(path), _sharding(path)
    now = "" if engine.deepspeed is None else _SHARDINGS[engine.zero_stage]
    if world_size in (0, engine.place.world_size) and sharding == now:
        return
    saved, current = (
        f"{count} process{'' if count == 1 else 'es'} {f'with {kind}' if kind else 'without DeepSpeed'}"
        for count, kind in ((world_size or 1, sharding), (engine.place.world_size, now))
    )
    raise CheckpointError(
        f"{path} was saved by {saved}, and this run has {current}; its optimizer states and random states cannot be "
        f"dealt out anew. Go on with --num-processes {world_size or 1} and the deepspeed: file that it was saved with; "
        f"or train its weights on in a new run of any size, with {_as_base(path)} and another output_dir"
    )


def _as_base(path: Path) -> str:
    """Return the key that starts a new run from a checkpoint's weights."""
    key = "lora_model_dir" if (path / "adapter_model.safetensors").is_file() else "base_model"
    return f"{key}: {path}"


_SHARDINGS = ("DeepSpeed without ZeRO", "ZeRO-1 or 2", "ZeRO-1 or 2", "ZeRO-3")


def num_processes(path: Path) -> int:
    """Return how many processes saved a checkpoint: each left its random state; 0 where none did."""
    return 1 if (path / "rng_state.pth").is_file() else len(list(path.glob("rng_state_*.pth")))


def _sharding(path: Path) -> str:
    """Say how DeepSpeed shared the states out, from the files that it left; nothing without DeepSpeed."""
    if not list(path.glob("global_step*")):
        return ""
    if list(path.glob("global_step*/*zero_pp_rank_*model_states.pt")):
        return _SHARDINGS[3]
    return _SHARDINGS[1 if list(path.glob("global_step*/*_optim_states.pt")) else 0]


def _missing(path: Path) -> str:
    """Name what a checkpoint lacks; an empty string for a whole one."""
    if not path.is_dir():
        return "no such folder"
    state = path / "trainer_state.json"
    if not state.is_file():
        return "no trainer_state.json"
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return "trainer_state.json is damaged"
    if not any((path / name).is_file() for name in _WEIGHTS):
        return "no weights"
    if _sharding(path) in _SHARDINGS[1:]:
        num_shards = len(list(path.glob("global_step*/*_optim_states.pt")))
        if num_shards < num_processes(path):
            return f"optimizer states of {num_shards} of {num_processes(path)} processes"
        needed: tuple[str, ...] = ("latest",)
    else:
        needed = ("latest",) if _sharding(path) else ("optimizer.pt", "scheduler.pt")
    return next((f"no {name}" for name in needed if not (path / name).is_file()), "")
