"""Room for the configured length."""

import pytest
from transformers import GPT2Config, LlamaConfig

from finetune.errors import ModelError
from finetune.training.positions import check_positions


@pytest.mark.parametrize("sequence_len", [64, 512])
def test_a_length_within_the_models_positions_is_fine(sequence_len: int) -> None:
    assert check_positions(LlamaConfig(max_position_embeddings=512), sequence_len) is None
    assert check_positions(GPT2Config(n_positions=512), sequence_len) is None


def test_rotary_positions_go_on_with_a_warning() -> None:
    warning = check_positions(LlamaConfig(max_position_embeddings=512), 4096)

    assert warning == "WARNING sequence_len: 4096 is more than the 512 positions that the base was trained on"


def test_padding_beyond_rotary_positions_is_no_matter() -> None:
    assert check_positions(LlamaConfig(max_position_embeddings=100), 100) is None


@pytest.mark.parametrize(("sequence_len", "padded"), [(200, 256), (100, 128)])
def test_a_table_of_positions_that_ends_before_is_refused(sequence_len: int, padded: int) -> None:
    with pytest.raises(ModelError, match=rf"{sequence_len} \(padded to {padded}\) .* 100 positions .* at most 64"):
        check_positions(GPT2Config(n_positions=100), sequence_len)
