"""How work is spread over devices."""

from finetune.config.section import Section, key


class DistributedSection(Section):
    """DeepSpeed and process groups."""

    deepspeed: str | None = key(None, affects="nothing")
    """DeepSpeed configuration file."""
