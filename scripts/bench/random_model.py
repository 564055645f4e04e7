"""Models of known shapes with random weights, and rows as long as those of chats: no network needed.

    python scripts/bench/random_model.py FOLDER SHAPE DEVICE

A process of its own makes a model, so that no memory of the device stays taken.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8},
}
"""Llama-3.1-8B, Llama-3.2-1B, and one to try things with."""


def make_model(work: Path, shape: str, device: str) -> Path:
    """Return the folder of a model; the first time it is made."""
    folder = work / shape
    if not (folder / "tokenizer.json").is_file():
        subprocess.run([sys.executable, __file__, str(folder), shape, device], check=True)
    return folder


def write_rows(path: Path, sequence_len: int, num_tokens: int) -> None:
    """Write tokens of chats: lengths lognormal around an eighth of the sequence, the later half of each trained."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        while num_tokens > 0:
            length = int(np.clip(rng.lognormal(np.log(sequence_len / 8), 0.8), 8, sequence_len))
            ids = rng.integers(3, 256, length)
            labels = np.where(np.arange(length) < length // 2, -100, ids)
            file.write(json.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}) + "\n")
            num_tokens -= length


def save_llama(folder: Path, device: str, shape: dict[str, Any], **how: Any) -> None:
    """Save random weights in bfloat16; ``how`` goes to ``save_pretrained``."""
    import torch  # noqa: PLC0415 - who only writes rows does without these
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    config = LlamaConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2, dtype="bfloat16", **shape)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        LlamaForCausalLM(config).save_pretrained(folder, **how)
    torch.set_default_dtype(torch.float32)


def _save_model(folder: Path, shape: str, device: str) -> None:
    sizes = {"vocab_size": 512 if shape == "tiny" else 128_256, "num_key_value_heads": 8, **SHAPES[shape]}
    save_llama(folder, device, {"max_position_embeddings": 8192, "rope_theta": 500_000.0, **sizes})
    _save_tokenizer(folder)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    alphabet = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


if __name__ == "__main__":
    _save_model(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
