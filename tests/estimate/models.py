"""Small models of every decoder that the estimator knows."""

from pathlib import Path
from typing import Any

import torch
from tests.tiny import tiny_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from finetune.estimate.architecture import KNOWN

FAMILIES = tuple(KNOWN)


def save_family(family: str, folder: Path, **changes: Any) -> PreTrainedModel:
    """Save a random model of ``family`` (width 64, two layers) with a tokenizer, and return it."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        **changes,
    }
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**values))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
