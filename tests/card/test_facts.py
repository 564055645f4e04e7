import dataclasses

import pytest

from finetune.card.facts import CardFacts, describe_optimizer


def test_total_batch_sizes_follow_from_devices_and_accumulation(formula_facts: CardFacts) -> None:
    assert formula_facts.hyperparameters.total_train_batch_size == 40
    assert formula_facts.hyperparameters.total_eval_batch_size == 20


def test_facts_cannot_be_changed(formula_facts: CardFacts) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        formula_facts.title = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "OptimizerNames.ADAMW_TORCH_FUSED",
            None,
            "Use OptimizerNames.ADAMW_TORCH_FUSED with betas=(0.9,0.999) and epsilon=1e-08"
            " and optimizer_args=No additional optimizer arguments",
        ),
        (
            "adamw_bnb_8bit",
            "a=1",
            "Use adamw_bnb_8bit with betas=(0.9,0.999) and epsilon=1e-08 and optimizer_args=a=1",
        ),
        (
            "OptimizerNames.SGD",
            None,
            "Use OptimizerNames.SGD with optimizer_args=No additional optimizer arguments",
        ),
    ],
    ids=["fused", "arguments", "no betas"],
)
def test_optimizer_line_has_the_words_of_the_published_cards(name: str, arguments: str | None, expected: str) -> None:
    assert describe_optimizer(name, (0.9, 0.999), 1e-8, arguments) == expected
