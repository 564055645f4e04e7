"""Which changes stand in the way of going on, and which may be allowed."""

import pytest
from tests.conftest import WriteConfig

from finetune.config import load_config
from finetune.config.changes import (
    ALL,
    FIXED,
    FREE,
    LENGTH,
    Change,
    changed_keys,
    parse_allowed,
    standing_in_the_way,
)
from finetune.config.run import OWNERS, SECTIONS
from finetune.errors import ConfigError


def compare(write_config: WriteConfig, **changes: object) -> list[str]:
    before = load_config(write_config()).render()
    return changed_keys(before, load_config(write_config(**changes)).render())


def test_every_key_says_what_it_affects() -> None:
    undeclared = [
        name
        for name, section in OWNERS.items()
        if (SECTIONS[section].model_fields[name].json_schema_extra or {}).get("affects")
        not in ("tokens", "training", "nothing")
    ]
    assert undeclared == []


def test_a_key_that_changes_training_or_tokens_is_listed_with_both_values(write_config: WriteConfig) -> None:
    changed = compare(write_config, learning_rate=0.05, sequence_len=64)

    assert changed == ["sequence_len: 512 -> 64", "learning_rate: 0.001 -> 0.05"]


def test_keys_of_output_may_change(write_config: WriteConfig) -> None:
    assert compare(write_config, output_dir="x", logging_steps=3, save_total_limit=1, eval_batch_size=3) == []


@pytest.mark.parametrize("steady", [{"lr_scheduler": "constant"}, {"lr_scheduler": "inverse_sqrt", "warmup_steps": 2}])
def test_the_length_may_change_where_no_learning_rate_depends_on_it(
    write_config: WriteConfig, steady: dict[str, object]
) -> None:
    before = load_config(write_config(**steady)).render()
    longer = load_config(write_config(num_epochs=2, max_steps=9, **steady)).render()

    assert changed_keys(before, longer) == []


def test_the_length_counts_where_the_learning_rate_falls_towards_the_end(write_config: WriteConfig) -> None:
    assert compare(write_config, num_epochs=2) == ["num_epochs: 1.0 -> 2.0"]


def test_a_default_warmup_is_a_share_of_the_length(write_config: WriteConfig) -> None:
    before = load_config(write_config(lr_scheduler="constant_with_warmup")).render()
    longer = load_config(write_config(lr_scheduler="constant_with_warmup", max_steps=9)).render()

    assert changed_keys(before, longer) == ["max_steps: null -> 9"]


def test_a_change_inside_a_data_set_is_seen(write_config: WriteConfig) -> None:
    changed = compare(write_config, datasets=[{"path": "other.jsonl", "type": "alpaca", "split": "a"}])

    assert sorted(changed) == ["datasets[0].path: rows.jsonl -> other.jsonl", "datasets[0].split: null -> a"]


CHANGES = [Change("learning_rate", "learning_rate: 1 -> 2"), Change("seed", "seed: 1 -> 2")]


def test_what_nobody_allowed_stands_in_the_way() -> None:
    assert standing_in_the_way(CHANGES[:1], ()) == ["learning_rate: 1 -> 2"]
    assert standing_in_the_way(CHANGES[:1], ["weight_decay"]) == ["learning_rate: 1 -> 2"]
    assert standing_in_the_way(CHANGES[:1], ["learning_rate"]) == []


def test_what_cannot_change_any_more_is_refused_with_the_reason_even_if_allowed() -> None:
    assert standing_in_the_way(CHANGES, [ALL, "seed"]) == [
        "seed: 1 -> 2 (cannot change in the middle of a run: rows are dealt out by it, "
        "and the run is in the middle of an epoch)"
    ]


def test_the_tables_name_keys_that_exist() -> None:
    assert set(FIXED) | set(FREE) | set(LENGTH) <= OWNERS.keys()


def test_allowed_keys_are_separated_by_commas() -> None:
    assert parse_allowed("learning_rate, weight_decay") == {"learning_rate", "weight_decay"}
    assert parse_allowed("all") == {"all"}
    assert parse_allowed(None) == frozenset()


def test_a_word_that_is_no_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"--allow-changed: 'learning_rte' is no key\. Did you mean 'learning_rate'\? Give keys"
    ):
        parse_allowed("learning_rte")
