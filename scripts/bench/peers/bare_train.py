"""Train as a bare loop of torch, transformers and peft does.

python bare_train.py JOB
"""

import torch
from plain import build_model, collate, load_rows
from steps import UNTRAINED, read_job, write_step

job = read_job()
rows = load_rows(job)
model = build_model(job)
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=job.learning_rate, weight_decay=0.0, fused=True)
for step in range(job.num_steps):
    batch = collate(job, [rows[row] for row in range(step * job.batch, (step + 1) * job.batch)])
    real = int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job.bf16):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    write_step(job, loss.item(), real, int((batch["labels"][:, 1:] != UNTRAINED).sum()))
