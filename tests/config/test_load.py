"""From file to RunConfig: routing, all faults at once, notes, and the two seeds."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.config.conftest import faults
from tests.conftest import SHARED, WriteConfig, needs_shared

from finetune.config import load_config
from finetune.errors import ConfigError

FAULTY = """\
base_model: ./model
learning_rte: 1e-5
learning_rate: fast
datasets:
  - path: a.jsonl
    type: alpaca
    fild: x
  - type: {formt: "x", format: "{context}"}
    path: y
bf16: maybe
micro_batch_size: 2
micro_batch_size: 3
adapter: lora
fsdp: [full_shard]
hub_token: hf_planted
val_set_size: -1
"""


def test_all_faults_come_at_once_in_the_order_of_the_file_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text(FAULTY)

    lines = faults(path)

    assert [re.match(r"c\.yml:(\d+:\d+)", line)[1] for line in lines] == [  # type: ignore[index]
        "2:1",
        "3:1",
        "7:5",
        "8:12",
        "8:24",
        "10:1",
        "12:1",
        "13:1",
        "14:1",
        "15:1",
        "16:1",
    ]
    assert lines[0] == (
        "c.yml:2:1: unknown key 'learning_rte'. Did you mean 'learning_rate'? (finetune keys lists all)"
    )
    assert lines[1] == "c.yml:3:1: learning_rate: expected a number, found text"
    assert lines[2].startswith(
        "c.yml:7:5: unknown key 'datasets[0].fild'. Did you mean 'field'? Known here: path, name"
    )
    assert lines[4] == (
        "c.yml:8:24: datasets[1].type.format: '{context}' is not a valid format string ('context'); only "
        "{instruction}, {input} and {system} are filled in, and a literal brace is written twice"
    )
    assert lines[5] == "c.yml:10:1: bf16: expected 'auto' or true or false, found 'maybe'"
    assert lines[10] == "c.yml:16:1: val_set_size: must be greater than or equal to 0"


def test_the_number_of_problems_is_said_and_no_secret_is_echoed(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text(FAULTY)

    with pytest.raises(ConfigError) as caught:
        load_config(path)

    assert str(caught.value).startswith(f"{path}: 11 problems\n")
    assert "hf_planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": None}, "learning_rate is missing: Peak learning rate."),
        (
            {"datasets": [{"path": "rows.jsonl"}]},
            "datasets[0].type is missing: Prompt format: a name (alpaca, chat_template, …) or a mapping; pretokenized "
            "for rows of input_ids and labels.",
        ),
        ({"datasets": []}, "datasets: must have at least 1 item after validation, not 0"),
        ({"datasets": "rows.jsonl"}, "datasets: expected a list, found text"),
        ({"sequence_len": True}, "sequence_len: expected a whole number, found true"),
        ({"sequence_len": 12.5}, "sequence_len: expected a whole number, found 12.5"),
        ({"sample_packing": "yes please"}, "sample_packing: expected true or false, found text"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number, found nan"),
        ({"learning_rate": 3}, "learning_rate: must be less than or equal to 1"),
        (
            {"max_dropped": 5},
            "max_dropped: 5 is more than everything; write 5% for a percentage, or a",
        ),
        ({"max_truncated": "five"}, "max_truncated: 'five' is not a share; write a percentage from 0% to 100%, or a"),
        ({"max_duplicates": "101%"}, "max_duplicates: '101%' is not a share; write a percentage from 0% to 100%"),
        ({"min_trained_share": -0.1}, "min_trained_share: must be greater than or equal to 0"),
        ({"min_trained_share": True}, "min_trained_share: expected a number, found true"),
        ({"optimizer": "adamw_hf"}, "found 'adamw_hf' Did you mean 'adamw_torch'?"),
        ({"special_tokens": {"eos": "x"}}, "unknown key 'special_tokens.eos'. Did you mean 'eos_token'?"),
        ({"my_secret": 1}, "Secrets do not belong in this file; use an environment variable."),
        ({"unfrozen_parameters": ["(x"]}, "'(x' is not a regular expression"),
        (
            {"unfrozen_parameters": ["layers.3[01]"]},
            "'layers.3[01]' ends in digits in brackets, which is one row to Axolotl and a set of characters to a",
        ),
        ({"save_steps": 2.5}, "save_steps: 2.5 is neither a whole number of steps nor a share below 1"),
        ({"val_set_size": 1}, "val_set_size: 1 would hold out every row; give a fraction below 1 or a count above"),
        ({"xformers_attention": True}, "xformers is not supported; use flash_attention: true or sdp_attention: true"),
        ({"metric_for_best_model": "accuracy"}, "'accuracy' is not measured during training; the metric is loss"),
        ({"rl": "dpo"}, "'rl' is known from Axolotl and not supported, and could change the result"),
        (
            {"datasets": [{"path": "x", "type": "alpaca", "trust_remote_code": True}]},
            "data set scripts are code from a stranger and are never run; convert the data to a file",
        ),
        (
            {"load_in_4bit": True, "bnb_config_kwargs": {"bnb_4bit_quant_typ": "fp4"}},
            "bnb_config_kwargs: bnb_4bit_quant_typ is no argument of BitsAndBytesConfig. Did you mean "
            "'bnb_4bit_quant_type'? Known are bnb_4bit_compute_dtype, ",
        ),
        (
            {"load_in_4bit": True, "bnb_config_kwargs": {"load_in_8bit": True}},
            "bnb_config_kwargs: load_in_8bit belongs at the top level of the file; take it out of bnb_config_kwargs",
        ),
        (
            {"load_in_4bit": True, "bnb_config_kwargs": {"llm_int8_enable_fp32_cpu_offload": True}},
            "llm_int8_enable_fp32_cpu_offload has no effect: the whole model is held on one device; take it out of",
        ),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_rentrant": False}},
            "gradient_checkpointing_kwargs: use_rentrant is no argument of torch.utils.checkpoint. Did you mean "
            "'use_reentrant'? Known are use_reentrant, preserve_rng_state, determinism_check, debug, early_stop",
        ),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"context_fn": "noop"}},
            "context_fn is a function, which a configuration cannot hold; take it out",
        ),
        (
            {
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"use_reentrant": True, "early_stop": False},
            },
            "gradient_checkpointing_kwargs: early_stop needs use_reentrant: false",
        ),
        (
            {"plugins": ["axolotl.integrations.liger.LigerPlugin", "axolotl.integrations.kd.KDPlugin"]},
            "plugins: 'axolotl.integrations.kd.KDPlugin' is not supported; leave it out. Known are axolotl",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_reason(
    write_config: WriteConfig, changes: dict[str, Any], message: str
) -> None:
    assert message in "\n".join(faults(write_config(**changes)))


def test_a_fault_on_the_command_line_stands_there(write_config: WriteConfig) -> None:
    assert faults(write_config(), "--learning_rate", "fast") == [
        "command line: --learning_rate: learning_rate: expected a number, found text"
    ]


def test_null_means_unset_at_every_depth(write_config: WriteConfig) -> None:
    path = write_config()
    path.write_text(path.read_text() + "weight_decay:\nspecial_tokens:\n  pad_token: null\ndatasets_extra: null\n")

    config = load_config(path)

    assert config.training.weight_decay == 0.0
    assert config.model.special_tokens.pad_token is None


def test_a_hint_of_axolotl_is_accepted_with_one_line(write_config: WriteConfig) -> None:
    config = load_config(write_config(dataloader_num_workers=4))

    assert len(config.source.notes) == 1
    assert config.source.notes[0].startswith("dataloader_num_workers: known from Axolotl, has no effect here (")


def test_a_switch_that_is_off_is_accepted_unless_axolotl_has_it_on_by_itself(write_config: WriteConfig) -> None:
    assert load_config(write_config(relora=False)).source.notes
    assert "peft_autocast_adapter_dtype" in faults(write_config(peft_autocast_adapter_dtype=False))[0]


def test_a_number_in_quotes_is_a_learning_rate(write_config: WriteConfig) -> None:
    assert load_config(write_config(learning_rate="5e-6")).training.learning_rate == 5e-6


@pytest.mark.parametrize(
    ("written", "share"), [("5%", 0.05), (" 12.5 % ", 0.125), (0.05, 0.05), (0, 0.0), (1, 1.0), ("100%", 1.0)]
)
def test_a_share_is_a_fraction_or_a_percentage(write_config: WriteConfig, written: object, share: float) -> None:
    assert load_config(write_config(max_dropped=written)).data.max_dropped == share


def test_a_bare_no_is_a_strategy_and_not_false(write_config: WriteConfig) -> None:
    path = write_config(val_set_size=2)
    path.write_text(path.read_text() + "eval_strategy: no\nsave_strategy: no\n")

    training = load_config(path).training
    assert (training.eval_strategy, training.save_strategy) == ("no", "no")


def test_the_resolved_configuration_loads_again_and_is_the_same(write_config: WriteConfig, tmp_path: Path) -> None:
    config = load_config(write_config(val_set_size=0.1, evals_per_epoch=2, special_tokens={"pad_token": "<p>"}))
    again = tmp_path / "again.yml"
    again.write_text(config.render())

    assert load_config(again).render() == config.render()


@needs_shared
@pytest.mark.parametrize("seed", sorted(path.name for path in (SHARED / "seeds").glob("*.yml")) or ["absent"])
def test_a_seed_loads_verbatim(seed: str) -> None:
    config = load_config(SHARED / "seeds" / seed)

    assert config.source.notes == []
    assert config.distributed.deepspeed is not None


def test_checking_a_configuration_imports_no_torch(write_config: WriteConfig) -> None:
    code = (
        "import sys; from finetune.config import load_config; "
        f"load_config({str(write_config(dataloader_num_workers=1))!r}); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("size", "found"), [(0, "at least 1, found 0"), ("many", "'auto'")])
def test_the_batch_size_of_the_harness_is_a_count_or_auto(write_config: WriteConfig, size: object, found: str) -> None:
    assert load_config(write_config(lm_eval_batch_size=16)).evaluation.lm_eval_batch_size == 16
    with pytest.raises(ConfigError, match=f"lm_eval_batch_size: .*{found}"):
        load_config(write_config(lm_eval_batch_size=size))
