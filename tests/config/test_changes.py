"""Which changes stand in the way of going on."""

from tests.conftest import WriteConfig

from finetune.config import load_config
from finetune.config.changes import changed_keys


def compare(write_config: WriteConfig, **changes: object) -> list[str]:
    before = load_config(write_config()).render()
    return changed_keys(before, load_config(write_config(**changes)).render())


def test_a_key_that_changes_training_or_tokens_is_listed_with_both_values(write_config: WriteConfig) -> None:
    changed = compare(write_config, learning_rate=0.05, sequence_len=64)

    assert changed == ["sequence_len: 512 -> 64", "learning_rate: 0.001 -> 0.05"]


def test_keys_of_output_and_length_may_change(write_config: WriteConfig) -> None:
    assert compare(write_config, output_dir="x", logging_steps=3, num_epochs=2, max_steps=9, save_total_limit=1) == []


def test_a_change_inside_a_data_set_is_seen(write_config: WriteConfig) -> None:
    changed = compare(write_config, datasets=[{"path": "other.jsonl", "type": "alpaca", "split": "a"}])

    assert sorted(changed) == ["datasets[0].path: rows.jsonl -> other.jsonl", "datasets[0].split: null -> a"]
