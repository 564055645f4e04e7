"""What a script without a trainer prepares: tokens of raw chats, batches, and a model with or without an adapter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from steps import UNTRAINED, Job
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def load_rows(job: Job) -> Sequence[dict[str, Any]]:
    """Return prepared rows, or those of raw chats, every token of which is trained."""
    if job.data:
        from datasets import load_from_disk  # noqa: PLC0415 - a script that reads chats itself does without

        return load_from_disk(job.data)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    chats = [json.loads(line)["messages"] for line in Path(job.chats).read_text().splitlines()]
    rows = [tokenizer.apply_chat_template(chat, return_dict=False)[: job.sequence_len] for chat in chats]
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def build_model(job: Job) -> Any:
    """Load the model with scaled dot product attention, and add the adapter after seeding."""
    set_seed(job.seed)
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=job.base_dtype, attn_implementation="sdpa", use_safetensors=True
    )
    model.config.use_cache = False
    if job.adapter:
        model = get_peft_model(model, LoraConfig(**LORA))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model.train()


def collate(job: Job, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pad rows to the longest; packed rows stand alone and have positions in the place of a mask."""
    if job.packed:
        (row,) = rows
        return {name: torch.as_tensor(row[name])[None] for name in ("input_ids", "labels", "position_ids")}
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": UNTRAINED}
    batch = {
        name: torch.tensor([[*row[name], *[value] * (width - len(row[name]))] for row in rows])
        for name, value in fill.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(width)[None] < lengths[:, None]).long()
    return batch
