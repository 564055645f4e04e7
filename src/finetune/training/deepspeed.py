"""The ``deepspeed:`` file: found, read, and brought together with the YAML."""

import copy
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.config.distributed import DistributedSection
from finetune.config.secrets import secret_values
from finetune.config.training import TrainingSection
from finetune.errors import ConfigError, nearest

if TYPE_CHECKING:  # it brings torch, which reading the file does not need
    from finetune.model.precision import Precision

SHIPPED = "deepspeed_configs"
"""Folder of the files that come with the project: in the wheel, or at the root of the repository."""


def load_deepspeed(distributed: DistributedSection, yaml_file: Path) -> tuple[Path, dict[str, Any]] | None:
    """Read the DeepSpeed file that the YAML names, or None where it names none.

    A relative path is looked up beside the YAML, then in the working directory, then among the shipped files.

    Raises:
        ConfigError: there is no such file, it is not a JSON object, or it holds a credential.
    """
    if not distributed.deepspeed:
        return None
    path = find_deepspeed(distributed.deepspeed, yaml_file)
    text = path.read_text(encoding="utf-8")
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{_place(path, error)} (named by deepspeed: in {yaml_file})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}:1:1: DeepSpeed settings are a JSON object, in braces (deepspeed: in {yaml_file})")
    if secret := next(secret_values(settings), None):  # DeepSpeed writes its settings into each checkpoint
        raise ConfigError(f"{path}: {secret.message} (named by deepspeed: in {yaml_file})")
    return path, settings


def find_deepspeed(name: str, yaml_file: Path) -> Path:
    """Return the file that ``deepspeed: name`` means.

    Raises:
        ConfigError: it is nowhere.
    """
    wanted = Path(name).expanduser()
    shipped = shipped_folder()
    places = [yaml_file.resolve().parent / wanted, Path.cwd() / wanted]
    if not wanted.is_absolute() and wanted.parent.name in ("", SHIPPED):
        places.append(shipped / wanted.name)
    for place in places:
        if place.is_file():
            return place
    names = sorted(file.name for file in shipped.glob("*.json"))
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise ConfigError(
        f"deepspeed: {name} (in {yaml_file}) is not there; looked for {looked}.{nearest(wanted.name, names)} "
        f"Shipped: {', '.join(names) or 'none'}"
    )


def shipped_folder() -> Path:
    """The folder of the shipped files, in an installed wheel or in the repository."""
    package = Path(str(files("finetune")))
    installed = package / SHIPPED
    return installed if installed.is_dir() else package.parents[1] / SHIPPED


def _place(path: Path, error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
    return f"{path}: not JSON: {error}"


def resolve_deepspeed(
    found: tuple[Path, dict[str, Any]] | None,
    training: TrainingSection,
    precision: "Precision",
    world_size: int,
    *,
    cpu: bool,
) -> dict[str, Any] | None:
    """Fill the settings with the values of the YAML, which decides batches, clipping, precision and schedule.

    A key that is missing gets the YAML's value like one that says ``auto``: DeepSpeed's own defaults are others (it
    would not clip, for one).  Sizes that say ``auto`` and depend on the model stay for transformers to fill.

    Raises:
        ConfigError: a value of the file contradicts the YAML.
    """
    if found is None:
        return None
    path, settings = found[0], copy.deepcopy(found[1])
    if cpu and isinstance(settings.get("bf16"), dict):
        settings["bf16"]["enabled"] = "auto"  # DeepSpeed computes in float32 there, whatever the file says
    faults = [
        *_fill(settings, _plain_values(training, world_size)),
        *_fill_precision(settings, precision),
        *_optimizer_faults(settings, training),
    ]
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        faults.append(f"zero_optimization.stage is {stage!r}; it is 0, 1, 2 or 3")
    if faults:
        raise ConfigError(
            f"{path} contradicts the YAML:\n  " + "\n  ".join(faults) + '\nWrite "auto" there to take the YAML\'s value'
        )
    if stage == 3 and precision.fp8:
        raise ConfigError(
            f"{path}: zero_optimization.stage is 3, and fp8 would keep each gathered weight until its backward pass; "
            "use ZeRO-1 or 2, or leave fp8 out"
        )
    return settings


def _plain_values(training: TrainingSection, world_size: int) -> dict[str, tuple[str, float]]:
    """DeepSpeed's key to the YAML's key and value."""
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    processes = "processes" if world_size > 1 else "process"
    return {
        "train_micro_batch_size_per_gpu": ("micro_batch_size", micro),
        "gradient_accumulation_steps": ("gradient_accumulation_steps", accumulation),
        "train_batch_size": (
            f"micro_batch_size x gradient_accumulation_steps x {world_size} {processes}",
            micro * accumulation * world_size,
        ),
        "gradient_clipping": ("max_grad_norm", training.max_grad_norm),
    }


def _fill(settings: dict[str, Any], values: dict[str, tuple[str, float]]) -> Iterator[str]:
    for name, (key, value) in values.items():
        given = settings.get(name, "auto")
        if given not in ("auto", value):
            yield f"{name} is {given}, and {key} is {value:g}"
        settings[name] = value


def _fill_precision(settings: dict[str, Any], precision: "Precision") -> Iterator[str]:
    for name, enabled in (("bf16", precision.bf16), ("fp16", precision.fp16)):
        block = settings.setdefault(name, {})
        given = block.get("enabled", "auto")
        if given not in ("auto", enabled):
            compute = str(precision.compute_dtype).removeprefix("torch.")
            yield f"{name}.enabled is {str(given).lower()}, and this run computes in {compute} (bf16, fp16)"
        block["enabled"] = enabled


def _optimizer_faults(settings: dict[str, Any], training: TrainingSection) -> Iterator[str]:
    """Compare the blocks that would replace the YAML's optimizer and schedule."""
    if "scheduler" in settings:
        yield f"scheduler is given, and lr_scheduler is {training.lr_scheduler}; remove the block"
    block = settings.get("optimizer")
    if not block:
        return
    name = str(block.get("type", ""))
    if name.lower() not in ("adam", "adamw") or training.optimizer not in ("adamw_torch", "adamw_torch_fused"):
        yield f"optimizer.type is {name}, and optimizer is {training.optimizer}; remove the block"
    values = {
        "lr": ("learning_rate", training.learning_rate),
        "eps": ("adam_epsilon", training.adam_epsilon),
        "weight_decay": ("weight_decay", training.weight_decay),
        "betas": ("adam_beta1, adam_beta2", [training.adam_beta1, training.adam_beta2]),
    }
    parameters = block.setdefault("params", {})
    for parameter, (key, value) in values.items():
        given = parameters.get(parameter, "auto")
        if given not in ("auto", value):
            yield f"optimizer.params.{parameter} is {given}, and {key} is {value}"
        parameters[parameter] = value
