"""Train with LLaMA-Factory, in its own environment.

python llamafactory_train.py JOB
"""

import importlib.machinery
import json
import sys
import tempfile
import types
from pathlib import Path

# It imports torchaudio, whose wheels do not load beside torch's CPU build; no audio here, so an empty module will do.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

from clock import StepClock  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from steps import read_job  # noqa: E402

job = read_job()
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
with tempfile.TemporaryDirectory() as folder:
    # it holds a base in the format that config.json names; the others are told which
    model = Path(folder) / "model"
    model.mkdir()
    for file in Path(job.model).resolve().iterdir():
        (model / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps({**config, "dtype": job.base_dtype, "torch_dtype": job.base_dtype}))
    chats = {
        "file_name": str(Path(job.chats).resolve()),
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": TAGS,
    }
    (Path(folder) / "dataset_info.json").write_text(json.dumps({"chats": chats}))
    prepared = {"tokenized_path": job.data} if job.data else {}
    method = {"finetuning_type": "full"}
    if job.adapter:
        method = {"finetuning_type": "lora", "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0}
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": str(model),
            "dataset": "chats",
            "dataset_dir": folder,
            **prepared,
            **method,
            "template": "chatml",
            "cutoff_len": job.sequence_len,
            "packing": job.packed,
            "neat_packing": job.packed,
            "flash_attn": "sdpa",
            "disable_shuffling": True,
            "disable_gradient_checkpointing": True,
            "per_device_train_batch_size": job.batch,
            "gradient_accumulation_steps": 1,
            "max_steps": job.num_steps,
            "learning_rate": job.learning_rate,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "bf16": job.bf16,
            "use_cpu": True,
            "seed": job.seed,
            "save_strategy": "no",
            "output_dir": folder,
            "report_to": "none",
            "preprocessing_num_workers": 1,
        },
        callbacks=[StepClock(job)],
    )
