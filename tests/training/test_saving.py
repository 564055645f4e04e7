"""Reading back what was written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetune.errors import CheckpointError
from finetune.training.saving import check_weights


def test_tensors_are_counted_over_all_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "b": torch.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(2, 2)}, tmp_path / "two.safetensors")

    assert check_weights(tmp_path) == 3


def test_an_empty_tensor_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2), "lost": torch.zeros(0)}, tmp_path / "one.safetensors")

    with pytest.raises(CheckpointError, match=r"one\.safetensors: tensor lost is empty; the weights were not saved"):
        check_weights(tmp_path)


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights were written"):
        check_weights(tmp_path)
