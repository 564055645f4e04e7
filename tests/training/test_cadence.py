"""Steps from epochs and fractions, checked against the seeds' cards."""

import pytest
from tests.training.sections import training_section

from finetune.training.cadence import plan_cadence


def test_the_formula_run_on_five_devices_evaluates_as_its_card_says() -> None:
    section = training_section(
        micro_batch_size=4,
        gradient_accumulation_steps=2,
        evals_per_epoch=4,
        saves_per_epoch=1,
        warmup_steps=10,
        logging_steps=500,
    )
    cadence = plan_cadence(section, num_batches=40, has_validation=True)

    assert cadence.total_steps == 20
    assert sorted(cadence.eval_at) == [1, 5, 10, 15, 20]
    assert sorted(cadence.save_at) == [20]
    assert (cadence.warmup_steps, cadence.logging_steps) == (10, 500)


def test_the_dolphin_run_saves_three_times_and_evaluates_at_each_epochs_end() -> None:
    section = training_section(gradient_accumulation_steps=16, num_epochs=3.0, saves_per_epoch=1, warmup_steps=100)
    cadence = plan_cadence(section, num_batches=16 * 1140, has_validation=True)

    assert cadence.total_steps == 3420
    assert sorted(cadence.eval_at) == sorted(cadence.save_at) == [1140, 2280, 3420]


def test_a_short_last_accumulation_group_is_a_step() -> None:
    assert plan_cadence(training_section(gradient_accumulation_steps=4), 9, has_validation=False).total_steps == 3


@pytest.mark.parametrize(
    ("changes", "evals", "saves"),
    [
        ({}, [10, 20], [10, 20]),
        ({"eval_steps": 7, "save_steps": 0.25}, [7, 14, 20], [5, 10, 15, 20]),
        ({"eval_steps": 0.5, "save_strategy": "no"}, [10, 20], []),
        ({"eval_strategy": "no", "save_strategy": "epoch"}, [], [10, 20]),
        ({"evals_per_epoch": 3, "saves_per_epoch": 2}, [1, 4, 8, 12, 16, 20], [5, 10, 15, 20]),
        ({"save_strategy": "best"}, [10, 20], []),
        ({"max_steps": 6}, [6], [6]),
        ({"num_epochs": 0.5}, [5], [5]),
        ({"num_epochs": 1.5}, [10, 15], [10, 15]),
    ],
    ids=str,
)
def test_evaluations_and_checkpoints_fall_on_whole_steps(
    changes: dict[str, object], evals: list[int], saves: list[int]
) -> None:
    section = training_section(**{"num_epochs": 2.0, **changes})
    cadence = plan_cadence(section, num_batches=10, has_validation=True)

    assert sorted(cadence.eval_at) == evals
    assert sorted(cadence.save_at) == saves


def test_the_best_weights_can_only_come_back_if_each_evaluation_is_saved() -> None:
    section = training_section(num_epochs=2.0, eval_steps=4, save_steps=9, load_best_model_at_end=True)
    cadence = plan_cadence(section, num_batches=10, has_validation=True)

    assert sorted(cadence.save_at) == [4, 8, 9, 12, 16, 18, 20]


def test_without_validation_data_nothing_is_evaluated() -> None:
    assert plan_cadence(training_section(), 10, has_validation=False).eval_at == frozenset()


@pytest.mark.parametrize(
    ("changes", "num_batches", "warmup", "logging"),
    [
        ({}, 1000, 30, 5),
        ({}, 10_000, 100, 10),
        ({}, 20, 0, 1),
        ({"warmup_ratio": 0.1}, 25, 3, 1),
        ({"warmup_steps": 1}, 25, 1, 1),
        ({"warmup_steps": 0, "logging_steps": 3}, 1000, 0, 3),
    ],
    ids=str,
)
def test_warmup_and_logging_have_the_defaults_of_axolotl(
    changes: dict[str, object], num_batches: int, warmup: int, logging: int
) -> None:
    cadence = plan_cadence(training_section(**changes), num_batches, has_validation=False)

    assert (cadence.warmup_steps, cadence.logging_steps) == (warmup, logging)
