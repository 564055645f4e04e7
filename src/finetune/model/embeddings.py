"""Rows of the embedding matrices for tokens that the base model never saw."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from finetune.errors import ModelError
from finetune.model.sharded import gathered, true_shape


def add_token_rows(model: PreTrainedModel, vocab_size: int, added_ids: Sequence[int]) -> bool:
    """Give each added token a row: the mean of the rows of the old tokens, in and out.

    The matrices grow when ``vocab_size`` (tokens in the tokenizer) exceeds their rows; many models have spare rows,
    which are used first.  The mean keeps the logits of the new tokens ordinary: a random row would be either
    impossible or overwhelming (Hewitt 2021, "Initializing new word embeddings").

    Returns:
        Whether the matrices grew.

    Raises:
        ModelError: the base has fewer embeddings than its own tokenizer has tokens.
    """
    num_rows: int = true_shape(model.get_input_embeddings().weight)[0]
    if vocab_size - len(added_ids) > num_rows:
        raise ModelError(
            f"the tokenizer has {vocab_size - len(added_ids)} tokens and the model {num_rows} embeddings; "
            "the two do not belong together"
        )
    if not added_ids:
        return False
    old_rows = min(*added_ids, num_rows)
    grew = vocab_size > num_rows
    if grew:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    rows = torch.tensor(list(added_ids))
    matrices = {
        id(layer.weight): layer.weight
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer
    }
    with torch.no_grad():
        for weight in matrices.values():
            with gathered([weight], writer=0):
                weight[rows.to(weight.device)] = weight[:old_rows].float().mean(dim=0).to(weight.dtype)
    return grew
