"""What only the model's class knows: which tensors are its embeddings, whether they are one, and what is quantized."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from finetune.errors import ModelError
from finetune.model.base import BaseModelSource
from finetune.model.load import spare_tied_head
from finetune.model.merging.plan import Layout


def read_layout(base: BaseModelSource, quantization: BitsAndBytesConfig | None, *, trust_remote_code: bool) -> Layout:
    """Build the model without weights and ask it.

    Raises:
        ModelError: its class cannot be built.
    """
    try:
        config = AutoConfig.from_pretrained(base.name, revision=base.revision, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{base.name}: its config.json cannot be used: {lines[0]}") from error
    source, target = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    output_weight = f"{names[id(target)]}.weight" if target is not None else ""
    quantized = {}
    if quantization:
        plain = set(model.modules())
        held = spare_tied_head(quantization, config)
        AutoHfQuantizer.from_config(held, pre_quantized=False).preprocess_model(model, device_map={"": "cpu"})
        quantized = {name: module for name, module in model.named_modules() if module not in plain}
    return Layout(
        names[id(source)],
        names[id(target)] if target is not None else None,
        output_weight in model.all_tied_weights_keys,
        target is not None and target.bias is not None,
        quantized,
    )
