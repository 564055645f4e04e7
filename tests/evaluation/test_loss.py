import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny import save_tiny_llama
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from finetune.data.store import SampleWriter, StoredSamples, TokenBatch
from finetune.data.tokenize import Tokens
from finetune.errors import EvaluationError
from finetune.evaluation.group import Group
from finetune.evaluation.loss import PROBED, ValidationLoss, row_losses
from finetune.model.precision import Precision

FLOAT32 = Precision(torch.float32)


def store(folder: Path, *, trained: bool = True) -> StoredSamples:
    """Twenty-three rows of very different lengths and trained shares."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(23):
        ids = generator.integers(5, 290, int(generator.integers(3, 60))).tolist()
        labels = [token if trained and generator.random() < 0.4 else -100 for token in ids[:-1]]
        rows.append(Tokens(ids, [*labels, ids[-1] if trained else -100]))
    with SampleWriter(folder) as writer:
        writer.write(TokenBatch.of(rows))
    return StoredSamples(folder)


def by_hand(model: torch.nn.Module, samples: StoredSamples) -> list[tuple[float, int]]:
    """Each row alone, its whole logits."""
    found = []
    for row in samples:
        ids, labels = (torch.tensor(row[name].tolist()) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1]
        kept = labels[1:] != -100
        loss = torch.nn.functional.cross_entropy(logits[kept], labels[1:][kept], reduction="sum")
        found.append((loss.item(), int(kept.sum())))
    return found


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_the_loss_of_each_row_is_the_one_by_hand_at_every_batch_size(tmp_path: Path, batch_size: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    samples = store(tmp_path / "rows")
    done: list[int] = []

    sums = row_losses(model, samples, batch_size, FLOAT32, Group(), done.append)

    assert sums == pytest.approx(np.array(by_hand(model, samples)), rel=1e-6)
    assert sum(done) == 23


def logit_rows(layer: torch.nn.Module) -> list[int]:
    """Collect how many rows of logits each pass makes at one time."""
    rows: list[int] = []
    layer.register_forward_hook(lambda _, __, output: rows.append(output.shape[-2]))
    return rows


def test_logits_of_a_batch_never_exist(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    rows = logit_rows(model.lm_head)

    row_losses(model, store(tmp_path / "rows"), 23, FLOAT32, Group(), lambda _: None)

    assert 0 < rows[0] <= PROBED, "the probe"
    assert set(rows[1:]) == {0}
    assert len(model.lm_head._forward_hooks) == 1, "the output layer is let go as it was"


class Halved(LlamaForCausalLM):
    """A model that does something with its logits that nothing in its config names."""

    def forward(self, **inputs: object) -> object:
        outputs = super().forward(**inputs)
        outputs.logits = outputs.logits / 2
        return outputs


def test_a_model_whose_logits_are_not_those_of_its_output_layer_keeps_its_own(tmp_path: Path) -> None:
    model = Halved.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    samples = store(tmp_path / "rows")
    sums = row_losses(model, samples, 4, FLOAT32, Group(), lambda _: None)
    assert sums == pytest.approx(np.array(by_hand(model, samples)), rel=1e-6)


def test_an_adapter_and_its_base_each_use_their_own_output_layer(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    samples = store(tmp_path / "rows")
    expected = by_hand(base, samples)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)

    tuned = row_losses(model, samples, 4, FLOAT32, Group(), lambda _: None)
    with model.disable_adapter():
        plain = row_losses(model, samples, 4, FLOAT32, Group(), lambda _: None)

    assert tuned == pytest.approx(np.array(by_hand(model, samples)), rel=1e-6)
    assert plain == pytest.approx(np.array(expected), rel=1e-6)
    assert abs(tuned[:, 0].sum() / plain[:, 0].sum() - 1) > 1e-3


def test_the_mean_is_over_tokens_and_perplexity_its_exponential() -> None:
    found = ValidationLoss.of(np.array([[1.0, 1.0], [2.0, 5.0]]))
    assert (found.loss, found.num_rows, found.num_tokens) == (0.5, 2, 6)
    assert found.perplexity == pytest.approx(math.exp(0.5))
    assert ValidationLoss(1000.0, 1, 1).perplexity == math.inf


def test_rows_without_a_trained_token_have_no_loss(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    with pytest.raises(EvaluationError, match="no token of these rows is trained, so there is no loss to take"):
        row_losses(model, store(tmp_path / "rows", trained=False), 4, FLOAT32, Group(), lambda _: None)


def test_a_loss_that_is_not_finite_names_its_row(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="the loss of row 0 is nan; the weights are damaged"):
        row_losses(model, store(tmp_path / "rows"), 4, FLOAT32, Group(), lambda _: None)
