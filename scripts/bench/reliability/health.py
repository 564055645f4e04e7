"""A26, A28, A29, A33, A34: numbers that are not finite, nothing to train, and what the machine lacks."""

import json
import re
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_tokenizer
from transformers import AutoModelForCausalLM

from reliability.forks import Outcome, command, run
from reliability.record import Row, joined, listed
from reliability.resume import deepspeed_file
from reliability.runs import COLUMNS, LORA, ROWS, Lab, published
from reliability.stock import Stock, stock

POISON = "~"
"""A character that no row holds but one, and whose embedding is not a number."""


@dataclass(frozen=True)
class Refusal:
    """A run that has to be refused."""

    name: str
    exit_codes: tuple[int, ...]
    said: str
    """Regular expression for what has to be said."""
    changes: Mapping[str, Any]
    words: tuple[str, ...] = field(default=())

    def judge(self, done: Outcome) -> str:
        """Return what is wrong with the answer."""
        if done.exit_code not in self.exit_codes or "Traceback" in done.text:
            return f"{self.name}: {done.last_words}"
        return "" if re.search(self.said, done.text) else f"{self.name}: not said: {done.last_words}"


def run_refusals(lab: Lab, row: str, what: str, refusals: list[Refusal], stock_said: str = "") -> Row:
    """Run them all and compare the answers."""
    failures = []
    for number, refusal in enumerate(refusals):
        case = lab.case(f"{row.lower()}-{number}", **refusal.changes)
        said = refusal.judge(case.run(*refusal.words))
        failures += [said] if said else []
    names = ", ".join(refusal.name for refusal in refusals)
    return Row(row, what, len(refusals), len(refusals) - len(failures), joined(names, listed(failures)), stock_said)


def unmatched_patterns(lab: Lab) -> Row:
    """A26."""
    adapter = {"adapter": "lora", "lora_r": 4}
    return run_refusals(
        lab,
        "A26",
        "a pattern that matches nothing",
        [
            Refusal("one LoRA target of two", (2, 4), "vv_proj.*v_proj", {
                **adapter, "lora_target_modules": ["q_proj", "vv_proj"]
            }),
            Refusal("the only LoRA target", (2, 4), "vv_proj.*v_proj", {**adapter, "lora_target_modules": ["vv_proj"]}),
            Refusal("all of unfrozen_parameters", (2, 4, 6), "mlpp", {"unfrozen_parameters": ["mlpp"]}),
        ],
        "" if lab.short else _stock_unmatched(lab),
    )  # fmt: skip


def _stock_unmatched(lab: Lab) -> str:
    """Give the same targets to PEFT."""
    said = []
    for targets in (["q_proj", "vv_proj"], ["vv_proj"]):

        def adapt(targets: list[str] = targets) -> int:
            get_peft_model(AutoModelForCausalLM.from_pretrained(lab.model), LoraConfig(target_modules=targets))
            return 0

        done = run(adapt, lab.folder / "peft.log")
        named = "" if "vv_proj" in done.text else ", not named"
        said.append(f"{' and '.join(targets)}: {'refused' if done.exit_code else f'taken{named}'}")
    return f"PEFT, {'; '.join(said)}"


def not_finite(lab: Lab) -> Row:
    """A28."""
    model, rows = poisoned(lab)
    shared = {"base_model": str(model), "datasets": [{"path": str(rows), "type": COLUMNS}], "save_total_limit": 9}
    trained = {"unfrozen_parameters": ["mlp"]}  # all but the embeddings, which hold the number that is none
    recipes: dict[str, tuple[Mapping[str, Any], int]] = {
        "some weights": (trained, 1),
        "LoRA": (LORA, 1),
        "packed": ({**LORA, "sample_packing": True, "micro_batch_size": 1, "sequence_len": 64}, 1),
        "DDP": ({**trained, "micro_batch_size": 1}, 2),
        "ZeRO-1": ({**trained, "micro_batch_size": 1, "deepspeed": deepspeed_file(lab, 1)}, 2),
    }
    wanted = list(recipes.items())[: lab.count(5, 2)]
    seeds = range(lab.count(4, 2))
    failures = []
    for (name, (changes, world_size)), seed in ((recipe, seed) for recipe in wanted for seed in seeds):
        case = lab.case(f"a28-{name.split()[0]}-{seed}", **{**shared, **changes}, seed=seed)
        said = _judge_not_finite(case.run(world_size=world_size), case.out, rows)
        failures += [f"{name}, seed {seed}: {said}"] if said else []
    tried = len(wanted) * len(seeds)
    names = ", ".join(name for name, _ in wanted)
    return Row(
        "A28",
        "a loss that is not a number, in one row of forty",
        tried,
        tried - len(failures),
        joined(f"{names}: exit 6 before the update, row and file named, checkpoints finite", listed(failures)),
        _stock_not_finite(lab, model, rows),
    )


def poisoned(lab: Lab) -> tuple[Path, Path]:
    """Return a model for which one character is not a number, and rows of which one holds it."""
    model, rows = lab.folder / "poisoned", lab.folder / "poisoned.jsonl"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(lab.model, model)
    weights = load_file(model / "model.safetensors")
    token = tiny_tokenizer().convert_tokens_to_ids(POISON)
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    bad = [{**row, "instruction": POISON + row["instruction"]} if n == 24 else row for n, row in enumerate(ROWS)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in bad))
    return model, rows


def _judge_not_finite(done: Outcome, out: Path, rows: Path) -> str:
    if done.exit_code != 6 or "Traceback" in done.text:
        return done.last_words
    if f"{rows.name}:25" not in done.text:
        return f"the row is not named: {done.last_words}"
    if list(out.glob("*.safetensors")):
        return "a result was saved"
    return "" if _finite_but_for_one(out) else "a checkpoint is damaged"


def _finite_but_for_one(out: Path) -> bool:
    """Whether all weights of the checkpoints are finite, but for the one row that never was."""
    for step in published(out):
        for file in (out / f"checkpoint-{step}").glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                if int(tensor.isfinite().logical_not().any(dim=-1).sum()) > (1 if "embed_tokens" in name else 0):
                    return False
    return True


def _stock_not_finite(lab: Lab, model: Path, rows: Path) -> str:
    script = stock(lab, "a28")
    done = Stock(model, rows, script.out).run(num_train_epochs=1)
    zero = "'loss': '0'" in done.text or "'loss': 0.0" in done.text
    return f"exit {done.exit_code}, {'the loss is logged as 0' if zero else 'the loss is logged'} and training goes on"


def nothing_to_train(lab: Lab) -> Row:
    """A29."""
    empty, one = lab.folder / "empty.jsonl", lab.folder / "one.jsonl"
    empty.write_text("")
    one.write_text(json.dumps(ROWS[0]) + "\n")
    masked = lab.folder / "masked.jsonl"
    masked.write_text("".join(json.dumps({**row, "output": ""}) + "\n" for row in ROWS))
    return run_refusals(
        lab,
        "A29",
        "nothing to train on, and the least there can be",
        [
            Refusal("all rows too long", (3, 6), r"40", {"sequence_len": 8}),
            Refusal("all answers empty", (3, 6), r"40|no ", {"datasets": [{"path": str(masked), "type": COLUMNS}]}),
            Refusal("an empty file", (3,), r"is empty", {"datasets": [{"path": str(empty), "type": COLUMNS}]}),
            Refusal("all parameters frozen", (2, 4, 6), r"nothing|matches", {"unfrozen_parameters": ["none_such"]}),
            Refusal("one row trains", (0,), r"done", {"datasets": [{"path": str(one), "type": COLUMNS}]}),
            Refusal("fewer rows than a batch train", (0,), r"done", {"micro_batch_size": 64, "save_steps": None}),
        ],
    )


def what_is_lacking(lab: Lab) -> Row:
    """A33."""
    return run_refusals(
        lab,
        "A33",
        "what this machine lacks: run, or exit 5 by rule",
        [
            Refusal("4-bit on a CPU runs", (0,), "done", {**LORA, "load_in_4bit": True, "num_epochs": 1}),
            Refusal("bf16 on a CPU runs", (0,), "done", {"bf16": True, "num_epochs": 1}),
            Refusal("flash attention asked for by name", (5,), "flash", {"attn_implementation": "flash_attention_2"}),
            Refusal("fp16 on a CPU", (5,), "fp16", {"bf16": None, "fp16": True}),
            Refusal("tf32 on a CPU", (0, 5), "tf32|done", {"tf32": True, "num_epochs": 1}),
        ],
    )


def out_of_memory(lab: Lab) -> Row:
    """A34."""
    what = "the memory that the process may have (RLIMIT_AS) is not enough"
    case = lab.case("a34", sequence_len=8192, micro_batch_size=64, datasets=[
        {"path": str(_long_rows(lab)), "type": COLUMNS}
    ])  # fmt: skip

    def limited() -> int:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, used + 600 * 2**20))
        return command("train", case.config)()

    done = run(limited, case.folder / "train.log")
    good = done.exit_code == 5 and "micro_batch_size" in done.text and "Traceback" not in done.text
    said = done.last_words if not good else "exit 5, says what was being done and the cheapest changes"
    return Row("A34", what, 1, int(good), said if good else listed([said]))


def _long_rows(lab: Lab) -> Path:
    path = lab.folder / "long.jsonl"
    text = " ".join(str(n) for n in range(900))
    path.write_text("".join(json.dumps({"instruction": f"{n}", "output": f"{text} {n}"}) + "\n" for n in range(64)))
    return path
