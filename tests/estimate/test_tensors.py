"""The tensors of a base model without its weights."""

from pathlib import Path

import pytest
from tests.estimate.models import FAMILIES, save_family

from finetune.errors import ModelError
from finetune.estimate.tensors import read_base, read_header
from finetune.model.base import BaseModelSource


def source(folder: Path) -> BaseModelSource:
    return BaseModelSource(str(folder), None, is_local=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied"])
def test_shapes_from_headers_and_from_config_are_those_of_the_model(family: str, tied: bool, tmp_path: Path) -> None:
    model = save_family(family, tmp_path, tie_word_embeddings=tied)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    with_headers = read_base(source(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    alone = read_base(source(tmp_path))

    assert {tensor.name: tensor.shape for tensor in with_headers.tensors} == expected
    assert {tensor.name: tensor.shape for tensor in alone.tensors} == expected
    assert (with_headers.has_headers, alone.has_headers) == (True, False)


def test_an_unknown_decoder_needs_its_weights(tmp_path: Path) -> None:
    save_family("llama", tmp_path)
    config = (tmp_path / "config.json").read_text().replace('"llama"', '"newcomer"')
    (tmp_path / "config.json").write_text(config)
    assert read_base(source(tmp_path)).has_headers
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="the shapes of a 'newcomer' do not follow from config"):
        read_base(source(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{]"], ids=["empty", "endless", "no JSON"])
def test_a_damaged_header_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: its header is damaged .* download the model again"):
        read_header(file)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        read_base(source(tmp_path))
