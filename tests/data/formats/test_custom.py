"""A user's own format."""

from pathlib import Path

import pytest

from finetune.data.segments import RowError
from finetune.errors import ConfigError

from .conftest import BuildFormat, ShowRuns

SOURCE = """
from finetune.data.segments import Piece, Segment

def shout(row):
    return [Piece((Segment("> ", False), Segment(row["text"].upper(), True)), append_eos=True)]

def wrong(row):
    return row["text"]
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of formats where Python finds it; return its name."""
    (tmp_path / "formats_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return "formats_of_mine"


def test_the_functions_pieces_are_tokenized(own_module: str, runs: ShowRuns) -> None:
    assert runs({"text": "hi"}, type=f"{own_module}:shout") == [("> ", False), ("HI</s>", True)]


def test_a_function_that_returns_something_else_is_refused(own_module: str, build_format: BuildFormat) -> None:
    with pytest.raises(RowError) as error:
        build_format(type=f"{own_module}:wrong")({"text": "hi"})
    assert str(error.value) == "formats_of_mine:wrong must return a list of Piece, but returned text ('hi')"


def test_a_missing_function_is_refused_with_the_nearest(own_module: str, build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(type=f"{own_module}:shoot")
    expected = "type 'formats_of_mine:shoot': formats_of_mine has no function 'shoot'. Did you mean 'shout'?"
    assert str(error.value) == expected


def test_a_missing_module_is_refused(build_format: BuildFormat) -> None:
    with pytest.raises(ConfigError) as error:
        build_format(type="no_such_package.formats:f")
    text = str(error.value)
    assert text.startswith("type 'no_such_package.formats:f': cannot import no_such_package.formats (")
    assert text.endswith("put its folder in PYTHONPATH")
