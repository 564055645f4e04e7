"""Everything that can go wrong, done on purpose: the reliability matrix and its scorecard.

python scripts/bench/reliability.py [--short] [--rows A3,A12] [--output FILE]
"""

import sys, time, tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from reliability.forks import import_all

import_all()
from reliability.runs import Lab
from reliability import kills

lab = Lab(Path(tempfile.mkdtemp(prefix="rel-")), short=True)
for f in (kills.random_kills, kills.aimed_kills):
    t = time.time()
    print(f(lab))
    print(time.time() - t)
