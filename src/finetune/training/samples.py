"""Answers to a few validation prompts, before and after training: the change, in plain sight."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from finetune.config.training import TrainingSection
from finetune.model.build import TrainableModel
from finetune.model.precision import Precision
from finetune.training.engine import Engine


@dataclass(frozen=True)
class Prompt:
    """The untrained beginning of a validation sample, and the answer that follows it there."""

    input_ids: list[int]
    text: str
    reference: str


@dataclass(frozen=True)
class SampleAnswers:
    """One prompt with the model's answers."""

    prompt: str
    reference: str
    before: str
    after: str


def choose_prompts(
    rows: Iterable[tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerBase, num_prompts: int
) -> list[Prompt]:
    """Cut the first ``num_prompts`` samples ``(input_ids, labels)`` where their first trained stretch begins."""
    prompts = []
    for input_ids, labels in rows:
        start = next((index for index, label in enumerate(labels) if label != -100), 0)
        if start == 0:
            continue
        stop = next((index for index in range(start, len(labels)) if labels[index] == -100), len(labels))
        prompts.append(
            Prompt(
                input_ids=list(input_ids[:start]),
                text=tokenizer.decode(input_ids[:start], skip_special_tokens=True).strip(),
                reference=tokenizer.decode(input_ids[start:stop], skip_special_tokens=True).strip(),
            )
        )
        if len(prompts) == num_prompts:
            break
    return prompts


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    precision: Precision,
    max_new_tokens: int,
) -> list[str]:
    """Continue each prompt greedily and return the new text, without special tokens."""
    if not prompts:
        return []
    device = next(model.parameters()).device
    width = max(len(prompt.input_ids) for prompt in prompts)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p.input_ids)) + p.input_ids for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p.input_ids)) + [1] * len(p.input_ids) for p in prompts], device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), precision.autocast():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
    model.train(was_training)
    return [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in output]


class Sampler(TrainerCallback):  # type: ignore[misc]
    """Asks the same few validation prompts before and after training (``eval_table_size``).

    ZeRO-3 puts a tensor together where the training engine's hooks are, so with it the first answers wait until the
    engine is there.  Every process answers, in step with the others.
    """

    def __init__(
        self,
        training: TrainingSection,
        tokenizer: PreTrainedTokenizerBase,
        trainable: TrainableModel,
        validation: Sequence[dict[str, Any]] | None,
        engine: Engine,
    ) -> None:
        self.max_new_tokens = training.eval_max_new_tokens
        self.tokenizer = tokenizer
        self.trainable = trainable
        self.waits = engine.zero_stage == 3
        rows = ((row["input_ids"].tolist(), row["labels"].tolist()) for row in validation or ())
        num_prompts = training.eval_table_size
        self.prompts = choose_prompts(rows, tokenizer, num_prompts) if num_prompts else []
        self.before = [] if self.waits else self.answers()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.waits:
            self.before = self.answers()

    def answers(self) -> list[str]:
        """Return the model's answer to each prompt."""
        precision = self.trainable.hardware.precision
        return answer(self.trainable.model, self.tokenizer, self.prompts, precision, self.max_new_tokens)

    def compare(self) -> list[SampleAnswers]:
        """Answer again, and put old and new answers beside their prompts."""
        return [
            SampleAnswers(prompt.text, prompt.reference, old, new)
            for prompt, old, new in zip(self.prompts, self.before, self.answers(), strict=True)
        ]


def render_samples(samples: Sequence[SampleAnswers]) -> str:
    """Return the text of ``samples.md``, for people."""
    blocks = [
        f"## {number}\n\n**Prompt**\n\n{_quote(sample.prompt)}\n\n**Before**\n\n{_quote(sample.before)}\n\n"
        f"**After**\n\n{_quote(sample.after)}\n\n**In the data**\n\n{_quote(sample.reference)}\n"
        for number, sample in enumerate(samples, start=1)
    ]
    return "# Answers before and after training\n\n" + "\n".join(blocks)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in (text or "(nothing)").splitlines())
