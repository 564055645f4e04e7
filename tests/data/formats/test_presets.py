"""The presets' prompts, written out."""

import pytest

from finetune.data.formats.presets import PRESETS
from finetune.data.segments import RowError

from .conftest import BuildFormat, ShowRuns

GIVEN = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


def test_alpaca_writes_headings_and_trains_the_response(runs: ShowRuns) -> None:
    row = {"instruction": "Add.", "input": "1, 1", "output": "2"}
    prompt = f"<s>{GIVEN}\n\n### Instruction:\nAdd.\n\n### Input:\n1, 1\n\n### Response:\n"
    assert runs(row, type="alpaca") == [(prompt, False), ("2</s>", True)]


def test_alpaca_chatml_writes_turns(runs: ShowRuns) -> None:
    row = {"instruction": "Add.", "input": "1, 1", "output": "2"}
    prompt = (
        f"<s><|im_start|>system\n{GIVEN}<|im_end|>\n<|im_start|>user\nAdd.\n1, 1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert runs(row, type="alpaca:chatml") == [(prompt, False), ("2</s>", True)]


def test_a_preset_with_a_system_column_demands_it(runs: ShowRuns, build_format: BuildFormat) -> None:
    row = {"instruction": "Add.", "output": "2"}
    assert runs({**row, "system": "Be kind."}, type="alpaca_w_system") == [
        ("<s>SYSTEM: Be kind.\nUSER: Add.\nASSISTANT:", False),
        ("2</s>", True),
    ]
    with pytest.raises(RowError, match="no column 'system'; the row has: instruction, output"):
        build_format(type="alpaca_w_system")(row)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_trains_exactly_its_output_column(name: str, runs: ShowRuns) -> None:
    preset = PRESETS[name]
    row = {preset.field_instruction: "ask", preset.field_output: "reply", preset.field_system or "x": "sys"}
    prompt, answer = runs(row, type=name)
    assert answer == ("reply</s>", True)
    assert "ask" in prompt[0]
    assert not prompt[1]
