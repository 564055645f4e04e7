"""The trainings that train.py compares: what each program is given, and what came of it."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from chats import write_chats
from environments import HERE, Installed
from measure import run_training

from finetune.config import load_config
from finetune.data.prepare import PreparedData
from finetune.preprocess import preprocess_alone
from finetune.training.fit import training_rows
from finetune.training.sampler import EvenSampler

OURS, BARE, HF = "finetune", "bare loop", "HF Trainer"
DRIVERS = {BARE: "bare_train.py", HF: "hf_train.py"}
SEED = 42
SEQUENCE_LEN = 512
BATCH = 4
NUM_CHATS = 400

CONFIG = f"""
chat_template: chatml
micro_batch_size: {BATCH}
gradient_accumulation_steps: 1
num_epochs: 1
learning_rate: 0.0002
optimizer: adamw_torch_fused
lr_scheduler: constant
weight_decay: 0.0
seed: {SEED}
logging_steps: 1
save_strategy: "no"
val_set_size: 0
"""
LORA = {"adapter": "lora", "lora_r": "16", "lora_alpha": "32", "lora_dropout": "0", "lora_target_linear": "true"}


@dataclass(frozen=True)
class Case:
    """One kind of training."""

    adapter: bool
    packed: bool
    bf16: bool

    @property
    def name(self) -> str:
        """Such as ``lora-packed-bf16``."""
        words = ["lora" if self.adapter else "full", "packed" if self.packed else "padded"]
        return "-".join([*words, "bf16" if self.bf16 else "fp32"])


@dataclass(frozen=True)
class Outcome:
    """What one training showed."""

    first_step: float
    """Seconds from the command to the end of the first step."""
    times: list[float]
    """End of each step, seconds since 1970."""
    losses: list[float]
    total: list[int]
    """Tokens of each step, without padding."""
    trained: list[int]
    cpu_seconds: float
    peak_mb: float

    @property
    def step_seconds(self) -> float:
        """Mean of all steps but the first."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    @property
    def trained_rate(self) -> float:
        """Trained tokens a second, without the first step."""
        return sum(self.trained[1:]) / (self.times[-1] - self.times[0])

    @property
    def total_rate(self) -> float:
        """Tokens a second, without the first step and without padding."""
        return sum(self.total[1:]) / (self.times[-1] - self.times[0])

    @property
    def late_rate(self) -> float:
        """Trained tokens a second in the second half: compilation is over by then."""
        half = len(self.times) // 2
        return sum(self.trained[half:]) / (self.times[-1] - self.times[half - 1])


@dataclass
class TrainingBench:
    """Where things are, and the rows in the order in which our sampler deals them out."""

    work: Path
    model: Path
    peers: dict[str, Installed]
    num_steps: int
    threads: int
    counts: dict[bool, list[tuple[int, int]]] = field(default_factory=dict)
    """Of padded and packed: total and trained tokens of each step."""

    @property
    def tokens_per_step(self) -> float:
        """Mean of the padded steps, without padding."""
        return float(np.mean([total for total, _ in self.counts[False]]))

    def prepare(self) -> None:
        """Write the chats, and the rows and packs that the other programs train on."""
        self.work.mkdir(parents=True, exist_ok=True)
        write_chats(self.work / "chats.jsonl", NUM_CHATS, seed=1, size=0.25)
        write_chats(self.work / "short.jsonl", 50, seed=2, size=0.15)
        for packed in (False, True):
            data, _ = preprocess_alone(load_config(self._config(), self._words(Case(True, packed, False))), print)
            rows = _packs(data) if packed else _rows(data)
            self.counts[packed] = _counts(rows, 1 if packed else BATCH)
            datasets.Dataset.from_list(rows).save_to_disk(str(self._data(packed)))
        shutil.copytree(self._data(False), self._data(None), dirs_exist_ok=True)

    def train(self, tool: str, case: Case, keys: Mapping[str, str] | None = None) -> Outcome:
        """Train on the prepared rows.  Raises RunFailedError."""
        if tool == OURS:
            return self._ours(self._words(case, {"max_steps": str(self.num_steps), **(keys or {})}), case.packed)
        own_packs = case.packed and tool == "TRL"
        job = {"data": str(self._data(None if own_packs else case.packed)), "chats": ""}
        return self._other(tool, job, case, self.num_steps)

    def start(self, tool: str) -> Outcome:
        """Take the first two steps on raw chats, nothing prepared.  Raises RunFailedError."""
        case, chats = Case(True, False, False), self.work / "short.jsonl"
        if tool == OURS:
            shutil.rmtree(self.work / "prepared-now", ignore_errors=True)
            words = self._words(case, {"max_steps": "2", "sequence_len": "256", "micro_batch_size": "2"}, chats)
            return self._ours([*words, "--dataset_prepared_path", str(self.work / "prepared-now")], packed=False)
        job = {"data": "", "chats": str(chats), "batch": 2, "sequence_len": 256}
        return self._other(tool, job, case, num_steps=2)

    def _ours(self, words: list[str], packed: bool) -> Outcome:
        shutil.rmtree(self.work / "out", ignore_errors=True)
        command = [sys.executable, "-m", "finetune", "train", str(self._config()), *words]
        cost = run_training(command, self.work / f"{OURS}.log", self.threads)
        lines = [json.loads(line) for line in (self.work / "out" / "metrics.jsonl").read_text().splitlines()]
        rows = [line for line in lines if "loss" in line]
        return _outcome(self._counted(rows, packed=packed), cost)

    def _counted(self, steps: list[dict[str, Any]], *, packed: bool) -> list[dict[str, Any]]:
        """Add the tokens of the prepared rows."""
        counts = self.counts[packed][: len(steps)]
        return [
            {**step, "total": total, "trained": trained} for step, (total, trained) in zip(steps, counts, strict=True)
        ]

    def _other(self, tool: str, job: dict[str, Any], case: Case, num_steps: int) -> Outcome:
        steps = self.work / "steps.jsonl"
        steps.unlink(missing_ok=True)
        whole = {
            "model": str(self.model),
            "adapter": case.adapter,
            "packed": case.packed,
            "bf16": case.bf16,
            "num_steps": num_steps,
            "batch": 1 if case.packed else BATCH,
            "learning_rate": 0.0002,
            "sequence_len": SEQUENCE_LEN,
            "seed": SEED,
            "steps": str(steps),
            **job,
        }
        (self.work / "job.json").write_text(json.dumps(whole))
        peer = self.peers.get(tool)
        python, driver = (peer.python, peer.peer.trains) if peer else (sys.executable, DRIVERS[tool])
        cost = run_training(
            [python, HERE / "peers" / driver, self.work / "job.json"], self.work / f"{tool}.log", self.threads
        )
        rows = [json.loads(line) for line in steps.read_text().splitlines()]
        own_rows = not job["data"] or job["data"] == str(self._data(None))
        return _outcome(rows if own_rows else self._counted(rows, packed=case.packed), cost)

    def _words(self, case: Case, keys: Mapping[str, str] | None = None, chats: Path | None = None) -> list[str]:
        given = {
            "base_model": str(self.model),
            "datasets": json.dumps([{"path": str(chats or self.work / "chats.jsonl"), "type": "chat_template"}]),
            "output_dir": str(self.work / "out"),
            "dataset_prepared_path": str(self.work / "prepared"),
            "sequence_len": str(SEQUENCE_LEN),
            "bf16": str(case.bf16).lower(),
            **(LORA if case.adapter else {}),
            **({"sample_packing": "true", "micro_batch_size": "1"} if case.packed else {}),
            **(keys or {}),
        }
        return [f"--{name}={value}" for name, value in given.items()]

    def _config(self) -> Path:
        path = self.work / "config.yml"
        path.write_text(CONFIG)
        return path

    def _data(self, packed: bool | None) -> Path:
        return self.work / {False: "rows", True: "packs", None: "rows-to-pack"}[packed]


def _rows(data: PreparedData) -> list[dict[str, Any]]:
    rows = training_rows(data)
    return [
        {name: rows[index][name].tolist() for name in ("input_ids", "labels")}
        for index in EvenSampler(len(rows), 1, BATCH, SEED)
        if 0 <= index < len(rows)
    ]


def _packs(data: PreparedData) -> list[dict[str, Any]]:
    """Return our bins; the first token of a sample is not trained, and the mask numbers the samples."""
    bins = training_rows(data)
    return [_pack(bins[index]) for index in EvenSampler(len(bins), 1, 1, SEED)]


def _pack(samples: Any) -> dict[str, Any]:
    parts = [sample["input_ids"] for sample in samples]
    padding = SEQUENCE_LEN - sum(map(len, parts))
    columns = {
        "input_ids": [*parts, np.zeros(padding, int)],
        "labels": [*([np.r_[-100, sample["labels"][1:]] for sample in samples]), np.full(padding, -100)],
        "attention_mask": [
            *(np.full(len(part), number) for number, part in enumerate(parts, 1)),
            np.zeros(padding, int),
        ],
        "position_ids": [*(np.arange(len(part)) for part in parts), np.arange(padding)],
    }
    return {name: np.concatenate(column).tolist() for name, column in columns.items()}


def _counts(rows: list[dict[str, Any]], batch: int) -> list[tuple[int, int]]:
    """Return total and trained tokens of each step; padding and what has no token before it do not count."""
    counts = [
        (
            sum(map(bool, row["attention_mask"])) if "attention_mask" in row else len(row["input_ids"]),
            sum(label != -100 for label in row["labels"][1:]),
        )
        for row in rows
    ]
    steps = (counts[start : start + batch] for start in range(0, len(counts), batch))
    return [(sum(total for total, _ in step), sum(trained for _, trained in step)) for step in steps]


def _outcome(steps: list[dict[str, Any]], cost: Any) -> Outcome:
    columns = [[step[name] for step in steps] for name in ("time", "loss", "total", "trained")]
    return Outcome(columns[0][0] - cost.started, *columns, cost.cpu_seconds, cost.peak_mb)
