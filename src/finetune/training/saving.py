"""The final folder: what somebody else will load."""

from pathlib import Path

from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase

from finetune.errors import CheckpointError
from finetune.model.build import TrainableModel
from finetune.model.sharded import whole_weights
from finetune.model.stored import save_weights


def save_final(trainable: TrainableModel, tokenizer: PreTrainedTokenizerBase, output_dir: Path, *, main: bool) -> None:
    """Write an adapter, or whole weights in the format of the base, with tokenizer and chat template.

    An adapter holds the rows of added tokens by themselves, so the embedding matrices are not written beside them.
    To be called by every process, because ZeRO-3 gathers the weights from all of them; the main one writes.

    Raises:
        CheckpointError: a written tensor is empty, or the folder has no weights.
    """
    model = trainable.model
    if isinstance(model, PeftModel):
        weights = whole_weights(model, keep=main)
        if main:
            model.save_pretrained(output_dir, state_dict=weights, save_embedding_layers=False)
            model.generation_config.save_pretrained(output_dir)
    else:
        save_weights(model, output_dir, trainable.stored, main=main)
    if main:
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
