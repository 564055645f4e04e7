"""Keys on the command line."""

import pytest

from finetune.config.document import parse_document
from finetune.config.overrides import apply_overrides, parse_overrides
from finetune.errors import ConfigError


def test_the_three_ways_to_write_a_key_mean_the_same() -> None:
    for words in (["--base-model", "x"], ["--base_model=x"], ["base_model=x"]):
        assert parse_overrides(words) == {"base_model": "x"}


def test_values_are_read_as_in_the_file_and_a_lone_switch_is_true() -> None:
    words = ["--learning_rate", "1e-4", "--sample_packing", "--deepspeed", "null", "--val_set_size", "-1"]

    assert parse_overrides(words) == {
        "learning_rate": 1e-4,
        "sample_packing": True,
        "deepspeed": None,
        "val_set_size": -1,
    }


def test_a_word_that_belongs_to_no_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="command line: 'stray' belongs to no key; write --key value or key=value"):
        parse_overrides(["stray"])


@pytest.mark.parametrize("words", [["--output_dir", ""], ["--output_dir="], ["--=3"]])
def test_an_empty_shell_variable_is_not_a_default(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"has no (value|key); null unsets a key"):
        parse_overrides(words)


def test_a_key_inside_a_list_is_reached_by_index() -> None:
    for name in ("datasets[0].path", "datasets.0.path"):
        document = parse_document("datasets:\n  - path: a\n    type: alpaca\n", "c.yml")
        apply_overrides(document, {name: "b"})

        assert document.values["datasets"] == [{"path": "b", "type": "alpaca"}]
        assert document.place(("datasets", 0, "path")) == f"command line: --{name}"


def test_an_index_beyond_the_list_says_how_long_it_is() -> None:
    document = parse_document("datasets:\n  - path: a\n", "c.yml")

    with pytest.raises(ConfigError, match=r"--datasets\[3\]\.path: the list has 1 entries, numbered from 0"):
        apply_overrides(document, {"datasets[3].path": "b"})


def test_a_path_through_a_plain_value_is_refused() -> None:
    document = parse_document("base_model: a\n", "c.yml")

    with pytest.raises(ConfigError, match=r"--base_model\.x: 'base_model' holds a plain value, not further keys"):
        apply_overrides(document, {"base_model.x": 1})
