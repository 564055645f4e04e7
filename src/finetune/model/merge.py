"""Folding an adapter into the weights of its base: :func:`merge_adapter`, top to bottom."""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import snapshot_download
from transformers import PreTrainedTokenizerBase

from finetune.config.model import ModelSection
from finetune.disk import refuse_small_disk
from finetune.errors import ModelError
from finetune.model.base import BaseModelSource, find_base
from finetune.model.merging.adapter import Adapter, read_adapter
from finetune.model.merging.fold import make
from finetune.model.merging.folder import (
    REPORT,
    ROOM,
    copy_code,
    copy_record,
    published,
    refuse_existing,
    write_configs,
    write_index,
)
from finetune.model.merging.plan import Layout, Plan, Recipe, Vocabulary, asks_for_layout, make_plan
from finetune.model.merging.probe import HeldOut
from finetune.model.merging.shards import DTYPES, Piece, read_header, read_headers, write_file
from finetune.model.tokenizer import load_saved_tokenizer

if TYPE_CHECKING:
    from finetune.model.merging.verify import Verification

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Told of bytes written, and of bytes in all."""


@dataclass(frozen=True)
class MergeRequest:
    """What is merged, into what, and where to."""

    model: ModelSection
    adapter_dir: Path
    folder: Path
    compute_dtype: torch.dtype = torch.float32
    """Format that training computed in; a quantized base is dequantized to it."""
    into_full: bool = False
    """Merge the adapter of a quantized base into the full-precision base instead of the dequantized one."""
    dtype: torch.dtype | None = None
    """Format of the merged weights; None keeps that of each tensor of the base."""
    overwrite: bool = False
    """Replace an earlier merge in ``folder``."""

    @property
    def dequantizes(self) -> bool:
        return self.model.quantized and not self.into_full

    @property
    def full_precision(self) -> ModelSection:
        """The model as it is stored."""
        return self.model.model_copy(update={"load_in_4bit": False, "load_in_8bit": False, "bnb_config_kwargs": {}})


@dataclass(frozen=True)
class Merged:
    """A finished merge."""

    folder: Path
    num_changed: int
    seconds: float
    """Reading, adding and writing, without the verification."""
    verification: "Verification | None"


def merge_adapter(
    request: MergeRequest,
    held_out: Callable[[PreTrainedTokenizerBase], HeldOut] | None,
    say: Say,
    progress: Progress = lambda _done, _total: None,
) -> Merged:
    """Merge the adapter into its base and publish an ordinary model folder, whole or not at all.

    Weights stream through memory a few rows at a time.  With ``held_out`` the result is compared with base and
    adapter before it is published.

    Raises:
        ModelError: the adapter is missing or damaged, belongs to another base, or the result does not agree.
        CheckpointError: the target exists already, or the disk is full.
    """
    refuse_existing(request.folder, overwrite=request.overwrite)
    adapter = read_adapter(request.adapter_dir)
    _refuse_other_base(request.model.base_model, adapter)
    base = find_base(request.model)
    weights = _weights_folder(base)
    loaded = load_saved_tokenizer(request.model, base, request.adapter_dir)
    tokenizer, vocabulary = loaded.tokenizer, Vocabulary(len(loaded.tokenizer), loaded.added_ids)
    plan = _plan(request, adapter, base, weights, vocabulary)
    start = time.monotonic()
    with published(request.folder, overwrite=request.overwrite) as staging:
        if isinstance(plan, Plan):
            say(_describe(request, plan))
            _write_weights(plan, request, staging, progress)
            write_configs(base, plan, tokenizer, request.dtype, staging, remote_code=request.model.trust_remote_code)
        else:
            _through_peft(request, base, tokenizer, vocabulary, staging, plan, say)
        tokenizer.save_pretrained(staging)
        copy_record(request.adapter_dir, staging)
        if request.model.trust_remote_code:
            copy_code(weights, staging)
        seconds = time.monotonic() - start
        verification = _verify(request, base, vocabulary, staging, held_out(tokenizer)) if held_out else None
        num_changed = plan.num_changed if isinstance(plan, Plan) else 0
        merged = Merged(request.folder, num_changed, seconds, verification)
        _write_report(request, plan, merged, staging)
    return merged


def _refuse_other_base(base_model: str, adapter: Adapter) -> None:
    """Compare the names of the two bases, without their folders: a model may have moved, but not become another."""
    trained_on = adapter.config.get("base_model_name_or_path")
    if trained_on and Path(trained_on).name != Path(base_model).name:
        raise ModelError(
            f"merge-lora: {adapter.folder} was trained on {trained_on}, and base_model is {base_model}; "
            f"merge with --base_model {trained_on}"
        )


def _weights_folder(base: BaseModelSource) -> Path:
    """Return where the base's files are on this machine; a hub model is downloaded if it is not there yet."""
    if base.is_local:
        return Path(base.name)
    return Path(
        snapshot_download(base.name, revision=base.revision, allow_patterns=["*.safetensors", "*.json", "*.py"])
    )


def _plan(
    request: MergeRequest, adapter: Adapter, base: BaseModelSource, weights: Path, vocabulary: Vocabulary
) -> Plan | str:
    """Plan the files of the merged model; in words, why they cannot be streamed."""
    files = read_headers(weights)
    if adapter.obstacle:
        return f"its {adapter.obstacle} is PEFT's to merge"
    layout = Layout()
    if request.dequantizes or asks_for_layout(adapter, vocabulary):
        from finetune.model.load import quantization
        from finetune.model.merging.layout import read_layout
        from finetune.model.precision import Precision

        held = quantization(request.model, Precision(request.compute_dtype)) if request.dequantizes else None
        layout = read_layout(base, held, trust_remote_code=request.model.trust_remote_code)
    plan = make_plan(files, adapter, layout, vocabulary, request.dtype)
    if isinstance(plan, Plan):
        size = sum(recipe.shape.num_bytes for recipes in plan.files.values() for recipe in recipes)
        refuse_small_disk(request.folder, "the merged model", ROOM, needed=size)
    return plan


def _describe(request: MergeRequest, plan: Plan) -> str:
    if request.dequantizes:
        into = f"the dequantized base, as it was in training ({plan.num_quantized} matrices)"
    else:
        into = "the full-precision base" + (", not the quantized one of the training" if request.into_full else "")
    return f"merging {plan.num_changed} modules of {request.adapter_dir} into {into}"


def _write_weights(plan: Plan, request: MergeRequest, folder: Path, progress: Progress) -> None:
    """Write the weights file by file, and read their headers back."""

    def dequantize(weight: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
        from finetune.model.merging.quantized import as_trained

        return as_trained(weight, layer, request.compute_dtype)

    total = sum(recipe.shape.num_bytes for recipes in plan.files.values() for recipe in recipes)
    done = 0

    def counted(recipe: Recipe) -> Iterator[Piece]:
        nonlocal done
        for piece in make(recipe, dequantize):
            yield piece
            done += len(piece)
            progress(done, total)

    for name, recipes in plan.files.items():
        write_file(folder / name, [(recipe.shape, counted(recipe)) for recipe in recipes])
        written = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read_header(folder / name)}
        assert written == {recipe.name: (recipe.shape.dtype, recipe.shape.shape) for recipe in recipes}
    write_index(plan, folder)


def _through_peft(
    request: MergeRequest,
    base: BaseModelSource,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    folder: Path,
    reason: str,
    say: Say,
) -> None:
    from finetune.model.merging.in_memory import merge_in_memory

    if request.dequantizes:
        raise ModelError(
            f"merge-lora: {request.adapter_dir} cannot be merged into the dequantized base: {reason}; "
            "merge it into the full-precision base with --into full"
        )
    say(f"merging {request.adapter_dir} with PEFT, the whole model in memory: {reason}")
    merge_in_memory(request.full_precision, base, request.adapter_dir, tokenizer, vocabulary, request.dtype, folder)


def _verify(
    request: MergeRequest, base: BaseModelSource, vocabulary: Vocabulary, folder: Path, held_out: HeldOut
) -> "Verification":
    """Compare; a merge that does not agree is not published."""
    from finetune.model.merging.verify import Reference, verify

    stored = _main_dtype(folder)
    dtype = request.compute_dtype if request.model.quantized else stored
    reference = Reference(request.model, base, request.adapter_dir, vocabulary, dtype)
    result = verify(reference, folder, held_out, stored, into_full=request.into_full)
    if not result.passed:
        raise ModelError(
            f"merge-lora: the merged model does not compute what base and adapter compute: a logit differs by "
            f"{result.merged.max_difference:.3g} (bound {result.bound:.3g} for {_name(stored)} weights), "
            f"{result.merged.mean_difference:.3g} on average (bound {result.mean_bound:.3g}); the first choice is the "
            f"same at {result.merged.top1:.1%} of the positions. Nothing was written to {request.folder}"
        )
    return result


def _main_dtype(folder: Path) -> torch.dtype:
    """Return the format that most numbers of a model are stored in."""
    sizes: dict[torch.dtype, int] = {}
    for tensors in read_headers(folder).values():
        for tensor in tensors:
            if tensor.is_float:
                dtype = DTYPES[tensor.dtype]
                sizes[dtype] = sizes.get(dtype, 0) + tensor.num_bytes // dtype.itemsize
    return max(sizes, key=lambda dtype: sizes[dtype])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write_report(request: MergeRequest, plan: Plan | str, merged: Merged, folder: Path) -> None:
    """Write what was done beside the weights, without a path of this machine."""
    model = request.model
    report = {
        "base_model": Path(model.base_model).name if model.base_is_folder else model.base_model,
        "adapter": request.adapter_dir.resolve().name,
        "into": "dequantized" if request.dequantizes else "full",
        "with": "finetune, streamed" if isinstance(plan, Plan) else "PEFT, in memory",
        "modules_changed": merged.num_changed,
        "matrices_dequantized": plan.num_quantized if isinstance(plan, Plan) else 0,
        "embeddings_untied": isinstance(plan, Plan) and plan.unties,
        "format": _name(_main_dtype(folder)),
        "seconds": round(merged.seconds, 2),
        "verification": merged.verification.to_dict() if merged.verification else None,
        "versions": {name: importlib.metadata.version(name) for name in ("finetune", "torch", "transformers", "peft")},
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
