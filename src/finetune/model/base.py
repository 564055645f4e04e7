"""Finding the base model: a folder here, or a repository on the hub."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from finetune.config.model import ModelSection
from finetune.errors import ModelError


@dataclass(frozen=True)
class BaseModelSource:
    """Where weights and tokenizer are loaded from."""

    name: str
    """Folder or hub name, as transformers takes it."""
    revision: str | None
    is_local: bool


def find_base(model: ModelSection) -> BaseModelSource:
    """Check that ``base_model`` can be loaded, before anything large is read.

    Raises:
        ModelError: no such folder, a folder without a model in it, or a hub name that does not answer.
    """
    path = Path(model.base_model).expanduser()
    if path.is_dir():
        _check_folder(path)
        return BaseModelSource(str(path), None, is_local=True)
    if path.is_file():
        raise ModelError(f"base_model: {path} is a file; name the folder that holds config.json and the weights")
    if model.base_model.startswith(("/", ".", "~")) or model.base_model.count("/") > 1:
        raise ModelError(f"base_model: there is no folder {path}{_sibling(path)}")
    from finetune.model.hub import ask_hub  # noqa: PLC0415 - takes half a second, which a folder does not need

    ask_hub(model.base_model, model.model_revision)
    return BaseModelSource(model.base_model, model.model_revision, is_local=False)


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        adapter = " It holds an adapter: name its base here and the folder in lora_model_dir."
        hint = adapter if (path / "adapter_config.json").is_file() else ""
        raise ModelError(f"base_model: {path} has no config.json, so it is not a model folder.{hint}")
    if not list(path.glob("*.safetensors")):
        found = sorted(entry.name for entry in path.iterdir())[:8]
        pickled = " Pickled weights (*.bin) can run code and are not read; convert them to safetensors."
        hint = pickled if list(path.glob("*.bin")) else " The download may have stopped half-way."
        raise ModelError(f"base_model: {path} has no weights (*.safetensors); it holds {', '.join(found)}.{hint}")
    _refuse_shards_elsewhere(path / "model.safetensors.index.json")
    empty = [entry.name for entry in path.glob("*.safetensors") if entry.stat().st_size == 0]
    if empty:
        raise ModelError(f"base_model: {path / empty[0]} is empty; copy the model again")


def _refuse_shards_elsewhere(index: Path) -> None:
    """The index of a model in several files may name any path, and what lies there would be loaded."""
    if not index.is_file():
        return
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"base_model: {index} is damaged ({type(error).__name__}); copy the model again") from None
    outside = sorted(str(name) for name in names if not isinstance(name, str) or Path(name).name != name)
    if outside:
        raise ModelError(f"base_model: {index} names {outside[0]}, which is no file of this folder; it is not loaded")


def _sibling(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f". Did you mean '{path.parent / close[0]}'?" if close else ""
