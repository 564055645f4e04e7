"""What each step of a run did, to the last bit: the record by which two runs are compared."""

import hashlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LEDGER = "FINETUNE_LEDGER"
"""Environment variable: an existing folder in which each process keeps a ledger; unset for ordinary runs."""
KILLED_AT = "FINETUNE_LEDGER_KILLED_AT"
"""Environment variable: the step at whose end every process that keeps a ledger kills itself."""


class LedgerCallback(TrainerCallback):  # type: ignore[misc]
    """Writes a line for each optimizer step.

    ``batches`` are digests of what each forward pass of this process was given, ``random`` one of the states of the
    generators; ``loss``, ``grad_norm`` and ``learning_rate`` are what the run logged, as hexadecimal floats.  A loss
    is there for steps that are logged.
    """

    def __init__(self, path: Path, killed_at: int | None = None) -> None:
        self.path = path
        self.killed_at = killed_at
        self._batches: list[str] = []
        self._row: dict[str, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        model.register_forward_pre_hook(self._note_batch, with_kwargs=True)

    def _note_batch(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if model.training:
            self._batches.append(batch_digest(kwargs))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._row = {"step": state.global_step, "batches": self._batches, "random": _random_digest()}
        self._batches = []

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs or self._row.get("step") != state.global_step:
            return
        values = {name: float(logs[name]).hex() for name in ("loss", "grad_norm", "learning_rate") if name in logs}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self._row, **values}) + "\n")


def open_ledger(environment: Mapping[str, str], rank: int) -> list[LedgerCallback]:
    """Return the callback that keeps the ledger of process ``rank``, where the environment asks for one."""
    folder = environment.get(LEDGER)
    if not folder:
        return []
    killed_at = environment.get(KILLED_AT)
    return [LedgerCallback(Path(folder) / f"{rank}.jsonl", int(killed_at) if killed_at else None)]


def read_ledger(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of each step, one for each process, in the order of their ranks."""
    steps: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("[0-9]*.jsonl"), key=lambda path: int(path.stem)):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            steps.setdefault(row["step"], []).append(row)
    return steps


def batch_digest(batch: Mapping[str, Any]) -> str:
    """Hash names, shapes and content of the tensors in ``batch``."""
    digest = hashlib.sha256()
    for name, value in sorted(batch.items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _random_digest() -> str:
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
    return batch_digest({str(index): state for index, state in enumerate(states)})
