"""The whole configuration of a run: nine sections, and where they came from."""

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from finetune.config.adapter import AdapterSection
from finetune.config.card import CardSection
from finetune.config.data import DataSection
from finetune.config.distributed import DistributedSection
from finetune.config.evaluation import EvaluationSection
from finetune.config.model import ModelSection
from finetune.config.section import Section
from finetune.config.stream import StreamSection
from finetune.config.tracking import TrackingSection
from finetune.config.training import TrainingSection

RESOLVED = "config.resolved.yml"
"""File in the folder of a run that holds its configuration with every default filled in."""

SURROUNDINGS = "surroundings.json"
"""File beside it with what the run depends on besides its configuration."""

SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "adapter": AdapterSection,
    "data": DataSection,
    "stream": StreamSection,
    "training": TrainingSection,
    "evaluation": EvaluationSection,
    "distributed": DistributedSection,
    "tracking": TrackingSection,
    "card": CardSection,
}
OWNERS: dict[str, str] = {name: section for section, model in SECTIONS.items() for name in model.model_fields}
"""Which section owns each key of the flat file."""


class Source(BaseModel):
    """Where a configuration came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Path as the user gave it."""
    text: str
    """The file as written, comments included."""
    overrides: dict[str, Any]
    """Keys changed on the command line."""
    notes: list[str]
    """One line for each key that was accepted and has no effect here."""


class RunConfig(BaseModel):
    """A checked configuration.  Pass a function the section that it needs, never the whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelSection
    adapter: AdapterSection
    data: DataSection
    stream: StreamSection
    training: TrainingSection
    evaluation: EvaluationSection
    distributed: DistributedSection
    tracking: TrackingSection
    card: CardSection
    source: Source

    def render(self) -> str:
        """Return the resolved configuration as YAML, one block per section, unset keys left out."""
        blocks = []
        for name in SECTIONS:
            values = self.model_dump(include={name}, exclude_none=True)[name]
            kept = {key: value for key, value in values.items() if value not in ([], {})}
            if kept:
                blocks.append(f"# {name}\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100))
        return "\n".join(blocks)
