"""Whether a run may go on from a checkpoint, and under which other values."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.card.redact import redact
from finetune.config import RunConfig
from finetune.config.changes import FIXED, Change, changes_between, standing_in_the_way
from finetune.config.run import OWNERS, RESOLVED, SECTIONS, SURROUNDINGS
from finetune.data.report import DataReport
from finetune.errors import ConfigError, DataError
from finetune.record import DATA_REPORT
from finetune.surroundings import Surroundings, describe_drift, made_changes, settle
from finetune.training.checkpoints.find import Found

_SHARDS = "DeepSpeed keeps the states of the optimizer in a layout of their format"


@dataclass(frozen=True)
class Continuation:
    """From where a run goes on, and what is other than before; of a fresh run nothing but its surroundings."""

    surroundings: Surroundings
    checkpoint: Found | None = None
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    """Lines to say about it."""

    @property
    def keys(self) -> frozenset[str]:
        """The keys that changed."""
        return frozenset(change.key for change in self.changes)


@dataclass(frozen=True)
class Recorded:
    """What the run of a checkpoint wrote down about itself."""

    config: str
    """Resolved configuration, YAML text; empty where it is not known."""
    digest: str
    """Of the samples; empty where it is not known."""
    num_train: int
    surroundings: Surroundings | None


def recorded(found: Found) -> Recorded:
    """Return a checkpoint's own record, or beside one that has none the record of its folder."""
    if found.manifest:
        facts = found.manifest.facts
        known = Surroundings.from_json(facts.surroundings) if facts.surroundings else None
        return Recorded(facts.config, facts.data_digest, facts.num_samples, known)
    folder = found.path.parent
    report = DataReport.from_json(_read(folder / DATA_REPORT)) if (folder / DATA_REPORT).is_file() else None
    return Recorded(
        config=_read(folder / RESOLVED) if (folder / RESOLVED).is_file() else "",
        digest=report.digest if report else "",
        num_train=report.num_train if report else 0,
        surroundings=Surroundings.from_json(_read(folder / SURROUNDINGS))
        if (folder / SURROUNDINGS).is_file()
        else None,
    )


def continue_from(config: RunConfig, checkpoint: Found, now: Surroundings, allowed: Collection[str]) -> Continuation:
    """Compare ``config`` and its surroundings with those that the checkpoint's run had.

    Raises:
        ConfigError: something that changes the result differs, and is not ``allowed`` or cannot change any more.
    """
    before = recorded(checkpoint)
    changes = changes_between(before.config, redact(config.render())) if before.config else []
    notes: list[str] = []
    if before.surroundings:
        changes = settle(changes, before.surroundings, now)
        notes += describe_drift(before.surroundings, now)
    _refuse(changes, checkpoint, allowed, _fixed(config))
    step = checkpoint.step
    history = before.surroundings.changes if before.surroundings else []
    history = [row for row in history if row["step"] < step + (not changes)]  # a change made anew replaces the old one
    if changes:
        lines = [change.line for change in changes]
        history.append({"step": step, "changed": lines})
        notes.append(f"going on from step {step} under other values: {', '.join(lines)}")
    return Continuation(replace(now, changes=history), checkpoint, tuple(changes), tuple(notes))


def refuse_changed_data(data: DataReport, checkpoint: Found) -> None:
    """Compare with the samples that the checkpoint's run was trained on.

    Raises:
        DataError: they are others, and the run would go on in the middle of an epoch of those.
    """
    before = recorded(checkpoint)
    if before.digest not in ("", data.digest):
        raise DataError(
            f"{checkpoint.path} belongs to a run on other samples ({before.num_train:,} of them, now "
            f"{data.num_train:,}): a data file, the tokenizer, an option or the code that prepares the data changed "
            "since. This cannot be allowed, because the run is in the middle of an epoch of those samples. Take the "
            "change back, or start anew with --replace or another output_dir"
        )


def note_changes(start: Continuation, output_dir: Path) -> None:
    """Write the surroundings, and what changed into ``metrics.jsonl`` and the resolved configuration."""
    history = start.surroundings.changes
    (output_dir / SURROUNDINGS).write_text(start.surroundings.to_json(), encoding="utf-8")
    if start.changes:
        row = {"step": history[-1]["step"], "time": round(time.time(), 3), "changed": history[-1]["changed"]}
        with (output_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    made = made_changes(output_dir)
    if made:
        head = "".join(f"# changed {line}\n" for line in made)
        resolved = output_dir / RESOLVED
        resolved.write_text(head + _read(resolved), encoding="utf-8")


def _refuse(changes: list[Change], checkpoint: Found, allowed: Collection[str], fixed: dict[str, str]) -> None:
    lines = standing_in_the_way(changes, allowed, fixed)
    if not lines:
        return
    keys = list(dict.fromkeys(change.key for change in changes if change.key not in fixed))
    go_on = f"; to go on with them, which is recorded, add --allow-changed {','.join(keys)}" if keys else ""
    raise ConfigError(
        f"{checkpoint.path} belongs to a run with other values, and what is saved goes on with them:\n  "
        + "\n  ".join(lines)
        + f"\nTake these changes back{go_on}; or start anew with --replace or another output_dir"
    )


def _fixed(config: RunConfig) -> dict[str, str]:
    """Return what cannot change in this run: in a stream nothing tells whether the samples stayed the same."""
    fixed = dict(FIXED)
    if config.stream.streaming:
        for name, section in OWNERS.items():
            extra = SECTIONS[section].model_fields[name].json_schema_extra
            if section == "data" and isinstance(extra, dict) and extra["affects"] == "tokens":
                fixed.setdefault(name, FIXED["streaming"])
    if config.distributed.deepspeed:
        fixed["bf16"] = _SHARDS
    return fixed


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
