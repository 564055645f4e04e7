"""Loading the weights, quantized or not."""

from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from finetune.config.model import ModelSection
from finetune.errors import ConfigError, ModelError, nearest
from finetune.model.attention import Attention, prefer_flex, settle_attention
from finetune.model.base import BaseModelSource
from finetune.model.precision import Precision
from finetune.model.segments import SEGMENTS, VARLEN


def load_model(
    model: ModelSection, base: BaseModelSource, attention: Attention, precision: Precision, dtype: torch.dtype
) -> tuple[PreTrainedModel, Attention]:
    """Load the causal language model of ``base`` with weights in ``dtype``, or in 4 or 8 bits.

    A frozen base (under an adapter) is held in the compute format.  Weights that will be trained are held in float32:
    added to a bfloat16 weight, most updates of a small learning rate round to nothing.

    Returns:
        The model and the attention that it uses: sdpa where the chosen one does not fit the model, eager where the
        model knows no other, and none was asked for by name.

    Raises:
        ModelError: weights are missing, damaged, or not of a causal language model.
        ConfigError: ``model_type`` is not the class of this model.
    """
    config = _load_config(model, base)
    if model.model_type not in (None, "AutoModelForCausalLM") and not config.to_dict().get("auto_map"):
        _check_model_type(str(model.model_type), config.model_type)
    config.use_cache = False
    arguments: dict[str, Any] = {
        "config": config,
        "revision": base.revision,
        "trust_remote_code": model.trust_remote_code,
        "dtype": dtype,
        "quantization_config": spare_tied_head(quantization(model, precision), config),
        # with ZeRO-3 each tensor is spread over the processes as it is read, and lies on no device whole
        "device_map": None if is_deepspeed_zero3_enabled() else {"": _device()},
        "use_safetensors": True,
    }
    own = attention.implementation in (SEGMENTS, VARLEN)
    try:
        network = _load_weights(base, "sdpa" if own else attention.implementation, arguments)
    except ModelError as error:
        if attention.exact or "attention implementation" not in str(error):
            raise
        network = _load_weights(base, "eager", arguments)
        attention = prefer_flex(network, f"as this model has no {attention.implementation} attention", precision)
        own = False
    if model.load_in_4bit:
        from finetune.compat import keep_4bit_trainable_on_cpu  # noqa: PLC0415 - bitsandbytes, for 4 bits alone

        keep_4bit_trainable_on_cpu(network)
    return network, settle_attention(network, attention, precision) if own else attention


def _load_weights(base: BaseModelSource, attention: str, arguments: dict[str, Any]) -> PreTrainedModel:
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            base.name, attn_implementation=attention, output_loading_info=True, **arguments
        )
    except SafetensorError as error:
        raise ModelError(
            f"{base.name}: a weights file is damaged ({error}); copy or download the model again"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{base.name}: the weights cannot be loaded: {lines[0]}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{base.name}: the weights have no tensor {', '.join(missing[:3])}{more}, which would start at random; "
            "the files are incomplete, or config.json belongs to another model"
        )
    return network


def quantization(model: ModelSection, precision: Precision) -> BitsAndBytesConfig | None:
    """Return how bitsandbytes holds the frozen base.

    4 bits are NF4 with double quantization (Dettmers 2023, QLoRA) and products in the compute format, whatever
    ``adapter`` is called; ``bnb_config_kwargs`` has the last word.
    """
    arguments: dict[str, Any] = {}
    if model.load_in_4bit:
        arguments = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": precision.compute_dtype,
        }
    elif model.load_in_8bit:
        arguments = {"load_in_8bit": True}
    if not arguments:
        return None
    try:
        return BitsAndBytesConfig(**{**arguments, **model.bnb_config_kwargs})
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"bnb_config_kwargs: {error}") from None


def spare_tied_head(held: BitsAndBytesConfig | None, config: PretrainedConfig) -> BitsAndBytesConfig | None:
    """Leave out an output layer that is the embedding, as transformers does until ``llm_int8_skip_modules`` is given.

    bitsandbytes would make a quantized layer around a matrix that is not, whose first forward pass fails.
    """
    if held and held.llm_int8_skip_modules and config.get_text_config().tie_word_embeddings:
        held.llm_int8_skip_modules = [*held.llm_int8_skip_modules, "lm_head"]
    return held


def stored_dtype(model: ModelSection, base: BaseModelSource) -> torch.dtype:
    """Return the format that the base's weights are stored in; float32 where its config.json does not say."""
    dtype = _load_config(model, base).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _load_config(model: ModelSection, base: BaseModelSource) -> Any:
    try:
        config = AutoConfig.from_pretrained(
            base.name, revision=base.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{base.name}: this model is Python code that comes with it, which is not run. Once you have read it, "
                "trust_remote_code: true runs it (with model_revision, the commit that you have read, for one of the "
                "hub)"
            ) from None
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{base.name}: its config.json cannot be used: {lines[0]}") from error
    if config.to_dict().get("quantization_config"):
        raise ModelError(
            f"{base.name}: its weights are quantized already; name the full-precision model, "
            "and load_in_4bit or load_in_8bit quantizes it"
        )
    return config


def _check_model_type(model_type: str, architecture: str) -> None:
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(architecture)
    if model_type != expected:
        known = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))
        hint = "" if model_type in known else nearest(model_type, known)
        raise ConfigError(f"model_type: {model_type} does not fit the model, whose class is {expected}.{hint}")


def _device() -> str:
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
