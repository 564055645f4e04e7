"""Which model is trained, how its weights are held, and which of them move."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from finetune.config.section import Section, key
from finetune.errors import nearest

# An optional row range closes a pattern: ^model.embed_tokens.weight$[:32000]
ROW_RANGE = re.compile(r"\[(?P<range>\d*:\d*)\]$")
_LONE_DIGITS = re.compile(r"\[\d+\]$")

# Parameters of transformers' BitsAndBytesConfig, by the switch under which they are read.
_BNB_4BIT = ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage")
_BNB_8BIT = ("llm_int8_threshold", "llm_int8_has_fp16_weight")
_BNB_BOTH = ("llm_int8_skip_modules",)
_BNB_REFUSED = {
    "load_in_4bit": "belongs at the top level of the file",
    "load_in_8bit": "belongs at the top level of the file",
    "llm_int8_enable_fp32_cpu_offload": "has no effect: the whole model is held on one device",
}


class SpecialTokens(Section):
    """Tokens with a role.  One that the tokenizer does not know yet is added to it."""

    bos_token: str | None = key(None, affects="tokens", min_length=1)
    """Beginning of a text."""
    eos_token: str | None = key(None, affects="tokens", min_length=1)
    """End of a text, or of a turn."""
    pad_token: str | None = key(None, affects="tokens", min_length=1)
    """Fills short rows; never trained."""
    unk_token: str | None = key(None, affects="tokens", min_length=1)
    """Stands for what cannot be encoded."""
    additional_special_tokens: list[str] | None = key(None, affects="tokens")
    """Further tokens that are never split."""


class ModelSection(Section):
    """The base model and its tokenizer."""

    base_model: str = key(affects="tokens", min_length=1)
    """Hub name or folder of the model to start from; also of its tokenizer."""
    model_type: str | None = key(None, affects="training")
    """Model class of transformers; default the class that the model's own config names."""
    tokenizer_type: str | None = key(None, affects="tokens")
    """Tokenizer class of transformers; default AutoTokenizer."""
    trust_remote_code: bool = key(False, affects="tokens")
    """Run Python code that comes with the model; a hub model then needs model_revision, a commit of 40 digits."""
    model_revision: str | None = key(None, affects="tokens")
    """Commit, tag or branch of a hub model; a folder has none."""
    special_tokens: SpecialTokens = key(SpecialTokens, affects="tokens")
    """Tokens with a role: bos_token, eos_token, pad_token, unk_token, additional_special_tokens."""
    tokens: list[str] = key(list, affects="tokens")
    """Ordinary tokens to add to the vocabulary; their embeddings start as the mean of the others."""
    load_in_8bit: bool = key(False, affects="training")
    """Hold the frozen base in 8 bits (needs an adapter)."""
    load_in_4bit: bool = key(False, affects="training")
    """Hold the frozen base in 4-bit NF4, double quantized (needs an adapter)."""
    bnb_config_kwargs: dict[str, Any] = key(dict, affects="training")
    """Further arguments of transformers' BitsAndBytesConfig for the chosen bits, such as bnb_4bit_quant_type: fp4."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = (
        key(None, affects="training")
    )
    """Attention backend; default the best one here that keeps packed samples apart."""
    flash_attention: bool | None = key(None, affects="training")
    """Prefer flash attention; where it is missing the best isolating backend is taken, and said."""
    sdp_attention: bool | None = key(None, affects="training")
    """Use PyTorch's scaled dot product attention."""
    eager_attention: bool | None = key(None, affects="training")
    """Use plain matrix products for attention."""
    flex_attention: bool | None = key(None, affects="training")
    """Use PyTorch's flex attention (CUDA)."""
    xformers_attention: bool | None = key(None, affects="training")
    """Only null or false: xformers is not used here."""
    unfrozen_parameters: list[str] = key(list, affects="training")
    """Regular expressions (re.search) of parameters that train, others are frozen; [a:b] at the end: these rows."""

    @field_validator("unfrozen_parameters")
    @classmethod
    def _patterns_compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if _LONE_DIGITS.search(pattern):
                raise ValueError(
                    f"{pattern!r} ends in digits in brackets, which is one row to Axolotl and a set of characters to a "
                    "regular expression; write [5:6] for row 5, or (0|1) for one of two digits"
                )
            try:
                re.compile(ROW_RANGE.sub("", pattern))
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    @field_validator("bnb_config_kwargs")
    @classmethod
    def _bnb_arguments_exist(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Refuse what BitsAndBytesConfig would drop with a line in the log."""
        known = (*_BNB_4BIT, *_BNB_8BIT, *_BNB_BOTH)
        for name in arguments:
            if name in _BNB_REFUSED:
                raise ValueError(f"{name} {_BNB_REFUSED[name]}; take it out of bnb_config_kwargs")
            if name not in known:
                raise ValueError(
                    f"{name} is no argument of BitsAndBytesConfig.{nearest(name, known)} Known are {', '.join(known)}"
                )
        return arguments

    @field_validator("xformers_attention")
    @classmethod
    def _no_xformers(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("xformers is not supported; use flash_attention: true or sdp_attention: true")
        return value

    @model_validator(mode="after")
    def _choices_agree(self) -> "ModelSection":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        if self.bnb_config_kwargs and not (self.load_in_4bit or self.load_in_8bit):
            raise ValueError("bnb_config_kwargs needs load_in_4bit or load_in_8bit")
        for names, switch, on in (
            (_BNB_4BIT, "load_in_4bit", self.load_in_4bit),
            (_BNB_8BIT, "load_in_8bit", self.load_in_8bit),
        ):
            idle = [name for name in names if name in self.bnb_config_kwargs]
            if idle and not on:
                raise ValueError(f"bnb_config_kwargs: {', '.join(idle)} needs {switch}: true")
        if self.model_revision and self.base_is_folder:
            raise ValueError("model_revision names a commit on the hub, but base_model is a folder here; take it out")
        wanted = self.attention_choices
        if len(wanted) > 1:
            raise ValueError(f"more than one attention backend is asked for: {', '.join(wanted)}")
        return self

    @property
    def base_is_folder(self) -> bool:
        """Whether base_model is a path here and not a name on the hub."""
        return self.base_model.startswith(("/", ".", "~")) or Path(self.base_model).is_dir()

    @property
    def attention_choices(self) -> list[str]:
        """The attention keys that ask for something."""
        switches = {
            "attn_implementation": self.attn_implementation,
            "flash_attention": self.flash_attention,
            "sdp_attention": self.sdp_attention,
            "eager_attention": self.eager_attention,
            "flex_attention": self.flex_attention,
        }
        return [name for name, value in switches.items() if value]

    @property
    def quantized(self) -> bool:
        """Whether the base is held in 4 or 8 bits."""
        return self.load_in_4bit or self.load_in_8bit
