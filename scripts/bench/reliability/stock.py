"""The same run as a plain script over the HF Trainer, to put beside ours."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from reliability.forks import Outcome, Work, run, start
from reliability.runs import Lab


@dataclass(frozen=True)
class Stock:
    """A script as its documentation shows it: train, resume where there is a checkpoint, save."""

    model: Path
    rows: Path
    out: Path

    def work(self, **changes: Any) -> Work:
        """Return the whole training; keyword arguments are ``TrainingArguments``."""

        def train() -> int:
            trainer = self.trainer(**changes)
            trainer.train(resume_from_checkpoint=bool(self.out.is_dir() and get_last_checkpoint(str(self.out))))
            trainer.save_model()
            return 0

        return train

    def run(self, **changes: Any) -> Outcome:
        """Train in a process of its own."""
        return run(self.work(**changes), self.out.with_suffix(".log"))

    def start(self, **changes: Any) -> Any:
        """Start to train."""
        return start(self.work(**changes), self.out.with_suffix(".log"))

    def trainer(self, **changes: Any) -> Trainer:
        """Put the Trainer together, with the values of our small run."""
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        values = {
            "output_dir": str(self.out),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 0.01,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 1,
            "logging_steps": 1,
            "save_steps": 2,
            "save_total_limit": 2,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **changes,
        }
        data = self.samples(tokenizer)
        return Trainer(
            model=AutoModelForCausalLM.from_pretrained(self.model),
            args=TrainingArguments(**values),
            train_dataset=data,
            eval_dataset=data,
            data_collator=pad,
        )

    def samples(self, tokenizer: Any) -> list[dict[str, list[int]]]:
        """Tokenize the rows, the prompt masked."""
        found = []
        for row in (json.loads(line) for line in self.rows.read_text().splitlines()):
            prompt = tokenizer(f"{row['instruction']} ")["input_ids"]
            answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            found.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
        return found

    def unstick(self) -> None:
        """Do what a person does whose restart crashes: delete the newest checkpoint."""
        newest = get_last_checkpoint(str(self.out))
        if newest:
            shutil.rmtree(newest)


def stock(lab: Lab, name: str) -> Stock:
    """Return the script with a new output folder."""
    folder = lab.folder / f"stock-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Stock(lab.model, lab.rows, folder / "out")


def pad(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Make a batch."""
    ids = [torch.tensor(sample["input_ids"]) for sample in samples]
    labels = [torch.tensor(sample["labels"]) for sample in samples]
    mask = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=2),
        "attention_mask": pad_sequence(mask, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }


def last_error(outcome: Outcome) -> str:
    """Return the last line of a traceback, without paths."""
    lines = [line for line in outcome.text.splitlines() if re.match(r"\w[\w.]*(Error|Exception|Iteration)\b", line)]
    text = lines[-1] if lines else outcome.last_words
    return re.sub(r"(/[\w.-]+)+/", "", text)[:160]
