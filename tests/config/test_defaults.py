"""Defaults that depend on other keys."""

import pytest

from finetune.config.defaults import fill_defaults

BATCH = ("micro_batch_size", "gradient_accumulation_steps", "batch_size")


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ({}, (1, 1, 1)),
        ({"micro_batch_size": 4}, (4, 1, 4)),
        ({"batch_size": 32, "micro_batch_size": 4}, (4, 8, 32)),
        ({"batch_size": 32, "gradient_accumulation_steps": 4}, (8, 4, 32)),
        ({"batch_size": 6}, (6, 1, 6)),
        ({"micro_batch_size": 2, "gradient_accumulation_steps": 16}, (2, 16, 32)),
    ],
)
def test_two_of_the_three_batch_keys_give_the_third(given: dict[str, int], filled: tuple[int, ...]) -> None:
    values = fill_defaults(given)

    assert tuple(values[name] for name in BATCH) == filled


def test_packing_decides_evaluation_packing_and_padding() -> None:
    packed = fill_defaults({"sample_packing": True})
    chosen = fill_defaults({"sample_packing": True, "eval_sample_packing": False, "pad_to_sequence_len": False})

    assert (packed["eval_sample_packing"], packed["pad_to_sequence_len"]) == (True, True)
    assert (chosen["eval_sample_packing"], chosen["pad_to_sequence_len"]) == (False, False)


def test_a_folder_in_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/wick")

    assert fill_defaults({"output_dir": "~/out"})["output_dir"] == "/home/wick/out"


def test_the_input_is_not_changed() -> None:
    given: dict[str, object] = {"micro_batch_size": 2}
    fill_defaults(given)

    assert given == {"micro_batch_size": 2}
