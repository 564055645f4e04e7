"""The list of formats that are not here."""

from finetune.data.formats import FORMATS
from finetune.data.formats.foreign import FOREIGN


def test_no_known_format_is_on_the_list_of_foreign_ones() -> None:
    assert not FOREIGN.keys() & FORMATS.keys()
