"""A31: forty faulty YAML files, each through the command of its own process, as a user meets it."""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from reliability.record import Row, joined, listed
from reliability.runs import Lab

LIMIT_S = 1.0
"""Of CPU, so that a busy machine does not count."""

BASE = b"base_model: ./model\ndatasets:\n  - path: rows.jsonl\n    type: alpaca\nlearning_rate: 1e-5\n"
"""Five lines without a fault; what is added stands on line 6."""

LEVELS = [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
LEVELS += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]".encode() for n in range(1, 8)]
BOMB = b"\n".join(LEVELS)


def _with(line: str) -> bytes:
    return BASE + line.encode() + b"\n"


CORPUS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    # typing mistakes
    "misspelt key": (_with("learning_rte: 1e-5"), ("config.yml:6:1", "Did you mean 'learning_rate'?")),
    "misspelt key of a data set": (BASE.replace(b"type: alpaca", b"type: alpaca\n    fild: x"), (
        "config.yml:5:5", "Did you mean 'field'?"
    )),
    "another tool's key": (_with("rl: dpo"), ("config.yml:6:1", "known from Axolotl and not supported")),
    "misspelt value": (_with("optimizer: adamw_hf"), ("config.yml:6:1", "Did you mean 'adamw_torch'?")),
    "key given twice": (_with("learning_rate: 2e-5"), ("config.yml:6:1", "first at", "config.yml:5:1")),
    "misspelt special token": (_with("special_tokens: {eos: x}"), ("config.yml:6:18", "Did you mean 'eos_token'?")),
    # shapes
    "text where a list belongs": (BASE.replace(b"\n  - path: rows.jsonl\n    type: alpaca", b" rows.jsonl"), (
        "config.yml:2:1", "datasets: expected a list, found text"
    )),
    "empty list": (BASE.replace(b"\n  - path: rows.jsonl\n    type: alpaca", b" []"), ("config.yml:2:1", "at least 1")),
    "wrong nesting": (_with("training:\n  seed: 1"), ("config.yml:6:1", "unknown key 'training'")),
    "list at the top": (b"- a\n", ("config.yml:1", "expected 'key: value' lines at the top level")),
    "empty file": (b"", ("config.yml", "is empty")),
    "only comments": (b"# nothing\n", ("config.yml", "is empty")),
    "missing key": (BASE.replace(b"learning_rate: 1e-5\n", b""), ("learning_rate is missing",)),
    "missing type": (BASE.replace(b"    type: alpaca\n", b""), ("config.yml:3:5", "datasets[0].type is missing")),
    # YAML itself
    "tab": (_with("special_tokens:\n\tpad_token: x"), ("config.yml:7:1", "cannot start any token")),
    "open bracket": (_with("tokens: [a, b"), ("config.yml:7:1", "not valid YAML")),
    "open quote": (_with('output_dir: "out'), ("config.yml", "not valid YAML")),
    "two documents": (BASE + b"---\na: 1\n", ("config.yml:6:1", "another document")),
    "NUL": (_with("output_dir: \x00"), ("config.yml", "not valid YAML")),
    "Latin-1": (BASE + "output_dir: modèle\n".encode("latin-1"), ("config.yml:6", "not UTF-8")),
    "UTF-16": (BASE.decode().encode("utf-16"), ("config.yml",)),
    "alias bomb": (BASE + BOMB + b"\n", ("expand to more than a configuration can hold",)),
    "recursive alias": (_with("tokens: &a [*a]"), ("expand to more than a configuration can hold",)),
    "Python tag": (_with("output_dir: !!python/name:os.system"), ("config.yml:6", "is not allowed")),
    # numbers
    "not a number": (_with("weight_decay: .nan"), ("config.yml:6:1", "expected a finite number, found nan")),
    "infinity": (_with("weight_decay: .inf"), ("config.yml:6:1", "expected a finite number")),
    "negative": (_with("val_set_size: -1"), ("config.yml:6:1", "greater than or equal to 0")),
    "huge": (BASE.replace(b"1e-5", b"3.0"), ("config.yml:5:1", "less than or equal to 1")),
    "zero": (_with("micro_batch_size: 0"), ("config.yml:6:1", "greater than or equal to 1")),
    "fraction": (_with("sequence_len: 12.5"), ("config.yml:6:1", "expected a whole number, found 12.5")),
    "boolean for a number": (_with("sequence_len: yes"), ("config.yml:6:1", "expected a whole number, found true")),
    "time of day": (_with("seed: 12:30:45"), ("config.yml:6:1", "expected a whole number, found text")),
    "text for a number": (BASE.replace(b"1e-5", b"fast"), ("config.yml:5:1", "expected a number, found text")),
    "text for a switch": (_with("sample_packing: maybe"), ("config.yml:6:1", "expected true or false, found text")),
    # contradictions
    "4-bit without an adapter": (_with("load_in_4bit: true"), ("add adapter: lora",)),
    "bf16 and fp16": (_with("bf16: true\nfp16: true"), ("bf16 and fp16 exclude each other",)),
    "evaluation without data": (_with("evals_per_epoch: 2"), ("needs validation data",)),
    "two lengths of warm-up": (_with("warmup_steps: 1\nwarmup_ratio: 0.1"), ("exclude each other",)),
    # secrets and strangers
    "secret": (_with("hub_token: hf_planted0123456789abcdef"), ("config.yml:6:1", "in the environment")),
    "code of a data set": (BASE.replace(b"type: alpaca", b"type: alpaca\n    trust_remote_code: true"), (
        "config.yml:5:5", "never run"
    )),
    "faulty regular expression": (_with("unfrozen_parameters: ['(x']"), ("config.yml:6", "not a regular expression")),
    "many faults": (_with("learning_rte: 1\nbf16: maybe\nval_set_size: -1"), (
        "3 problems", "config.yml:6:1", "config.yml:7:1", "config.yml:8:1"
    )),
}  # fmt: skip

PROGRAM = """
import sys
from finetune.cli import main
try:
    main(["train", sys.argv[1]])
finally:
    print("torch" in sys.modules)
"""


def bad_yaml(lab: Lab) -> Row:
    """A31."""
    folder = lab.folder / "a31"
    folder.mkdir()
    wanted = list(CORPUS.items())[:: lab.count(1, 5)]
    failures, seconds, lines = [], [], 0
    for name, (content, fragments) in wanted:
        took, said, num_lines = _refuse(folder, content, fragments)
        seconds.append(took)
        lines += num_lines
        failures += [f"{name}: {said}"] if said else []
    return Row(
        "A31",
        "faulty YAML files, through `finetune train` in a new process",
        len(wanted),
        len(wanted) - len(failures),
        joined(
            f"{len(wanted) - len(failures)} of {len(wanted)} refused with exit 2 and the place, torch not imported; "
            f"{1000 * statistics.median(seconds):.0f} ms median, {1000 * max(seconds):.0f} ms at most, with the start "
            f"of Python; {lines / len(wanted):.1f} lines of text each",
            listed(failures),
        ),
        figures={"bad": len(wanted), "named": len(wanted) - len(failures), "ms": 1000 * statistics.median(seconds)},
    )


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _refuse(folder: Path, content: bytes, fragments: tuple[str, ...]) -> tuple[float, str, int]:
    """Run the command; return its seconds, what is wrong with the answer, and how many lines it had."""
    (folder / "config.yml").write_bytes(content)
    started, before = time.monotonic(), _cpu_of_children()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "config.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    seconds, cpu = time.monotonic() - started, _cpu_of_children() - before
    absent = [fragment for fragment in fragments if fragment not in done.stderr]
    last = " ".join(done.stderr.split())[-160:]
    if done.returncode != 2 or absent or "Traceback" in done.stderr:
        return seconds, f"exit {done.returncode}, without {absent}: {last}", 0
    if "hf_planted" in done.stderr or (folder / "marker").exists():
        return seconds, "a secret was shown, or code was run", 0
    if done.stdout.strip() != "False":
        return seconds, "torch was imported", 0
    late = f"{cpu:.1f} s of CPU" if cpu > LIMIT_S else ""
    return seconds, late, len(done.stderr.strip().splitlines())
