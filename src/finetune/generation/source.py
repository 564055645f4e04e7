"""What to load for an answer: a run's configuration, a model folder, or an adapter and its base."""

from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.config import RunConfig, load_config
from finetune.config.data import DataSection
from finetune.config.model import ModelSection
from finetune.config.run import RESOLVED
from finetune.errors import ConfigError, ModelError
from finetune.model.adapter_files import ADAPTER_CONFIG, adapter_base
from finetune.model.precision import Precision, trained_dtype
from finetune.model.processor import cpu_has_bf16


@dataclass(frozen=True)
class ModelSource:
    """A model by its parts."""

    model: ModelSection
    """The base, or a whole model; quantized as in training."""
    adapter_dir: Path | None
    data: DataSection | None
    """How it was trained to be asked; None where nobody recorded it."""
    precision: Precision

    @property
    def name(self) -> str:
        """The model in words."""
        return f"{self.adapter_dir} on {self.model.base_model}" if self.adapter_dir else self.model.base_model


def find_source(place: str, overrides: list[str], adapter: str | None, *, base_only: bool = False) -> ModelSource:
    """Find out what ``place`` is: a YAML file, the folder of an adapter, or the folder of a model.

    With ``base_only`` a run or an adapter gives its base model without what was trained.

    Raises:
        ConfigError: the file is faulty, or the folder holds neither a model nor an adapter.
        ModelError: the run has no result yet.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        return _of_run(load_config(place, overrides), adapter, base_only=base_only)
    if base_only:
        return _base_of(folder, overrides)
    if (folder / ADAPTER_CONFIG).is_file():
        if adapter:
            raise ConfigError(f"{place} is an adapter itself; name its base there, or drop --adapter")
        return _of_adapter(folder, overrides)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds neither a model (config.json) nor an adapter ({ADAPTER_CONFIG}); "
            "name a YAML file, a model folder, or the folder of a run"
        )
    run = _run_of(folder)
    config = load_config(run, overrides) if run else None
    model = ModelSection(base_model=str(folder))
    return ModelSource(model, _adapter(adapter), config.data if config else None, _precision(config))


def _of_run(config: RunConfig, adapter: str | None, *, base_only: bool) -> ModelSource:
    output_dir = Path(config.training.output_dir)
    if base_only:
        model = config.model.model_copy(update={"tokens": [], "load_in_4bit": False, "load_in_8bit": False})
        return ModelSource(model.model_copy(update={"bnb_config_kwargs": {}}), None, None, _precision(config))
    if config.adapter.adapter:
        return ModelSource(config.model, _adapter(adapter or str(output_dir)), config.data, _precision(config))
    if not (output_dir / "config.json").is_file():
        raise ModelError(f"output_dir: {output_dir} holds no model yet; train first, or name a model folder")
    return ModelSource(ModelSection(base_model=str(output_dir)), _adapter(adapter), config.data, _precision(config))


def _of_adapter(folder: Path, overrides: list[str]) -> ModelSource:
    run = _run_of(folder)
    if run:
        config = load_config(run, overrides)
        return ModelSource(config.model, folder, config.data, _precision(config))
    return ModelSource(_recorded_base(folder), folder, None, _precision(None))


def _base_of(folder: Path, overrides: list[str]) -> ModelSource:
    """The base of the run or of the adapter in ``folder``."""
    run = _run_of(folder)
    if run:
        return _of_run(load_config(run, overrides), None, base_only=True)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ConfigError(f"--base: nothing in {folder} says what it was trained from; name that model's folder itself")
    return ModelSource(_recorded_base(folder), None, None, _precision(None))


def _run_of(folder: Path) -> Path | None:
    """Return the configuration of the run that ``folder``, or a checkpoint in it, comes from."""
    return next((parent / RESOLVED for parent in (folder, folder.parent) if (parent / RESOLVED).is_file()), None)


def _recorded_base(folder: Path) -> ModelSection:
    advice = "name the base's folder, and the adapter in --adapter"
    return ModelSection(base_model=adapter_base(folder, advice))


def _adapter(folder: str | None) -> Path | None:
    if folder is None:
        return None
    path = Path(folder).expanduser()
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"{path} has no {ADAPTER_CONFIG}; train first, or name the adapter's folder with --adapter")
    return path


def _precision(config: RunConfig | None) -> Precision:
    """Compute as training did, but for float16 on a CPU, which is slow there."""
    auto = torch.bfloat16 if torch.cuda.is_available() or cpu_has_bf16() else torch.float32
    dtype = trained_dtype(config.training) if config else auto
    return Precision(torch.float32 if dtype == torch.float16 and not torch.cuda.is_available() else dtype)
