"""Everything that can go wrong, done on purpose: the reliability matrix and its scorecard.

    python scripts/bench/reliability.py [--short] [--rows A3,A12] [--jobs 2] [--output FILE] [--work FOLDER]

The full form takes about half an hour on two cores and writes scripts/bench/RELIABILITY.md; the short one, or some
rows alone, print the page.  Rows are run side by side, but for those whose result is a duration.  Ends with 1 if a row
failed.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "RELIABILITY.md"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> int:
    """Run the rows and render what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer cases of each row; minutes")
    parser.add_argument("--rows", help="numbers with commas [all]")
    parser.add_argument("--jobs", type=int, default=2, help="rows that are run at once [2]")
    parser.add_argument("--output", type=Path, help="where the page goes")
    parser.add_argument(
        "--work", type=Path, help="keep what the runs leave here; rows that have held there are not run again"
    )
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)  # before torch is imported
    # a shell's "&" starts programs that ignore Ctrl-C, and so would every run that is to be stopped by it
    signal.signal(signal.SIGINT, signal.default_int_handler)
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

    from reliability.matrix import rows, run_all  # noqa: PLC0415
    from reliability.render import in_short, render  # noqa: PLC0415

    known = rows()
    wanted = options.rows.split(",") if options.rows else list(known)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"--rows: {', '.join(unknown)} not known; there are {', '.join(known)}")
    output = options.output or (None if options.short or options.rows else PAGE)
    started, found, page = time.monotonic(), {}, ""
    for result in run_all(wanted, folder, short=options.short, num_at_once=options.jobs):
        print(in_short(result), flush=True)
        found[result.name] = result
        results = [found[name] for name in wanted if name in found]
        page = render(results, len(wanted), time.monotonic() - started, short=options.short)
        if output:
            output.write_text(page, encoding="utf-8")  # each time: a run that is cut short leaves what it showed
    print(f"\n{page}")
    return int(any(result.row.failed for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
