"""Low-rank adapters: the PEFT side of a run."""

import re
from typing import Literal

from pydantic import field_validator, model_validator

from finetune.config.section import Section, key


class AdapterSection(Section):
    """An adapter that is trained while the base stays frozen.  ``adapter: null`` trains the model itself."""

    adapter: Literal["lora", "qlora"] | None = key(None, affects="training")
    """lora, qlora (which insists on load_in_4bit), or null for training the weights themselves."""
    lora_model_dir: str | None = key(None, affects="training")
    """Folder of an existing adapter: training goes on from its weights and modules, merge-lora merges it."""
    lora_r: int = key(8, affects="training", ge=1)
    """Rank of the update."""
    lora_alpha: float = key(16.0, affects="training", gt=0)
    """Scale of the update: it is multiplied by alpha/r (alpha/sqrt(r) with peft_use_rslora)."""
    lora_dropout: float = key(0.0, affects="training", ge=0, lt=1)
    """Dropout on the adapter's input."""
    lora_target_modules: str | list[str] | None = key(None, affects="training")
    """Modules that get a new adapter: a list of name endings, or one regular expression for whole names."""
    lora_target_linear: bool = key(False, affects="training")
    """Target every linear module but the output embedding."""
    lora_modules_to_save: list[str] = key(list, affects="training")
    """Modules trained in full and saved with the adapter, such as embed_tokens and lm_head."""
    peft_use_dora: bool = key(False, affects="training")
    """Weight-decomposed adapters (DoRA)."""
    peft_use_rslora: bool = key(False, affects="training")
    """Rank-stabilised scale, alpha/sqrt(r) (rsLoRA)."""

    @field_validator("lora_target_modules")
    @classmethod
    def _targets_compile(cls, targets: str | list[str] | None) -> str | list[str] | None:
        for pattern in [targets] if isinstance(targets, str) else targets or []:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return targets

    @model_validator(mode="after")
    def _an_adapter_is_there(self) -> "AdapterSection":
        """Refuse the shape of an adapter where none is asked for: a forgotten key would train all weights."""
        changed = self.changed_keys()
        if changed and not self.adapter:
            raise ValueError(
                f"{', '.join(changed)}: without an adapter this has no effect and the weights themselves are trained; "
                "add adapter: lora"
            )
        chosen = {"lora_target_modules", "lora_target_linear", "lora_modules_to_save"}.intersection(changed)
        if chosen and self.lora_model_dir:
            raise ValueError(
                f"{', '.join(sorted(chosen))}: no effect with lora_model_dir, whose adapter has its own modules; "
                "leave this out"
            )
        return self

    @model_validator(mode="after")
    def _targets_are_named(self) -> "AdapterSection":
        if self.adapter and not (self.lora_target_modules or self.lora_target_linear or self.lora_model_dir):
            raise ValueError(
                f"adapter: {self.adapter} needs lora_target_modules, "
                "or lora_target_linear: true for every linear module"
            )
        if self.lora_target_linear and isinstance(self.lora_target_modules, str):
            raise ValueError(
                "lora_target_linear and a lora_target_modules regular expression exclude each other; use a list"
            )
        return self
