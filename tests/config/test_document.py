"""The YAML reader: types, places, and what is refused."""

from pathlib import Path

import pytest

from finetune.config.document import parse_document, parse_value, read_document
from finetune.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5e-6", 5e-6),
        (".5", 0.5),
        ("010", 10),
        ("0x1f", 31),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("yes", True),
        ("off", False),
        ("null", None),
        ("", None),
        ("'false'", "false"),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 2}}", {"a": {"b": 2}}),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
    ],
)
def test_a_value_has_the_type_that_it_looks_like(text: str, value: object) -> None:
    parsed = parse_value(text)

    assert parsed == value
    assert type(parsed) is type(value)


def test_every_key_and_item_knows_its_line_and_column() -> None:
    document = parse_document("a: 1\nlist:\n  - path: x\n    type: y\n", "c.yml")

    assert document.place(("list", 0, "type")) == "c.yml:4:5"
    assert document.place(("list", 0)) == "c.yml:3:5"
    assert document.place(("list", 0, "absent")) == "c.yml:3:5"


def test_a_key_given_twice_is_a_fault_with_both_places() -> None:
    document = parse_document("a: 1\nb: 2\na: 3\n", "c.yml")

    assert [(fault.where, fault.message) for fault in document.faults] == [
        ("c.yml:3:1", "key given twice (first at c.yml:1:1); remove one")
    ]


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    document = parse_document("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n", "c.yml")

    assert document.values["more"] == {"x": 1, "y": 3}
    assert document.faults == []


def test_a_python_tag_is_a_fault_and_runs_nothing() -> None:
    document = parse_document("a: !!python/object/apply:os.system ['false']\nb: !!python/name:os.system\n", "c.yml")

    assert document.faults[-1].message == (
        "the YAML tag tag:yaml.org,2002:python/name:os.system is not allowed here; write a plain value"
    )


def test_an_alias_bomb_is_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]

    with pytest.raises(ConfigError, match="expand to more than a configuration can hold"):
        parse_document("\n".join(levels), "c.yml")


def test_a_recursive_alias_is_refused() -> None:
    with pytest.raises(ConfigError, match="expand to more than a configuration can hold"):
        parse_document("a: &a [*a]\n", "c.yml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a:\n\t- b\n",
            r"c\.yml:2:1: not valid YAML: found character '\\t' that cannot start any token \(YAML indents",
        ),
        (b"a: [1, 2\n", r"c\.yml:2:1: not valid YAML"),
        (b"a: \x00\n", r"c\.yml: not valid YAML: special characters are not allowed \(character 3\)"),
        (b"", r"c\.yml: is empty; the least it needs is base_model, datasets and learning_rate"),
        (b"- a\n", r"c\.yml:1: expected 'key: value' lines at the top level"),
        (b"a: caf\xe9\n", r"c\.yml:1: not UTF-8 \(byte 6\); save the file as UTF-8"),
        (b"a: 1\n---\nb: 2\n", r"c\.yml:2:1: not valid YAML: but found another document"),
    ],
    ids=["tab", "open bracket", "NUL", "empty", "list", "latin-1", "two documents"],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.yml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=message):
        read_document(path)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: two\r\n")

    assert read_document(path).values == {"a": 1, "b": "two"}


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: no such file \(the configuration is a YAML file\)"):
        read_document(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="is a folder; name the YAML file in it"):
        read_document(tmp_path)
