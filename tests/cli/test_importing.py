"""What a training run imports before its first step, and the garbage collector meanwhile."""

import subprocess
import sys

SCRIPT = """
import gc, sys
from finetune.cli.importing import heavy_imports
with heavy_imports():
    assert not gc.isenabled()
    import finetune.narration, finetune.train
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
frozen = gc.get_freeze_count()
made = [[] for _ in range(1000)]
with heavy_imports():
    assert gc.isenabled()
print(gc.get_freeze_count() == frozen)
unasked = ("wandb.sdk", "deepspeed", "matplotlib", "sklearn", "tensorboard", "lm_eval")
print([name for name in unasked if name in sys.modules])
"""


def test_the_collector_rests_during_the_imports_and_works_again_after_them_and_nothing_unasked_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-3:] == ["True True", "True", "[]"]
