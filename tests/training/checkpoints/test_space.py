"""What a run takes on the disk, and what is said when there is not enough."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.story import LORA, train, write_run
from tests.tiny import save_tiny_llama, tiny_tokenizer
from tests.training.checkpoints.saves import make_store, parts
from tests.training.sections import ALONE
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.errors import CheckpointError
from finetune.model.stored import StoredFormat
from finetune.processes import ProcessPlace
from finetune.training.checkpoints.space import Needs, check_room, estimate_needs, explain_failure, is_full
from finetune.training.engine import Engine

FLOAT32 = StoredFormat(torch.float32, {})
OPTIMIZERS = ["adamw_torch", "adamw_8bit", "lion_8bit", "ademamix", "adafactor"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that its weights count for more than configurations do."""
    return save_tiny_llama(tmp_path_factory.mktemp("space") / "llama", num_layers=12, tie=True)


def lora(model: PreTrainedModel) -> PreTrainedModel:
    adapter: PreTrainedModel = get_peft_model(model, LoraConfig(r=32, target_modules="all-linear"))
    return adapter


def num_bytes(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


@pytest.mark.parametrize("method", [*OPTIMIZERS, "lora"])
def test_the_estimate_is_near_what_a_run_saves(base: Path, tmp_path: Path, method: str) -> None:
    changes = [*LORA, "--lora_r=32"] if method == "lora" else [f"--optimizer={method}"]
    optimizer = "adamw_torch_fused" if method == "lora" else method
    out = train(write_run(tmp_path, base), *changes, "--max_steps=1", "--val_set_size=0", "--evals_per_epoch=null")
    saved = num_bytes(list((out / "checkpoint-1").rglob("*")))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    needs = estimate_needs(lora(model) if method == "lora" else model, FLOAT32, optimizer, tiny_tokenizer(), ALONE)

    assert saved * 0.98 < needs.checkpoint < saved * 1.1 + 100_000
    result = num_bytes([*out.glob("*.safetensors"), *out.glob("tokenizer*"), *out.glob("*config.json")])
    assert result * 0.98 < needs.final < result + 150_000


def test_deepspeed_writes_a_float32_copy_and_below_stage_3_the_weights_again(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    needs = {}
    for stage in (1, 3):
        engine = Engine(ProcessPlace(), deepspeed={"zero_optimization": {"stage": stage}})
        needs[stage] = estimate_needs(model, FLOAT32, "adamw_torch", tiny_tokenizer(), engine).checkpoint
    alone = estimate_needs(model, FLOAT32, "adamw_torch", tiny_tokenizer(), ALONE).checkpoint
    assert (needs[1] - alone, needs[3] - alone) == (2 * weights, weights)


def test_a_run_that_cannot_save_once_is_refused_and_one_that_cannot_keep_all_is_warned(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    said: list[str] = []

    with pytest.raises(
        CheckpointError,
        match=rf"output_dir: {tmp_path} has .* GB free; a checkpoint takes about .* GB and the result about 1\.0 GB\. "
        "save_strategy: no does without checkpoints; free some space, or choose another output_dir",
    ):
        check_room(tmp_path, Needs(free, 10**9), 3, 2, said.append)
    with pytest.raises(CheckpointError, match=r"GB free; the result about .*B\. free some space, or choose another"):
        check_room(tmp_path, Needs(free, 2 * free), 0, 1, said.append)
    check_room(tmp_path, Needs(2 * free, 10), 0, 1, said.append)
    check_room(tmp_path, Needs(10, 10), 3, 2, said.append)
    assert said == []

    check_room(tmp_path, Needs(free // 3, 0), 9, 5, said.append)
    assert said[0].startswith(f"WARNING output_dir: {tmp_path} has ")
    assert "5 checkpoints of " in said[0]
    assert said[0].endswith(" at once, and the result. Lower save_total_limit, or free some space")


def test_checkpoints_that_stand_are_not_counted_again(tmp_path: Path) -> None:
    """The limit is reached: one more is there for a moment, and that is all the room that is needed."""
    free = shutil.disk_usage(tmp_path).free
    said: list[str] = []
    store = make_store(tmp_path, limit=2, said=said)
    for step in (1, 2):
        store.save(step, parts(step))
    said.clear()
    store.prepare(Needs(free * 2 // 3, 0), 2, 9, range(10))
    assert said == []
    store.limit = 3
    store.prepare(Needs(free * 2 // 3, 0), 2, 9, range(10))
    assert "2 checkpoints of" in said[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_used_up_quota_are_called_so(tmp_path: Path, number: int) -> None:
    text = explain_failure(tmp_path / "checkpoint-3", tmp_path / "staging", OSError(number, "x"), 4_100_000)
    free = shutil.disk_usage(tmp_path).free
    assert free > 4_100_000
    assert text.startswith(
        f"{tmp_path / 'checkpoint-3'} could not be saved: the disk is full or the quota on it is used up; it takes "
        "about 4 MB, and "
    )
    assert text.endswith(
        " are free. What was saved before is whole. Free some space or lower save_total_limit, then go on with the "
        "same command and --resume"
    )


def test_what_was_not_the_disk_is_said_in_the_librarys_words(tmp_path: Path) -> None:
    """The disk is asked, and has room."""
    assert not is_full(tmp_path, RuntimeError("unexpected pos 1779520 vs 1779408"))
    assert not list(tmp_path.iterdir())
    text = explain_failure(tmp_path / "checkpoint-3", tmp_path, OSError(errno.EFBIG, "File too large"), None)
    assert text == (f"{tmp_path / 'checkpoint-3'} could not be saved (File too large). What was saved before is whole")
