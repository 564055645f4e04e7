"""The short form of the reliability matrix: the product is killed, starved and fed with faults, and has to hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bench" / "reliability.py"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run all rows once, and return the page."""
    folder = tmp_path_factory.mktemp("matrix")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--short", "--output", str(folder / "page.md"), "--work", str(folder / "work")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return (folder / "page.md").read_text(encoding="utf-8")


def test_no_row_of_the_matrix_fails(page: str) -> None:
    failed = [line for line in page.splitlines() if re.match(r"\| (A\d+|–) \|.*\*\*\d+ of \d+\*\*", line)]
    assert failed == []


def test_the_scorecard_counts_what_was_done(page: str) -> None:
    kills = re.search(r"\| random SIGKILLs [^|]+\| (\d+) / (\d+) / (\d+) / (\d+) of (\d+) \|", page)
    assert kills, page
    assert [int(number) for number in kills.groups()[:3]] == [20, 0, 0]
    assert kills[4] == kills[5] != "0"
    damages = re.search(r"\| corruptions [^|]+\| (\d+) / (\d+) / (\d+) \|", page)
    assert damages, page
    assert int(damages[1]) == int(damages[2]) > 10
    assert damages[3] == "0"


def test_what_cannot_be_shown_is_listed_with_the_reason(page: str) -> None:
    _, _, missing = page.partition("## Not shown")
    assert "a power cut: " in missing
    assert "GPU" in missing


def test_a_row_that_is_not_known_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--rows", "A99"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--rows: A99 not known; there are A1, A2" in done.stderr
