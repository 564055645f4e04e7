import pytest

from finetune.card.markdown import code, fenced, inline, listing, number, one_line, table


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.05, "0.05"),
        (0.5, "0.5"),
        (1.0, "1.0"),
        (3.8659, "3.8659"),
        (1.75702, "1.7570"),
        (1.0180180180, "1.0180"),
        (12, "12"),
        (0.0, "0.0"),
        (1.23456e-05, "1.235e-05"),
        (float("nan"), "nan"),
        (None, "None"),
    ],
    ids=str,
)
def test_numbers_have_at_most_four_decimals_and_never_vanish(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_table_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["A", "Long head"], [["12345", "x"]]) == (
        "| A     | Long head |\n|:-----:|:---------:|\n| 12345 | x         |"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
    ids=["one", "two", "three"],
)
def test_names_are_joined_as_in_a_sentence(names: list[str], expected: str) -> None:
    assert listing(names) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b_c", "a_b_c"),
        ("_a_", r"\_a\_"),
        ("**a**", r"\*\*a\*\*"),
        ("a|b", r"a\|b"),
        ("[a](b)", r"\[a\](b)"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("`a`", r"\`a\`"),
        ("a\n# b\r\n---", "a # b ---"),
    ],
    ids=["model name", "emphasis", "strong", "pipe", "link", "html", "code", "lines"],
)
def test_inline_text_starts_nothing(text: str, expected: str) -> None:
    assert inline(text) == expected


def test_one_line_drops_what_cannot_be_seen() -> None:
    assert one_line("a\x00b\u202ec\u200b") == "abc"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", "`a`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``")],
    ids=["plain", "tick inside", "tick at the ends"],
)
def test_code_spans_hold_backticks(text: str, expected: str) -> None:
    assert code(text) == expected


def test_a_fence_is_longer_than_any_fence_inside() -> None:
    assert fenced("a: |\n  ````\n  x\n  ````\n", "yaml") == "`````yaml\na: |\n  ````\n  x\n  ````\n`````"


def test_a_fence_ends_on_a_line_of_its_own_and_keeps_the_text_as_written() -> None:
    assert fenced("a: 1", "yaml") == "```yaml\na: 1\n```"
    assert fenced("a: 1\n\n", "yaml") == "```yaml\na: 1\n\n```"
