"""One-turn prompt formats by name: columns and format strings, one row each.

Names and texts are those of Axolotl (0.9.1 ``prompters.py``, ``alpaca_chat.py``, ``alpaca_w_system.py``); the
system texts come from Stanford Alpaca.  A model trained on a format must be asked in the same words.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class OneTurn:
    """A prompt, then an answer that follows it with no separator."""

    format: str
    """Prompt for rows with an input."""
    no_input_format: str
    """Prompt for rows without an input."""
    system_format: str = "{system}"
    """How a system text is written before the prompt."""
    system: str = ""
    """System text for rows with an input."""
    system_no_input: str = ""
    """System text for rows without an input."""
    field_system: str | None = None
    """Column that replaces the system text where a row has it."""
    needs_system: bool = False
    """Whether every row must have field_system."""
    field_instruction: str = "instruction"
    field_input: str | None = "input"
    field_output: str = "output"


WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
CHAT_WITH_INPUT = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further "
    "context. The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n"
)
CHAT_WITHOUT_INPUT = (
    "Below is an instruction from a USER that describes a task. The ASSISTANT writes a response that "
    "appropriately and concisely completes the request.\n\n"
)

INSTRUCT = OneTurn(
    format="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    no_input_format="### Instruction:\n{instruction}\n\n### Response:\n",
    system_format="{system}\n\n",
    system=WITH_INPUT,
    system_no_input=WITHOUT_INPUT,
)
CHAT = replace(
    INSTRUCT,
    format="USER: {instruction}\n{input}\nASSISTANT:",
    no_input_format="USER: {instruction}\nASSISTANT:",
    system_format="SYSTEM: {system}\n",
)
CHATML = replace(
    INSTRUCT,
    format="<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
    no_input_format="<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
    system_format="<|im_start|>system\n{system}<|im_end|>\n",
)
PHI = replace(
    INSTRUCT,
    format="<|user|>\n{instruction}<|end|>{input}<|assistant|>",
    no_input_format="<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
    system_format="<|system|>\n{system}<|end|>\n",
)
CONCISE = replace(CHAT, system=CHAT_WITH_INPUT, system_no_input=CHAT_WITHOUT_INPUT)
ORCA = OneTurn(
    format="### Human:\n{instruction}\n### Additional Context:\n{input}\n### Assistant:\n",
    no_input_format="### Human:\n{instruction}\n### Assistant:\n",
    system_format="### System:\n{system}\n",
)


def _with_system_column(prompt: OneTurn) -> OneTurn:
    return replace(prompt, system="", system_no_input="", field_system="system", needs_system=True)


def _open_orca(prompt: OneTurn) -> OneTurn:
    return replace(
        _with_system_column(prompt),
        field_system="system_prompt",
        field_instruction="question",
        field_input=None,
        field_output="response",
    )


PRESETS: dict[str, OneTurn] = {
    "alpaca": INSTRUCT,
    "alpaca:instruct": INSTRUCT,
    "alpaca:chat": CHAT,
    "alpaca:chatml": CHATML,
    "alpaca:phi": PHI,
    "alpaca_instruct": INSTRUCT,
    "alpaca_instruct.load_no_prompt": replace(INSTRUCT, system="", system_no_input=""),
    "alpaca_chat": CHAT,
    "alpaca_chat.load_concise": CONCISE,
    "alpaca_chat.load_qa": replace(CONCISE, field_instruction="question", field_input=None, field_output="answer"),
    "alpaca_chat.load_camel_ai": replace(
        CONCISE, field_instruction="message_1", field_input=None, field_output="message_2"
    ),
    "alpaca_chat.load_no_prompt": replace(CHAT, system="", system_no_input=""),
    "alpaca_w_system": _with_system_column(CHAT),
    "alpaca_w_system.load_chat": _with_system_column(CHAT),
    "alpaca_w_system.load_instruct": _with_system_column(INSTRUCT),
    "alpaca_w_system.load_open_orca": _open_orca(ORCA),
    "alpaca_w_system.load_open_orca_chatml": _open_orca(CHATML),
    "gpteacher": replace(INSTRUCT, field_output="response"),
    "oasst": replace(INSTRUCT, field_instruction="INSTRUCTION", field_input=None, field_output="RESPONSE"),
    "summarizetldr": OneTurn(
        format="USER: Summarize the following article as a TL;DR.\n{instruction}\n{input}\nASSISTANT:",
        no_input_format="USER: Summarize the following article as a TL;DR.\n{instruction}\nASSISTANT:",
        field_instruction="article",
        field_input=None,
        field_output="summary",
    ),
}
"""Value of ``type:`` to its format."""
