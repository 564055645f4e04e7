"""Memory that really runs out, and what is advised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.story import write_run
from tests.tiny import save_tiny_llama

from finetune.config import RunConfig, load_config
from finetune.memory import LOADING, Work, changes


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("memory") / "llama")


LIMITED = """
import re, resource, sys
from pathlib import Path
import finetune.train
import transformers.models.llama.modeling_llama
from finetune.cli import main
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 150 * 10**6,) * 2)
main(["train", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of the process is read from /proc")
def test_a_step_without_memory_says_its_batch_and_what_helps(tmp_path: Path, tiny_llama: Path) -> None:
    config = write_run(tmp_path, tiny_llama)
    rows = [{"instruction": "Please tell me, " * 8, "output": f"Oslo {n}. "} for n in range(700)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(config), "--sequence_len=256", "--micro_batch_size=600"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    lines = done.stderr[done.stderr.index("finetune: ") :].splitlines()
    assert lines[0].startswith("finetune: memory ran out in step 1, on a micro-batch of 83,901 tokens; ")
    assert lines[1].startswith("  By the estimate this run needs ")
    assert lines[2:5] == [
        "  What helps, the cheapest first:",
        "    micro_batch_size: 300 with gradient_accumulation_steps: 2  (the same steps)",
        "    gradient_checkpointing: true  (the same steps, each about a third slower)",
    ]
    assert not list((tmp_path / "out").glob("checkpoint-*"))


@pytest.fixture
def config_file(tmp_path: Path, tiny_llama: Path) -> Path:
    return write_run(tmp_path, tiny_llama)


def keys(config: RunConfig, doing: str, num_processes: int = 1) -> list[str]:
    return [change.split(":")[0] for change in changes(config, doing, num_processes)]


def test_only_what_this_run_can_still_change_is_advised(config_file: Path) -> None:
    whole = load_config(config_file, [])
    assert keys(whole, "step 3") == [
        "micro_batch_size",
        "gradient_checkpointing",
        "optimizer",
        "adapter",
        "sequence_len",
    ]
    assert keys(whole, "step 3", 2)[2] == "deepspeed"
    assert keys(whole, LOADING) == ["optimizer", "adapter"]
    assert keys(whole, "the evaluation after step 4")[0] == "eval_batch_size"
    small = ["--micro_batch_size=1", "--gradient_checkpointing=true", "--adapter=lora", "--lora_target_linear=true"]
    assert keys(load_config(config_file, small), "step 3") == ["load_in_4bit", "sequence_len"]
    assert keys(load_config(config_file, [*small, "--load_in_4bit=true"]), "step 3") == ["sequence_len"]


@pytest.mark.parametrize(("micro", "accumulation", "told"), [(4, 3, (2, 6)), (3, 2, (1, 6)), (9, 1, (3, 3))])
def test_a_smaller_micro_batch_keeps_the_step(config_file: Path, micro: int, accumulation: int, told: object) -> None:
    config = load_config(config_file, [f"--micro_batch_size={micro}", f"--gradient_accumulation_steps={accumulation}"])
    smaller, more = told  # type: ignore[misc]
    assert changes(config, "step 1", 1)[0] == (
        f"micro_batch_size: {smaller} with gradient_accumulation_steps: {more}  (the same steps)"
    )


def test_other_failures_go_through_as_they_are(config_file: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), Work(load_config(config_file, []), 1).explained():
        raise RuntimeError("shapes do not fit")
