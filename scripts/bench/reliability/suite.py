"""Rows that the project's own tests show: they are run, and counted."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from reliability.record import Row, joined, listed, not_shown
from reliability.runs import Lab

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Selection:
    """Tests that belong to a row."""

    row: str
    what: str
    files: tuple[str, ...]
    """Test modules or folders; those that do not exist are left out."""
    words: str = ""
    """Expression for ``pytest -k``."""

    def run(self, lab: Lab) -> Row:
        """Run the tests in a process of their own."""
        files = [file for file in self.files if (ROOT / file).exists()]
        if lab.short:
            return not_shown(self.row, self.what, "in the full form; the test suite itself runs these")
        if not files:
            return not_shown(self.row, self.what, "there is no test of it yet")
        report = lab.folder / f"{self.row}.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", f"--junitxml={report}", *files]
        done = subprocess.run(
            [*command, *(["-k", self.words] if self.words else [])],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.is_file():
            return Row(self.row, self.what, 1, 0, listed([" ".join(done.stdout.split())[-200:]]))
        return self._read(report)

    def _read(self, report: Path) -> Row:
        # the report was written by pytest a moment ago
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
        bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = [case for case in cases if case.find("skipped") is not None]
        names = [re.sub(r"\[.*", "", str(case.get("name"))) for case in bad]
        tried = len(cases) - len(skipped)
        if not tried:
            return not_shown(self.row, self.what, f"no test of it was run ({len(skipped)} skipped)")
        where = ", ".join(file.removeprefix("tests/") for file in self.files if (ROOT / file).exists())
        said = f"{tried} tests of {where}" + (f", {len(skipped)} skipped" if skipped else "")
        return Row(self.row, self.what, tried, tried - len(bad), joined(said, listed(names)))


SELECTIONS = (
    Selection(
        "A17",
        "each field, file, tokenizer and template that affects tokens changes the key of the prepared data",
        ("tests/data/test_fingerprint.py", "tests/data/test_parts.py"),
    ),
    Selection(
        "A21",
        "labels of every format and template against oracles",
        ("tests/data/formats/test_masks.py", "tests/data/formats/test_golden.py", "tests/data/test_named_templates.py"),
    ),
    Selection(
        "A22",
        "pad = eos; no pad; a turn's end that is not eos",
        ("tests/data/test_turn_ends.py", "tests/data/test_collate.py", "tests/model/test_tokenizer.py"),
        "eos or end or pad",
    ),
    Selection(
        "A23",
        "a model that learned an example stops by itself, asked from its saved folder",
        ("tests/generation", "tests/evaluation/test_template_check.py"),
    ),
    Selection(
        "A24", "merged against adapter", ("tests/model/test_merge.py", "tests/model/merging"), "not folder and not plan"
    ),
    Selection(
        "A25",
        "a merge with the wrong base, or onto an existing output",
        ("tests/model/test_merge.py",),
        "refused or never_writes or not_published",
    ),
    Selection(
        "A27",
        "saved tensors: none empty, all there, also under ZeRO-3",
        ("tests/training/test_saving.py", "tests/model/test_sharded.py"),
    ),
    Selection("A35", "a tracker or hub that is down", ("tests/test_publish.py", "tests/training/test_tracking.py")),
    Selection(
        "A38",
        "malicious model, adapter and template folders; credentials as values",
        ("tests/security", "tests/config/test_secrets.py"),
    ),
    Selection(
        "A40", "validation split: no overlap, stable", ("tests/data/test_split.py", "tests/data/audit/test_leaks.py")
    ),
    Selection(
        "A41",
        "each row as often as declared, 1 to 4 processes",
        ("tests/training/test_ledger.py", "tests/training/test_sampler.py"),
    ),
    Selection(
        "A44",
        "every exit code, and run.json agrees with it, also under a launcher",
        ("tests/test_errors.py", "tests/attempt", "tests/cli/test_hand_over.py"),
    ),
    Selection("A43", "committed losses of each recipe", ("tests/training/test_golden.py",)),
)
