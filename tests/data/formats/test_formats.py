"""Finding a format by its type."""

import pytest

from finetune.data.formats import FORMATS
from finetune.data.formats.presets import PRESETS
from finetune.errors import ConfigError

from .conftest import BuildFormat


def test_every_preset_is_a_known_format() -> None:
    assert PRESETS.keys() <= FORMATS.keys()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_named_format_can_be_built(name: str, build_format: BuildFormat) -> None:
    data = {"chat_template": "chatml"}
    assert build_format(data=data, type=name).chunk_len in (None, 512)


def test_an_unknown_type_is_refused_with_the_known_and_the_nearest_one(build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(type="chat_templat")
    text = str(error.value)
    assert text.startswith("type: chat_templat is not a known format; known are alpaca, alpaca:instruct,")
    assert "a mapping of columns, or your own package.module:function" in text
    assert text.endswith("Did you mean 'chat_template'?")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pretrain", "type: completion"),
        ("dpo.chatml", "keep the chosen answers and use type: chat_template"),
        ("context_qa.load_404", "a mapping under type:"),
        ("sharegpt_simple", "type: sharegpt with conversation: chatml or llama3"),
    ],
)
def test_a_type_that_only_axolotl_has_is_refused_with_what_to_use(
    name: str, advice: str, build_format: BuildFormat
) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(type=name)
    assert str(error.value).startswith(f"type: {name} of Axolotl is not supported; instead: {advice}")


def test_a_style_that_alpaca_does_not_have_is_an_unknown_type(build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError, match=r"type: alpaca:chatlm is not a known format.*Did you mean 'alpaca:chatml'"):
        build_format(type="alpaca:chatlm")
