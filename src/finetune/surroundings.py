"""What a run depends on besides its configuration: the content behind names, and what ``auto`` became here."""

import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.card.redact import REDACTED, redact
from finetune.config import RunConfig
from finetune.config.changes import Change, differences
from finetune.config.run import SURROUNDINGS
from finetune.hardware import describe_device
from finetune.model.base import find_base
from finetune.model.build import Hardware
from finetune.model.identity import base_identity
from finetune.training.deepspeed import load_deepspeed

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "deepspeed", "tokenizers")
_ATTENTION = ("attn_implementation", "flash_attention", "sdp_attention", "eager_attention", "flex_attention")


@dataclass(frozen=True)
class Surroundings:
    """Facts of one run; all plain values, without secrets."""

    compute: str
    """Format of the arithmetic, such as bfloat16: what bf16, fp16 and their ``auto`` came to."""
    attention: str
    base: dict[str, str]
    """See :func:`finetune.model.identity.base_identity`."""
    deepspeed: Any = None
    """Content of the ``deepspeed:`` file."""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    """``{"step", "changed"}``: lines of what was changed when the run went on from that step."""

    def to_json(self) -> str:
        """Return the facts as indented JSON, which :meth:`from_json` reads back."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Surroundings":
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


def gather_surroundings(config: RunConfig, hardware: Hardware) -> Surroundings:
    """Find out what this run depends on.

    Raises:
        ModelError, ConfigError: the base or the DeepSpeed file is not there.
    """
    found = load_deepspeed(config.distributed, Path(config.source.file))
    return Surroundings(
        compute=str(hardware.precision.compute_dtype).removeprefix("torch."),
        attention=hardware.attention.implementation,
        base=base_identity(find_base(config.model)),
        deepspeed=_redacted(found[1]) if found else None,
        device=describe_device(),
        versions={name: version for name in _LIBRARIES if (version := _version(name))},
    )


def made_changes(output_dir: Path) -> list[str]:
    """Return what was changed when the run in ``output_dir`` went on, ``after step N: key: old -> new``."""
    path = output_dir / SURROUNDINGS
    history = Surroundings.from_json(path.read_text(encoding="utf-8")).changes if path.is_file() else []
    return [f"after step {row['step']}: {line}" for row in history for line in row["changed"]]


def settle(changes: list[Change], before: Surroundings, now: Surroundings) -> list[Change]:
    """Let facts decide where there are some: add those that changed, and drop keys whose fact stayed the same.

    ``bf16: true`` for ``auto`` is no change where ``auto`` was bfloat16, nor is another path to the same weights.
    """
    formats = "fp16" if "float16" in (before.compute, now.compute) else "bf16"
    facts: tuple[tuple[tuple[str, ...], str, Any, Any], ...] = (
        ((formats, "bf16", "fp16"), "computes in", before.compute, now.compute),
        (_ATTENTION, "in use", before.attention, now.attention),
        (("base_model", "model_revision"), "content", before.base, now.base),
        (("deepspeed",), "content", before.deepspeed, now.deepspeed),
    )
    settled = list(changes)
    for keys, what, old, new in facts:
        if old == new:
            settled = [change for change in settled if change.key not in keys]
        elif not any(change.key in keys for change in settled):
            settled += [Change(keys[0], line) for line in differences(f"{keys[0]} ({what})", old, new)]
    return settled


def describe_drift(before: Surroundings, now: Surroundings) -> list[str]:
    """Say which libraries and device are others; they may round differently and are no reason to refuse."""
    lines = list(differences("device", before.device, now.device))
    for name in dict.fromkeys([*before.versions, *now.versions]):
        lines += differences(name, before.versions.get(name), now.versions.get(name))
    return [
        f"WARNING other than when the checkpoint was saved, so the last bits may differ: {', '.join(lines)}"
    ] * bool(lines)


def _redacted(value: Any, name: str = "") -> Any:
    """Cut secrets out of settings, which are known by what they are or by the name they have."""
    if isinstance(value, dict):
        return {key: _redacted(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, name) for item in value]
    if not isinstance(value, str) or redact(line := f"{name}: {value}") == line:
        return value
    return REDACTED


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
