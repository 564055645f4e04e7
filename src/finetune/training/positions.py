"""Whether a model has room for the configured length."""

from transformers import PretrainedConfig

from finetune.data.collate import PAD_TO_MULTIPLE_OF, round_up
from finetune.errors import ModelError


def check_positions(config: PretrainedConfig, sequence_len: int) -> str | None:
    """Compare ``sequence_len`` with the positions that the model was trained on.

    Returns:
        A warning for a model with rotary positions, which goes on beyond them without having learned to.

    Raises:
        ModelError: the model has a table of positions that ends before.
    """
    values = config.to_dict()
    positions = values.get("max_position_embeddings", values.get("n_positions"))
    padded = round_up(sequence_len, PAD_TO_MULTIPLE_OF)
    if not isinstance(positions, int) or padded <= positions:
        return None
    if {"rope_parameters", "rope_theta", "rope_scaling"}.isdisjoint(values):
        raise ModelError(
            f"sequence_len: {sequence_len} (padded to {padded}) is more than the {positions} positions of this model; "
            f"set it to at most {positions // PAD_TO_MULTIPLE_OF * PAD_TO_MULTIPLE_OF}"
        )
    if sequence_len <= positions:
        return None
    return f"WARNING sequence_len: {sequence_len} is more than the {positions} positions that the base was trained on"
