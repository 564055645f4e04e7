"""Where metrics go besides the output folder."""

from typing import Literal

from pydantic import model_validator

from finetune.config.section import Section, key


class TrackingSection(Section):
    """Weights & Biases.  Its key is read from WANDB_API_KEY, never from the file."""

    wandb_project: str | None = key(None, affects="nothing")
    """Project that the run is logged to; unset means no tracking."""
    wandb_entity: str | None = key(None, affects="nothing")
    """User or team that owns the project."""
    wandb_name: str | None = key(None, affects="nothing")
    """Display name of the run; default wandb_run_id."""
    wandb_run_id: str | None = key(None, affects="nothing")
    """Identity of the run, to go on with it after a stop."""
    wandb_watch: Literal["gradients", "parameters", "all", "false", False] | None = key(None, affects="nothing")
    """Histograms to log: gradients, parameters, all, or 'false'."""
    wandb_log_model: Literal["false", "end", "checkpoint", "true", False, True] | None = key(None, affects="nothing")
    """Upload weights as artifacts: 'end' or 'true' (the final folder), 'checkpoint' (each one too), 'false'."""
    wandb_mode: Literal["online", "offline", "disabled"] | None = key(None, affects="nothing")
    """Mode of the client; default WANDB_MODE, else offline where no key is known."""

    @model_validator(mode="after")
    def _project_is_named(self) -> "TrackingSection":
        others = sorted(name for name in self.model_fields_set if name != "wandb_project")
        if others and not self.wandb_project:
            raise ValueError(f"{', '.join(others)} without wandb_project: nothing would be tracked")
        return self
