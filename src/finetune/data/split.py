"""Hold validation rows back from the training data."""

import math

from finetune.errors import DataError


def num_validation_rows(num_rows: int, val_set_size: float) -> int:
    """Return how many of ``num_rows`` are held back.

    ``val_set_size`` up to 1 is a fraction, rounded up as ``train_test_split`` does; above 1 it is a count; 0
    holds nothing back.  The rows come off the end of the data, unshuffled, as Axolotl takes them.
    Raises DataError when no row would be left to train on.
    """
    count = math.ceil(num_rows * val_set_size) if val_set_size <= 1 else int(val_set_size)
    if count >= num_rows:
        raise DataError(
            f"val_set_size: {val_set_size:g} holds back {count} of {num_rows} rows and leaves none to train "
            "on; use a fraction below 1, a smaller count, or test_datasets"
        )
    return count
