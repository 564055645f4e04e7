"""What a run depends on besides its configuration."""

from dataclasses import replace
from pathlib import Path

from finetune.config.changes import Change
from finetune.config.run import SURROUNDINGS
from finetune.surroundings import Surroundings, describe_drift, made_changes, settle

HERE = Surroundings(
    compute="float32",
    attention="sdpa",
    base={"config.json": "a1"},
    deepspeed={"zero_optimization": {"stage": 1, "reduce_bucket_size": 5}},
    device="a processor",
    versions={"torch": "2.13.0"},
)


def lines(changes: list[Change]) -> list[str]:
    return [change.line for change in changes]


def test_a_fact_that_changed_is_a_change_of_its_key() -> None:
    for changed, expected in (
        ({"compute": "bfloat16"}, "bf16 (computes in): float32 -> bfloat16"),
        ({"compute": "float16"}, "fp16 (computes in): float32 -> float16"),
        ({"attention": "eager"}, "attn_implementation (in use): sdpa -> eager"),
        ({"base": {"config.json": "b2"}}, "base_model (content).config.json: a1 -> b2"),
        (
            {"deepspeed": {"zero_optimization": {"stage": 1, "reduce_bucket_size": 6}}},
            "deepspeed (content).zero_optimization.reduce_bucket_size: 5 -> 6",
        ),
    ):
        assert lines(settle([], HERE, replace(HERE, **changed))) == [expected]


def test_a_key_whose_fact_is_the_same_did_not_change() -> None:
    moved = [Change("base_model", "base_model: a -> b"), Change("bf16", "bf16: auto -> false")]
    other = Change("learning_rate", "learning_rate: 1 -> 2")

    assert settle([*moved, other], HERE, HERE) == [other]


def test_a_key_and_its_fact_are_named_once() -> None:
    asked = Change("eager_attention", "eager_attention: null -> true")
    assert settle([asked], HERE, replace(HERE, attention="eager")) == [asked]


def test_other_libraries_and_devices_are_said_and_no_more() -> None:
    newer = replace(HERE, device="another", versions={"torch": "2.14.0", "peft": "1.0"})

    assert describe_drift(HERE, HERE) == []
    assert describe_drift(HERE, newer) == [
        "WARNING other than when the checkpoint was saved, so the last bits may differ: device: a processor -> "
        "another, torch: 2.13.0 -> 2.14.0, peft: null -> '1.0'"
    ]


def test_what_was_changed_on_the_way_is_read_back(tmp_path: Path) -> None:
    assert made_changes(tmp_path) == []
    history = [{"step": 3, "changed": ["learning_rate: 1 -> 2", "tf32: false -> true"]}]
    (tmp_path / SURROUNDINGS).write_text(replace(HERE, changes=history).to_json())

    assert made_changes(tmp_path) == ["after step 3: learning_rate: 1 -> 2", "after step 3: tf32: false -> true"]
