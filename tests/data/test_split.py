"""How many rows are held back."""

import datasets
import pytest

from finetune.data.split import num_validation_rows
from finetune.errors import DataError


@pytest.mark.parametrize(
    ("num_rows", "val_set_size", "expected"),
    [
        pytest.param(800, 0.02, 16, id="a-fraction"),
        pytest.param(801, 0.02, 17, id="a-fraction-is-rounded-up"),
        pytest.param(800, 0.0, 0, id="nothing"),
        pytest.param(800, 100, 100, id="a-count"),
        pytest.param(800, 1.5, 1, id="a-count-is-whole"),
        pytest.param(2, 0.5, 1, id="one-of-two"),
    ],
)
def test_the_number_of_validation_rows(num_rows: int, val_set_size: float, expected: int) -> None:
    assert num_validation_rows(num_rows, val_set_size) == expected


@pytest.mark.parametrize("val_set_size", [0.01, 0.02, 0.1, 0.33, 0.5, 7])
@pytest.mark.parametrize("num_rows", [97, 100, 801])
def test_the_split_is_that_of_train_test_split(num_rows: int, val_set_size: float) -> None:
    whole = datasets.Dataset.from_dict({"n": list(range(num_rows))})
    split = whole.train_test_split(test_size=val_set_size, shuffle=False)
    held_back = num_validation_rows(num_rows, val_set_size)
    assert split["test"]["n"][:] == list(range(num_rows - held_back, num_rows))


@pytest.mark.parametrize(("val_set_size", "shown", "count"), [(1.0, "1", 10), (10, "10", 10), (11, "11", 11)])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(val_set_size: float, shown: str, count: int) -> None:
    with pytest.raises(DataError) as caught:
        num_validation_rows(10, val_set_size)
    assert str(caught.value) == (
        f"val_set_size: {shown} holds back {count} of 10 rows and leaves none to train on; use a "
        "fraction below 1, "
        "a smaller count, or test_datasets"
    )
