"""Train with the Trainer of transformers and nothing of ours.

python hf_train.py JOB
"""

import tempfile
from functools import partial

from clock import StepClock
from plain import build_model, collate, load_rows
from steps import read_job
from transformers import Trainer, TrainingArguments

job = read_job()
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=job.batch,
        max_steps=job.num_steps,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        logging_steps=1,
        bf16=job.bf16,
        use_cpu=True,
        seed=job.seed,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
    )
    trainer = Trainer(
        build_model(job),
        arguments,
        data_collator=partial(collate, job),
        train_dataset=list(load_rows(job)),
        callbacks=[StepClock(job)],
    )
    trainer.train()
