"""Keys that a format would ignore."""

from typing import Any

import pytest

from finetune.config.data import DatasetEntry
from finetune.data.formats import FORMATS
from finetune.data.formats.applicable import FORMAT_KEYS, SOURCE_KEYS
from finetune.errors import ConfigError

from .conftest import BuildFormat


def test_every_key_of_an_entry_is_read_by_some_format() -> None:
    assert SOURCE_KEYS.union(*FORMAT_KEYS.values()) == DatasetEntry.model_fields.keys()


def test_the_table_names_known_formats() -> None:
    assert FORMAT_KEYS.keys() <= FORMATS.keys()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"type": "alpaca", "field_messages": "chat", "train_on_eos": "all"},
            "the data set rows.jsonl has field_messages, train_on_eos, which has no effect with type: alpaca; "
            "take it out (this type reads: none)",
        ),
        (
            {"type": "completion", "conversation": "chatml"},
            "the data set rows.jsonl has conversation, which has no effect with type: completion; "
            "take it out (this type reads: field)",
        ),
        (
            {"type": {"field_output": "answer"}, "field": "text"},
            "the data set rows.jsonl has field, which has no effect with type: mapping; "
            "take it out (this type reads: none)",
        ),
    ],
    ids=["alpaca", "completion", "mapping"],
)
def test_a_key_without_effect_is_refused(entry: dict[str, Any], message: str, build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(**entry)
    assert str(error.value) == message


def test_a_key_with_its_default_value_is_accepted(build_format: BuildFormat) -> None:
    build_format(type="alpaca", train_on_eos="turn", roles_to_train=["assistant"], field_messages=None)
