"""A training section with its dependent keys filled in, as the loader does."""

from finetune.config.defaults import fill_defaults
from finetune.config.training import TrainingSection
from finetune.processes import ProcessPlace
from finetune.training.engine import Engine


def training_section(**changes: object) -> TrainingSection:
    """Build a section from the keys that matter to a test."""
    values = fill_defaults({"learning_rate": 1e-3, **changes})
    return TrainingSection(**{name: value for name, value in values.items() if name in TrainingSection.model_fields})


ALONE = Engine(ProcessPlace())
"""One process, nothing shared."""
