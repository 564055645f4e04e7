"""What is published about the run."""

from finetune.config.section import Section, key


class CardSection(Section):
    """The model card and the hub."""

    hub_model_id: str | None = key(None, affects="nothing", pattern=r"^([\w.-]+/)?[\w.-]+$")
    """Name on the hub, owner/name: title of the card, and where the result is uploaded."""
