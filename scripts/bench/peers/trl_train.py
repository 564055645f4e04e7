"""Train with TRL's SFTTrainer, in TRL's own environment.

python trl_train.py JOB

Packed, it makes packs of its own of the same rows.
"""

import importlib.util
import tempfile

from clock import StepClock
from datasets import load_dataset, load_from_disk
from peft import LoraConfig
from steps import read_job
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

job = read_job()
# the one that its padding-free packs are made for; without it samples of a pack may see each other
has_flash = job.device == "cuda" and importlib.util.find_spec("flash_attn") is not None
attention = {"attn_implementation": "flash_attention_2"} if has_flash else {}
with tempfile.TemporaryDirectory() as folder:
    data = load_from_disk(job.data) if job.data else load_dataset("json", data_files=job.chats, split="train")
    adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = SFTConfig(
        folder,
        model_init_kwargs={"dtype": job.base_dtype, **attention},
        per_device_train_batch_size=job.batch,
        max_steps=job.num_steps,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        logging_steps=1,
        bf16=job.bf16,
        use_cpu=job.device == "cpu",
        seed=job.seed,
        save_strategy="no",
        report_to="none",
        max_length=job.sequence_len,
        packing=job.packed,
        gradient_checkpointing=False,
    )
    trainer = SFTTrainer(
        job.model,
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=adapter if job.adapter else None,
        callbacks=[StepClock(job)],
    )
    trainer.train()
