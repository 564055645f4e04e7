"""The final folder: what somebody else will load."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from finetune.errors import CheckpointError
from finetune.model.build import TrainableModel
from finetune.model.sharded import true_shape, whole_weights
from finetune.model.stored import DTYPES, StoredFormat, save_weights


def save_final(trainable: TrainableModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path, *, main: bool) -> None:
    """Write an adapter, or whole weights in the format of the base, with tokenizer and chat template.

    An adapter holds the rows of added tokens by themselves, so the embedding matrices are not written beside them.
    To be called by every process, because ZeRO-3 gathers the weights from all of them; the main one writes.

    Raises:
        CheckpointError: what is in the files is not what the model has; see :func:`check_weights`.
    """
    model = trainable.model
    if isinstance(model, PeftModel):
        weights = whole_weights(model, keep=main)
        if main:
            model.save_pretrained(output_dir, state_dict=weights, save_embedding_layers=False)
            model.generation_config.save_pretrained(output_dir)
            (output_dir / "README.md").unlink(missing_ok=True)  # PEFT's own; the card of the run comes later
    else:
        save_weights(model, output_dir, trainable.stored, main=main)
    if main:
        tokenizer.save_pretrained(output_dir)
        check_weights(output_dir, expect_weights(model, trainable.stored))


@dataclass(frozen=True)
class ExpectedWeights:
    """What has to be in the files of a saved model."""

    tensors: dict[str, torch.Tensor]
    """By name in the file; without content, for shape and format alone."""
    has_formats: bool
    """Whether the formats count."""
    tied: dict[str, set[str]]
    """Names of one tensor each, of which any one has to be there."""


def expect_weights(model: PreTrainedModel | PeftModel, stored: StoredFormat | None) -> ExpectedWeights:
    """Return what the files of ``model`` have to hold, from the model itself, wherever ZeRO has put its weights.

    An adapter's file has the adapter alone, in the format that it has in memory.  The whole weights of a model are in
    ``stored`` formats; None for a checkpoint, whose formats are the engine's.
    """
    adapter = isinstance(model, PeftModel)
    state = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    names_of: dict[int, set[str]] = {}
    for name, value in state.items():
        names_of.setdefault(id(value), set()).add(name)
    empty = {
        name: torch.empty(
            true_shape(value),
            dtype=stored.of(name) if stored and not adapter and value.is_floating_point() else value.dtype,
            device="meta",
        )
        for name, value in state.items()
    }
    tensors = (
        get_peft_model_state_dict(model, state_dict=empty, save_embedding_layers=False)
        if adapter
        else revert_weight_conversion(model, empty)  # some files have other names than the model, as they came
    )
    return ExpectedWeights(tensors, stored is not None, {name: names_of[id(value)] for name, value in state.items()})


def check_weights(folder: Path, expected: ExpectedWeights) -> int:
    """Read the headers of the safetensors files in ``folder`` back and return the number of tensors.

    Raises:
        CheckpointError: there are no weights, or a tensor is empty, missing, or of another shape or format.
    """
    found: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle cannot be iterated
                header = handle.get_slice(name)
                fault = _fault(header.get_shape(), header.get_dtype(), expected, name)
                if fault:
                    raise CheckpointError(f"{file}: tensor {name} {fault}; the weights were not saved")
                found.add(name)
    if not found:
        raise CheckpointError(f"{folder}: no weights were written")
    missing = sorted(name for name in expected.tensors.keys() - found if not expected.tied.get(name, set()) & found)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CheckpointError(f"{folder}: {', '.join(missing[:3])}{more} missing; the weights were not saved")
    return len(found)


def _fault(shape: list[int], dtype: str, expected: ExpectedWeights, name: str) -> str:
    """Return what is wrong with a tensor of a file, in words; an empty string for one that is right."""
    if 0 in shape:
        return "is empty"
    tensor = expected.tensors.get(name)
    if tensor is None:
        return ""
    if shape != list(tensor.shape):
        return f"has the shape {shape}, and the model's is {list(tensor.shape)}"
    wanted = tensor.dtype
    if expected.has_formats and dtype in DTYPES and DTYPES[dtype] != wanted:
        return f"is in {dtype}, and its format is {str(wanted).removeprefix('torch.')}"
    return ""
