"""Whether a model has room for the configured length."""

from transformers import PretrainedConfig

from finetune.errors import ModelError

PADDING = 64
"""Batches are padded to a multiple of this."""


def check_positions(config: PretrainedConfig, sequence_len: int) -> str | None:
    """Compare ``sequence_len`` with the positions that the model was trained on.

    Returns:
        A warning for a model with rotary positions, which goes on beyond them without having learned to.

    Raises:
        ModelError: the model has a table of positions that ends before.
    """
    values = config.to_dict()
    positions = values.get("max_position_embeddings", values.get("n_positions"))
    padded = -(-sequence_len // PADDING) * PADDING
    if not isinstance(positions, int) or padded <= positions:
        return None
    if {"rope_parameters", "rope_theta", "rope_scaling"}.isdisjoint(values):
        raise ModelError(
            f"sequence_len: {sequence_len} (padded to {padded}) is more than the {positions} positions of this model; "
            f"set it to at most {positions // PADDING * PADDING}"
        )
    if sequence_len <= positions:
        return None
    return f"WARNING sequence_len: {sequence_len} is more than the {positions} positions that the base was trained on"
