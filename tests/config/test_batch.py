"""micro_batch_size: auto in a file."""

import pytest
import yaml
from tests.conftest import WriteConfig

from finetune.config import load_config
from finetune.config.reference import json_schema
from finetune.errors import ConfigError


def test_auto_leaves_the_split_open_and_keeps_the_batch(write_config: WriteConfig) -> None:
    training = load_config(write_config(micro_batch_size="auto", batch_size=12)).training
    assert training.micro_batch_size_auto
    assert training.batch_size == 12


def test_the_resolved_configuration_says_auto_and_loads_again(write_config: WriteConfig) -> None:
    values = yaml.safe_load(load_config(write_config(micro_batch_size="auto", batch_size=12)).render())
    assert (values["micro_batch_size"], values["gradient_accumulation_steps"]) == ("auto", "auto")
    assert load_config(write_config(**values)).training.micro_batch_size_auto


def test_steps_that_say_auto_follow_from_the_other_two(write_config: WriteConfig) -> None:
    keys = {"micro_batch_size": 4, "batch_size": 12, "gradient_accumulation_steps": "auto"}
    assert load_config(write_config(**keys)).training.gradient_accumulation_steps == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"micro_batch_size": "auto"}, "batch_size is missing: .* micro_batch_size: auto needs this one alone"),
        (
            {"micro_batch_size": "auto", "batch_size": 8, "gradient_accumulation_steps": 2},
            "gradient_accumulation_steps: micro_batch_size: auto decides it",
        ),
        ({"micro_batch_size": 0}, "micro_batch_size: must be greater than or equal to 1"),
        ({"micro_batch_size": "many"}, "micro_batch_size: expected a whole number, found text"),
    ],
)
def test_what_auto_lacks_is_said(write_config: WriteConfig, keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(**keys))


def test_the_schema_has_both_ways_to_write_it() -> None:
    found = json_schema()["properties"]["micro_batch_size"]["anyOf"]
    assert found[0]["anyOf"] == [{"type": "integer", "minimum": 1}, {"const": "auto"}]
