"""The final folder: what somebody else will load."""

from pathlib import Path

from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.errors import CheckpointError
from finetune.model.stored import StoredFormat, save_weights


def save_final(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path, stored: StoredFormat
) -> None:
    """Write an adapter, or whole weights in the format of the base, with tokenizer and chat template.

    An adapter holds the rows of added tokens by themselves, so the embedding matrices are not written beside them.

    Raises:
        CheckpointError: a written tensor is empty, or the folder has no weights.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(output_dir, save_embedding_layers=False)
        model.generation_config.save_pretrained(output_dir)
    else:
        save_weights(model, output_dir, stored)
    tokenizer.save_pretrained(output_dir)
    check_weights(output_dir)


def check_weights(folder: Path) -> int:
    """Read the headers of the safetensors files in ``folder`` back and return the number of tensors.

    Raises:
        CheckpointError: there are no weights, or a tensor has no elements.
    """
    num_tensors = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle cannot be iterated
                if 0 in handle.get_slice(name).get_shape():
                    raise CheckpointError(f"{file}: tensor {name} is empty; the weights were not saved")
                num_tensors += 1
    if num_tensors == 0:
        raise CheckpointError(f"{folder}: no weights were written")
    return num_tensors
