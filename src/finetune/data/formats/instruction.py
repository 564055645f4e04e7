"""One prompt and one answer: the presets (``alpaca`` and its kin) and the custom mapping.

Prompt and answer are tokenized apart, as they are when the model answers, so no token spans the boundary.
"""

from collections import Counter
from dataclasses import dataclass, field

from finetune.config.data import DataSection, DatasetEntry, PromptMapping
from finetune.data.formats.presets import PRESETS, OneTurn
from finetune.data.formats.row import Format, Row, nullable_text, optional_text, required_text
from finetune.data.segments import Piece, Sample, Segment
from finetune.data.tokenize import Tokenizer
from finetune.errors import ConfigError


@dataclass
class InstructionFormat:
    """A row with an instruction, perhaps an input, and an output that is trained with EOS behind it.

    Same tokens and labels as Axolotl 0.9.1 (``user_defined``, ``AlpacaPromptTokenizingStrategy``), except
    that a missing output column is refused (there it trains on nothing), as is a null or a number for a text.
    """

    prompt: OneTurn
    sequence_len: int
    train_on_inputs: bool
    notes: Counter[str] = field(default_factory=Counter)
    chunk_len: int | None = None

    def __call__(self, row: Row) -> Sample:
        """Return the prompt's piece and, unless the output is empty, the answer's."""
        text = self._prompt_text(row)
        answer = nullable_text(row, self.prompt.field_output)
        pieces = [Piece((Segment(text, self.train_on_inputs),), special_tokens=True, max_length=self.sequence_len)]
        if answer:
            pieces.append(
                Piece(
                    (Segment(answer, True),),
                    special_tokens=True,
                    strip_bos=True,
                    append_eos=True,
                    max_length=self.sequence_len,
                )
            )
        return pieces

    def _prompt_text(self, row: Row) -> str:
        prompt = self.prompt
        instruction = required_text(row, prompt.field_instruction)
        given = optional_text(row, prompt.field_input) if prompt.field_input else ""
        system = self._system(row, given)
        head = prompt.system_format.format(system=system) if system else ""
        if given:
            return head + prompt.format.format(instruction=instruction, input=given)
        return head + prompt.no_input_format.format(instruction=instruction)

    def _system(self, row: Row, given: str) -> str:
        name = self.prompt.field_system
        if name is not None and (name in row or self.prompt.needs_system):
            return nullable_text(row, name)
        return self.prompt.system if given else self.prompt.system_no_input


def build_preset(entry: DatasetEntry, data: DataSection, _: Tokenizer) -> Format:
    """Build the preset that ``entry.type`` names."""
    return InstructionFormat(PRESETS[str(entry.type)], data.sequence_len, data.train_on_inputs)


def build_mapping(mapping: PromptMapping, data: DataSection) -> Format:
    """Build the format of a ``type:`` that is a mapping."""
    if mapping.field is not None:
        raise ConfigError(
            "type.field is not used by a mapping of prompt and answer; for plain text write "
            f"type: completion and field: {mapping.field} in the data set's entry"
        )
    prompt = OneTurn(
        format=mapping.format,
        no_input_format=mapping.no_input_format,
        system_format=mapping.system_format,
        system=mapping.system_prompt,
        system_no_input=mapping.system_prompt,
        field_system=mapping.field_system,
        field_instruction=mapping.field_instruction,
        field_input=mapping.field_input,
        field_output=mapping.field_output,
    )
    return InstructionFormat(prompt, data.sequence_len, data.train_on_inputs)
