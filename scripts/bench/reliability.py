"""Everything that can go wrong, done on purpose: the reliability matrix and its scorecard.

    python scripts/bench/reliability.py [--short] [--rows A3,A12] [--output FILE] [--work FOLDER]

The full form takes about half an hour on two cores and writes scripts/bench/RELIABILITY.md; the short one, or some
rows alone, print the page.  Ends with 1 if a row failed.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "RELIABILITY.md"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> int:
    """Run the rows and render what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer cases of each row; minutes")
    parser.add_argument("--rows", help="numbers with commas [all]")
    parser.add_argument("--output", type=Path, help="where the page goes")
    parser.add_argument("--work", type=Path, help="keep what the runs leave here [a temporary folder]")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)  # before torch is imported
    sys.path.insert(0, str(HERE.parents[1]))
    folder = options.work or Path(tempfile.mkdtemp(prefix="reliability-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return run(folder.resolve(), options)
    finally:
        if not options.work:
            shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, options: argparse.Namespace) -> int:
    """Run the wanted rows in ``folder``."""
    from reliability.forks import import_all  # noqa: PLC0415 - the surroundings are set first

    import_all()

    from reliability.matrix import rows, run_row  # noqa: PLC0415
    from reliability.render import render  # noqa: PLC0415
    from reliability.runs import Lab  # noqa: PLC0415

    known = rows()
    wanted = options.rows.split(",") if options.rows else list(known)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"--rows: {', '.join(unknown)} not known; there are {', '.join(known)}")
    lab, results = Lab(folder, short=options.short), []
    for name in wanted:
        result = run_row(name, known[name], lab)
        row, took = result.row, f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} s of CPU"
        verdict = "not shown" if row.missing else "FAILED" if row.failed else "holds"
        print(f"{name} {verdict} {row.passed}/{row.tried} ({took}): {row.details or row.missing}", flush=True)
        results.append(result)
    page = render(results, short=options.short)
    print(f"\n{page}")
    output = options.output or (None if options.short or options.rows else PAGE)
    if output:
        output.write_text(page, encoding="utf-8")
    return int(any(result.row.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
