"""Folding an adapter into the weights of its base."""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

from finetune.config.model import ModelSection
from finetune.errors import CheckpointError, ModelError
from finetune.model.adapters import load_adapter
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.embeddings import add_token_rows
from finetune.model.generation import align_special_tokens
from finetune.model.load import load_model, stored_dtype
from finetune.model.precision import Precision
from finetune.model.stored import read_stored_format, save_weights
from finetune.model.tokenizer import load_tokenizer


def merge_adapter(model: ModelSection, adapter_dir: str, folder: Path) -> None:
    """Merge the adapter in ``adapter_dir`` into the full-precision base and write an ordinary model ``folder``.

    The folder appears whole or not at all.  The sum is taken in float32 and stored in the format of the base, with
    the tokenizer that was saved with the adapter.

    Raises:
        ModelError: the adapter is missing or belongs to another base.
        CheckpointError: the target exists already.
    """
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; move it away or give another --output")
    if not (Path(adapter_dir) / "adapter_config.json").is_file():
        raise ModelError(f"merge-lora: {adapter_dir} has no adapter_config.json; name the folder with --lora-model-dir")
    _refuse_other_base(model.base_model, Path(adapter_dir))
    full = model.model_copy(update={"load_in_4bit": False, "load_in_8bit": False, "bnb_config_kwargs": {}})
    base = find_base(full)
    loaded = load_tokenizer(full, base)
    precision = Precision(torch.float32)
    network, _ = load_model(full, base, choose_attention(full, precision), precision, torch.float32)
    add_token_rows(network, len(loaded.tokenizer), loaded.added_ids)
    merged = load_adapter(network, adapter_dir, trainable=False).merge_and_unload(safe_merge=True)
    tokenizer = (
        AutoTokenizer.from_pretrained(adapter_dir)
        if (Path(adapter_dir) / "tokenizer.json").is_file()
        else loaded.tokenizer
    )
    staging = folder.with_name(f".{folder.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    align_special_tokens(merged, tokenizer)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); give another --output") from error
    save_weights(merged, staging, read_stored_format(base, stored_dtype(full, base)))
    tokenizer.save_pretrained(staging)
    staging.rename(folder)


def _refuse_other_base(base_model: str, adapter_dir: Path) -> None:
    """Compare the names of the two bases, without their folders: a model may have moved, but not become another."""
    trained_on = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))[
        "base_model_name_or_path"
    ]
    if trained_on and Path(trained_on).name != Path(base_model).name:
        raise ModelError(
            f"merge-lora: {adapter_dir} was trained on {trained_on}, and base_model is {base_model}; "
            f"merge with --base_model {trained_on}"
        )
