"""The folder of a merged model: what stands beside its weights, and how it appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from finetune.config.run import RESOLVED
from finetune.disk import writing
from finetune.errors import CheckpointError, ModelError
from finetune.model.base import BaseModelSource
from finetune.model.generation import align_configs
from finetune.model.merging.plan import Plan
from finetune.model.merging.shards import INDEX

REPORT = "merge.json"
"""What was merged and how well it agrees; it also marks a folder as one of ours."""

ROOM = "free some space, or give another --output"
"""What to do where the disk is full."""


@contextmanager
def published(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write in, and rename it to ``folder`` at the end; a failure leaves nothing.

    Raises:
        CheckpointError: ``folder`` is there and may not be replaced, or cannot be written.
    """
    refuse_existing(folder, overwrite=overwrite)
    staging = folder.with_name(f".{folder.name}.staging")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # what a killed merge left
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); give another --output") from error
    try:
        with writing(folder, "the merged model", ROOM):
            yield staging
            _replace(folder, staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder with something in it, unless a merge made it and it may be replaced."""
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; give another --output")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / REPORT).is_file():
        raise CheckpointError(
            f"{folder} exists already and was not made by merge-lora; move it away or give another --output"
        )
    if not overwrite:
        raise CheckpointError(f"{folder} exists already; give --overwrite to replace it, or another --output")


def _replace(folder: Path, staging: Path) -> None:
    old = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)


def write_index(plan: Plan, folder: Path) -> None:
    """Write the index of several weights files; one file needs none."""
    if list(plan.files) == ["model.safetensors"]:
        return
    recipes = [recipe for recipes in plan.files.values() for recipe in recipes]
    total = sum(recipe.shape.num_bytes for recipe in recipes)
    weight_map = {recipe.name: file for file, recipes in plan.files.items() for recipe in recipes}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_configs(
    base: BaseModelSource,
    plan: Plan,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype | None,
    folder: Path,
    *,
    remote_code: bool,
) -> None:
    """Write the model's and the generation's configuration, changed where the weights or the tokens changed.

    Raises:
        ModelError: the base's configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(base.name, revision=base.revision, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{base.name}: its config.json cannot be used: {lines[0]}") from error
    try:
        generation = GenerationConfig.from_pretrained(base.name, revision=base.revision)
    except OSError:  # a base need not have one
        generation = GenerationConfig.from_model_config(config)
    align_configs(config, generation, tokenizer)
    if dtype is not None:
        config.dtype = dtype
    if plan.vocab_size:
        config.get_text_config().vocab_size = plan.vocab_size
    if plan.unties:
        config.get_text_config().tie_word_embeddings = False
        config.tie_word_embeddings = False
    config.use_cache = True
    config.save_pretrained(folder)
    generation.save_pretrained(folder)


def copy_code(source: Path, folder: Path) -> None:
    """Copy the Python files of a base that brings its own."""
    for file in source.glob("*.py"):
        shutil.copyfile(file, folder / file.name)


def copy_record(adapter_dir: Path, folder: Path) -> None:
    """Copy the run's resolved configuration, which says in which format the model was trained to be asked."""
    for parent in (adapter_dir, adapter_dir.resolve().parent):
        if (parent / RESOLVED).is_file():
            shutil.copyfile(parent / RESOLVED, folder / RESOLVED)
            return
