"""The reader of commands finds them, and finds what is wrong with them."""

import pytest
from tests.shipped.commands import command_faults, commands_in

TEXT = """\
`finetune` is a tool. Use `finetune validate FILE`; `./scripts/quickstart` needs nothing.

```sh
$ finetune train a.yml  # a comment
pip install finetune
```

    finetune keys lora_r
"""


def test_commands_are_found_in_code_alone() -> None:
    found = ["finetune train a.yml", "finetune keys lora_r", "finetune validate FILE"]
    assert [command.strip() for command in commands_in(TEXT)] == found


@pytest.mark.parametrize(
    "command",
    [
        "finetune --help",
        "finetune --version",
        "finetune train config.yml --resume --learning_rate 1e-4 num_epochs=2",
        "finetune train config.yml datasets[0].path=rows.jsonl --lora-r 8",
        "finetune train config.yml --num-processes 2 -- --any-option of-the-launcher",
        "finetune preprocess config.yml --preview 3",
        "finetune merge-lora config.yml --lora-model-dir out --output merged",
        "finetune keys --json-schema",
        "finetune keys [NAME]",
    ],
)
def test_a_good_command_has_no_fault(command: str) -> None:
    assert command_faults(command) == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("finetune trian config.yml", "unknown command trian"),
        ("finetune --verbose", "unknown option --verbose"),
        ("finetune train config.yml --learning_rte 1", "unknown option or key --learning_rte"),
        ("finetune train config.yml learning_rte=1", "unknown option or key learning_rte=1"),
        ("finetune validate config.yml --preview 3", "unknown option or key --preview"),
        ("finetune train config.yml --num-procs 2 -- --more", "unknown option or key --num-procs"),
        ("finetune preprocess config.yml --", "unknown option or key --"),
        ("finetune keys --learning_rate", "unknown option or key --learning_rate"),
    ],
)
def test_a_bad_command_has_its_fault(command: str, fault: str) -> None:
    assert command_faults(command) == [fault]
