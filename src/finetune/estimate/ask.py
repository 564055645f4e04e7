"""From a configuration to all that its memory depends on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.config import RunConfig
from finetune.config.model import ModelSection
from finetune.errors import ModelError
from finetune.estimate.devices import Device, device_here
from finetune.estimate.holding import grow
from finetune.estimate.setup import Setup
from finetune.estimate.tensors import Base, read_base
from finetune.model.base import BaseModelSource, find_base
from finetune.model.light import load_light_tokenizer


def setup_of(
    config: RunConfig, deepspeed: Mapping[str, Any] | None, num_processes: int, device: Device | None = None
) -> Setup:
    """Read the base's shapes and return the setup of ``config``; on this machine's device unless told otherwise.

    Raises:
        ModelError: the base cannot be found or read.
    """
    base, num_added = _with_added_tokens(config.model, read_base(find_shapes(config.model)))
    return Setup(
        model=config.model,
        adapter=config.adapter,
        data=config.data,
        training=config.training,
        deepspeed=deepspeed,
        base=base,
        num_added=num_added,
        device=device or device_here(num_processes),
        num_processes=num_processes,
    )


def find_shapes(model: ModelSection) -> BaseModelSource:
    """Return where config.json is; a folder needs no weights for an estimate, and a hub name is not asked about.

    Raises:
        ModelError: there is no such folder, or no config.json in it.
    """
    path = Path(model.base_model).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        return BaseModelSource(str(path), None, is_local=True)
    if path.exists() or model.base_is_folder or model.base_model.count("/") > 1:
        return find_base(model)  # which says what is wrong
    return BaseModelSource(model.base_model, model.model_revision, is_local=False)


def _with_added_tokens(model: ModelSection, base: Base) -> tuple[Base, int]:
    """Grow the embeddings for the tokens that the configuration adds; the tokenizer is read only if there are any."""
    special = model.special_tokens.model_dump(exclude_none=True)
    if not model.tokens and not special:
        return base, 0
    folder = Path(base.name)
    plain = model.model_copy(update={"tokens": [], "special_tokens": type(model.special_tokens)()})
    before, after = (load_light_tokenizer(section, folder) for section in (plain, model))
    if before is None or after is None:
        return _without_tokenizer(model, base, special)
    num_added = len(after) - len(before)
    return (grow(base, len(after)) if num_added else base), num_added


def _without_tokenizer(model: ModelSection, base: Base, special: Mapping[str, Any]) -> tuple[Base, int]:
    """Take every token for a new one."""
    more = special.get("additional_special_tokens") or []
    num_added = len(model.tokens) + len(more) + len([role for role in special if role.endswith("_token")])
    embeddings = [tensor for tensor in base.tensors if tensor.is_embedding]
    if not embeddings:
        raise ModelError(f"{base.name}: no input embedding is among its tensors")
    return grow(base, embeddings[0].shape[0] + num_added), num_added
