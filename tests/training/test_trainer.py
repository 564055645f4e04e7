"""Evaluation by token sums, and saving without pickles."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.checkpoints.saves import make_store
from transformers import EvalPrediction, LlamaForCausalLM, TrainingArguments

from finetune.data.collate import PaddedCollator, SupervisedCollator
from finetune.training.checkpoints.find import verify
from finetune.training.trainer import CausalTrainer, token_mean_loss


def test_no_trained_token_at_all_is_not_a_loss_of_zero() -> None:
    assert math.isnan(token_mean_loss(EvalPrediction(predictions=np.zeros((3, 2)), label_ids=np.zeros(3)))["loss"])


def rows() -> list[dict[str, np.ndarray]]:
    """Thirty-seven samples of very different lengths and trained shares."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(37):
        length = int(generator.integers(2, 40))
        ids = generator.integers(5, 290, length).astype(np.int32)
        labels = np.where(generator.random(length) < 0.5, ids, -100).astype(np.int32)
        labels[-1] = ids[-1]
        made.append({"input_ids": ids, "labels": labels})
    return made


def exact_loss(model: LlamaForCausalLM, samples: list[dict[str, np.ndarray]]) -> float:
    """Each sample alone, summed over trained tokens."""
    total, count = 0.0, 0
    for sample in samples:
        ids, labels = (torch.tensor(sample[name], dtype=torch.int64) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids.unsqueeze(0)).logits[0]
        kept = labels[1:] != -100
        total += torch.nn.functional.cross_entropy(logits[:-1][kept], labels[1:][kept], reduction="sum").item()
        count += int(kept.sum())
    return total / count


def make_trainer(model: LlamaForCausalLM, output_dir: Path, batch_size: int = 4) -> CausalTrainer:
    collator = SupervisedCollator(PaddedCollator(pad_token_id=2, sequence_len=64))
    return CausalTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output_dir),
            use_cpu=True,
            per_device_eval_batch_size=batch_size,
            per_device_train_batch_size=batch_size,
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            max_steps=1,
            save_steps=1,
        ),
        train_dataset=rows(),
        eval_dataset=rows(),
        data_collator=collator,
        validation_collator=collator,
        training_sampler=None,
        store=make_store(output_dir),
        compute_metrics=token_mean_loss,
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_the_evaluation_loss_is_exact_at_any_batch_size(tiny_llama: Path, tmp_path: Path, batch_size: int) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama).eval()

    loss = make_trainer(model, tmp_path, batch_size).evaluate()["eval_loss"]

    assert loss == pytest.approx(exact_loss(model, rows()), rel=1e-6)


def test_a_training_step_has_the_loss_of_its_trained_tokens(tiny_llama: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    trainer = make_trainer(model, tmp_path)
    batch = trainer.data_collator(rows()[:4])
    num_items = (batch["shift_labels"] != -100).sum()

    loss = trainer.compute_loss(model, dict(batch), num_items_in_batch=num_items)

    assert loss.item() == pytest.approx(exact_loss(model.eval(), rows()[:4]), rel=1e-6)


def test_a_checkpoint_holds_no_pickled_arguments(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = make_trainer(LlamaForCausalLM.from_pretrained(tiny_llama), tmp_path)
    trainer.train()

    files = {file.name for file in (tmp_path / "checkpoint-1").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= files
    assert "training_args.bin" not in files
    assert verify(tmp_path / "checkpoint-1").step == 1
