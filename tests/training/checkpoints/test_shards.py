"""DeepSpeed's own writer and reader."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.training.checkpoints.saves import Bomb, make_store

from finetune.errors import CheckpointError
from finetune.training.checkpoints.unpickled import weights_only

os.environ.setdefault("DS_ACCELERATOR", "cpu")
shards = pytest.importorskip("finetune.training.checkpoints.shards")
fragments, stages, scales = (
    pytest.importorskip(f"deepspeed.{name}")
    for name in ("utils.tensor_fragment", "runtime.zero.config", "runtime.fp16.loss_scaler")
)
CONFIG = SimpleNamespace(checkpoint_config={"checkpoint_serialization": True})


def test_a_file_that_cannot_be_written_is_told_after_the_others_are(tmp_path: Path) -> None:
    """As DeepSpeed's engine does it: several files, and barriers between them."""
    engine = SimpleNamespace(checkpoint_engine="usual", _config=CONFIG)

    def save_both() -> None:
        with shards.patient_writes(engine):
            engine.checkpoint_engine.save({"a": torch.ones(2)}, str(tmp_path / "nowhere" / "first.pt"))
            engine.checkpoint_engine.save({"a": torch.ones(2)}, str(tmp_path / "second.pt"))

    with pytest.raises((OSError, RuntimeError)):
        save_both()
    assert (tmp_path / "second.pt").is_file()
    assert engine.checkpoint_engine == "usual"


def test_who_breaks_off_between_deepspeeds_barriers_asks_nobody(tmp_path: Path) -> None:
    """The others are in a barrier: to ask them would be to wait two hours."""
    engine = SimpleNamespace(checkpoint_engine="usual", _config=CONFIG)

    def write(folder: Path) -> None:
        with shards.patient_writes(engine):
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="checkpoint-1 could not be saved: the disk is full; "):
        make_store(tmp_path).save(1, [write])


def test_deepspeeds_reader_runs_no_code_and_reads_its_own_types(tmp_path: Path) -> None:
    """It asks for pickles by itself (weights_only=False)."""
    reader = shards.TorchCheckpointEngine()
    torch.save({"state": Bomb(tmp_path / "marker")}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors"), weights_only(deepspeed=True):
        reader.load(str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "marker").exists()

    dynamic = scales.DynamicLossScaler(2.0**16, 9, min_scale=1, delayed_shift=1, consecutive_hysteresis=False)
    own = [fragments.fragment_address(1, 2), stages.ZeroStageEnum.weights, scales.LossScaler(1.0), dynamic]
    torch.save({"own": own}, tmp_path / "own.pt")
    with weights_only(deepspeed=True):
        loaded = reader.load(str(tmp_path / "own.pt"))["own"]
    assert loaded[:2] == own[:2]
    assert [scaler.loss_scale for scaler in loaded[2:]] == [1.0, 2.0**16]
