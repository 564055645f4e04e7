"""From a configuration to the setup of the estimate."""

from pathlib import Path

import pytest
from tests.estimate.sections import config_of, make_setup
from tests.tiny import save_tiny_llama

from finetune.errors import ModelError
from finetune.estimate.ask import find_shapes


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "base")


def rows(folder: Path, base: Path, **keys: object) -> tuple[int, int]:
    setup = make_setup(folder, base, **keys)
    return setup.num_added, next(tensor.shape[0] for tensor in setup.base.tensors if tensor.is_embedding)


def test_added_tokens_grow_the_embeddings(base: Path, tmp_path: Path) -> None:
    before = rows(tmp_path, base)[1]
    assert rows(tmp_path, base, tokens=["<a>", "<b>"]) == (2, before + 2)
    assert rows(tmp_path, base, special_tokens={"pad_token": "<pad>"}) == (0, before), "it is there already"


def test_without_a_tokenizer_every_token_counts_as_new(base: Path, tmp_path: Path) -> None:
    before = rows(tmp_path, base)[1]
    (base / "tokenizer.json").unlink()
    tokens = {"pad_token": "<x>", "additional_special_tokens": ["<y>", "<z>"]}
    assert rows(tmp_path, base, tokens=["<a>"], special_tokens=tokens) == (4, before + 4)


def test_a_folder_needs_no_weights(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    assert find_shapes(config_of(tmp_path, base).model).is_local


def test_a_name_on_the_hub_is_taken_as_it_is(tmp_path: Path) -> None:
    source = find_shapes(config_of(tmp_path, Path("some/model"), model_revision="main").model)
    assert (source.name, source.revision, source.is_local) == ("some/model", "main", False)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    model = config_of(tmp_path, tmp_path / "bases").model
    with pytest.raises(ModelError, match=r"there is no folder .*bases\. Did you mean '.*base'\?"):
        find_shapes(model)
