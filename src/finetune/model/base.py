"""Finding the base model: a folder here, or a repository on the hub."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

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
    _ask_hub(model.base_model, model.model_revision)
    return BaseModelSource(model.base_model, model.model_revision, is_local=False)


@dataclass(frozen=True)
class BaseMetadata:
    """What the base model's own card says of it, as far as it says anything."""

    license: str | None = None
    languages: tuple[str, ...] = ()


def read_metadata(base: BaseModelSource) -> BaseMetadata:
    """Read licence and language from the front matter of the base's card; nothing where there is no card."""
    try:
        local = Path(base.name) / "README.md"
        path = local if base.is_local else Path(hf_hub_download(base.name, "README.md", revision=base.revision))
        data = ModelCardData(**yaml.safe_load(_front_matter(path.read_text(encoding="utf-8"))))
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled, UnicodeDecodeError, yaml.YAMLError, TypeError):
        return BaseMetadata()
    languages = [data.language] if isinstance(data.language, str) else data.language or []
    return BaseMetadata(data.license, tuple(languages))


def _front_matter(card: str) -> str:
    """The YAML between the first two ``---`` lines, or nothing."""
    parts = card.split("---\n", 2)
    return parts[1] if len(parts) == 3 and not parts[0].strip() else ""


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
    empty = [entry.name for entry in path.glob("*.safetensors") if entry.stat().st_size == 0]
    if empty:
        raise ModelError(f"base_model: {path / empty[0]} is empty; copy the model again")


def _sibling(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f". Did you mean '{path.parent / close[0]}'?" if close else ""


def _ask_hub(name: str, revision: str | None) -> None:
    """Fetch config.json, the smallest file that tells whether the rest can be had."""
    at = f"{name}@{revision}" if revision else name
    try:
        hf_hub_download(name, "config.json", revision=revision)
    except GatedRepoError:
        raise ModelError(
            f"base_model: {at} is gated; accept its terms at https://huggingface.co/{name} and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"base_model: there is no folder {name} here and no such model on the hub (a private one needs HF_TOKEN)"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"base_model: {name} has no revision {revision}") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        reason = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else "the hub does not answer"
        raise ModelError(
            f"base_model: there is no folder {name} here, it is not in the hub's cache, and {reason}"
        ) from None
    except EntryNotFoundError:
        raise ModelError(f"base_model: {at} has no config.json, so it is not a model") from None
    except HFValidationError as error:
        raise ModelError(f"base_model: there is no folder {name} here, and it is no hub name ({error})") from None
    except HfHubHTTPError as error:
        raise ModelError(f"base_model: the hub refused {at}: {error}") from None
