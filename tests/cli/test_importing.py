"""What a training run imports before its first step, and the garbage collector meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import WriteConfig
from tests.story import LORA, write_run
from tests.tiny import save_tiny_llama

from finetune.cli.importing import unused_packages
from finetune.config import load_config

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
unasked = ("wandb.sdk", "deepspeed", "matplotlib", "sklearn", "tensorboard", "lm_eval", "datasets", "scipy")
print([name for name in unasked if name in sys.modules])
"""


def test_the_collector_rests_during_the_imports_and_works_again_after_them_and_nothing_unasked_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-3:] == ["True True", "True", "[]"]


HIDING = """
import importlib.util, sys
from finetune.cli.importing import without
import json
with without("json", "wave", "colorsys"):
    try:
        import wave
    except ModuleNotFoundError as error:
        print(error.name)
    print(importlib.util.find_spec("colorsys"), json is sys.modules["json"])
import colorsys, wave
print(colorsys.__name__, wave.__name__)
sys.modules["transformers"] = wave
with without("zipapp"):
    import zipapp
print(zipapp.__name__)
"""


def test_packages_that_a_run_does_without_are_not_there_meanwhile_unless_somebody_has_asked_before() -> None:
    done = subprocess.run([sys.executable, "-c", HIDING], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["wave", "None", "True", "colorsys", "wave", "zipapp"]


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({}, ("bitsandbytes", "deepspeed", "torchao")),
        ({"optimizer": "adafactor"}, ("bitsandbytes", "deepspeed", "torchao")),
        ({"optimizer": "ademamix"}, ("deepspeed", "torchao")),
        ({"optimizer": "adamw_8bit"}, ("deepspeed", "torchao")),
        ({"adapter": "lora", "load_in_8bit": True, "lora_target_linear": True}, ("deepspeed", "torchao")),
        ({"adapter": "qlora", "load_in_4bit": True, "lora_target_linear": True}, ("deepspeed", "torchao")),
        ({"deepspeed": "zero1.json"}, ("bitsandbytes", "torchao")),
        ({"fp8": True, "bf16": True}, ("bitsandbytes", "deepspeed")),
    ],
    ids=str,
)
def test_a_run_does_without_what_it_does_not_ask_for(
    write_config: WriteConfig, changes: dict[str, object], unused: tuple[str, ...]
) -> None:
    assert unused_packages(load_config(write_config(**changes))) == unused


RUN = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.__stderr__))
from finetune.cli import main
main(["train", *sys.argv[1:]])
"""


def test_a_lora_run_on_local_rows_imports_neither_quantization_nor_engines_nor_tables(
    tmp_path: Path,
) -> None:
    words = [
        write_run(tmp_path, save_tiny_llama(tmp_path / "llama")),
        *LORA,
        "--max_steps=1",
        "--debug",
        "--launcher=none",
    ]
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True)

    imported = json.loads(done.stderr.splitlines()[-1])
    assert "peft" in imported
    assert not {"bitsandbytes", "deepspeed", "datasets", "pandas"} & set(imported)
