"""A1, A2, A14: a resumed run ends as the one that nobody stopped, or is refused by name."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.record import Row, joined, listed
from reliability.runs import LORA, ROWS, Case, Lab, ledger, published, weights_digest
from reliability.stock import stock

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "LoRA": LORA,
    "packed": {"sample_packing": True, "micro_batch_size": 1, "sequence_len": 64},
    "unfrozen": {"unfrozen_parameters": ["mlp", "^model.embed_tokens.weight$[5:]"]},
    "4-bit LoRA": {**LORA, "load_in_4bit": True},
}
NUM_OF_SHORT = 2
"""Recipes in the short form."""

ALL_SAVED: Mapping[str, Any] = {"save_steps": 1, "save_total_limit": 100}


def every_point(lab: Lab) -> Row:
    """A1."""
    recipes = list(RECIPES.items())[: lab.count(len(RECIPES), NUM_OF_SHORT)]
    tried, failures = 0, []
    for name, changes in recipes:
        case = lab.case(f"a1-{name.replace(' ', '-')}", **ALL_SAVED, **changes)
        whole = case.run()
        steps = published(case.out)[:-1]
        steps = steps[:: lab.count(1, 7)]
        tried += max(len(steps), 1)
        failures += [] if steps else [f"{name}: {whole.last_words}"]
        failures += [f"{name}, {said}" for step in steps if (said := resume_at(case, step))]
        shutil.rmtree(case.folder)
    names = ", ".join(name for name, _ in recipes)
    return Row(
        "A1",
        "resume from every saved step, dropout on, 2 passes a step, 2 epochs",
        tried,
        tried - len(failures),
        joined(f"{tried - len(failures)} of {tried} resume points bit-identical ({names})", listed(failures)),
        figures={"points": tried, "same": tried - len(failures)},
    )


def resume_at(case: Case, step: int, world_size: int = 1) -> str:
    """Go on from one checkpoint into a folder of its own; return what differs from the whole run."""
    out = case.folder / f"from-{step}"
    words = (f"--resume_from_checkpoint={case.out / f'checkpoint-{step}'}", f"--output_dir={out}")
    done = case.run(*words, world_size=world_size)
    if done.exit_code:
        return f"step {step}: {done.last_words}"
    if ledger(out, step) != ledger(case.out, step):
        return f"step {step}: the losses of later steps differ"
    same = weights_digest(out) == weights_digest(case.out)
    shutil.rmtree(out)
    return "" if same else f"step {step}: the final weights differ"


def deepspeed_file(lab: Lab, stage: int) -> str:
    """Write a DeepSpeed file of one stage that shards even the smallest tensors."""
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    path = lab.folder / f"zero{stage}.json"
    path.write_text(json.dumps({"zero_optimization": zero}))
    return str(path)


def two_processes(lab: Lab) -> Row:
    """A2."""
    engines = {"DDP": None, "ZeRO-1": deepspeed_file(lab, 1), "ZeRO-3": deepspeed_file(lab, 3)}
    names = list(engines)[: lab.count(3, 1)]
    tried, failures = 0, []
    for name in names:
        case = lab.case(f"a2-{name}", **ALL_SAVED, deepspeed=engines[name])
        whole = case.run(world_size=2)
        steps = [step for step in (1, 4, 6, 9) if step in published(case.out)][: lab.count(4, 1)]
        tried += max(len(steps), 1)
        failures += [] if steps else [f"{name}: {whole.last_words}"]
        failures += [f"{name}, {said}" for step in steps if (said := resume_at(case, step, 2))]
    return Row(
        "A2",
        "resume of two processes over gloo, in both epochs",
        tried,
        tried - len(failures),
        joined(f"{tried - len(failures)} of {tried} bit-identical ({', '.join(names)})", listed(failures)),
        figures={"points": tried, "same": tried - len(failures)},
    )


@dataclass(frozen=True)
class Change:
    """Something that is not as it was when the run was stopped."""

    words: tuple[str, ...]
    """On the command line."""
    names: str
    """What the refusal has to name."""


def _change(key: str, value: str) -> Change:
    return Change((f"--{key}={value}",), f"{key}: ")


CHANGES = (
    _change("learning_rate", "0.005"),
    _change("seed", "7"),
    _change("sequence_len", "64"),
    _change("micro_batch_size", "4"),
    _change("gradient_accumulation_steps", "4"),
    _change("optimizer", "adamw_torch"),
    _change("lr_scheduler", "linear"),
    _change("warmup_steps", "3"),
    _change("weight_decay", "0.1"),
    _change("max_grad_norm", "0.5"),
    _change("adam_beta2", "0.95"),
    _change("neftune_noise_alpha", "5"),
    _change("group_by_length", "true"),
    _change("sample_packing", "true"),
    _change("val_set_size", "4"),
    _change("train_on_inputs", "true"),
    _change("unfrozen_parameters", "[mlp]"),
    Change(("--adapter=lora", "--lora_target_linear=true"), "adapter: "),
    Change(("--special_tokens={pad_token: </s>}",), "special_tokens"),
)


def changed_on_resume(lab: Lab) -> Row:
    """A14."""
    case = lab.case("a14")
    case.run()
    for final in case.out.glob("*.safetensors"):
        final.unlink()
    changes = CHANGES[:: lab.count(1, 4)]
    failures = [said for change in changes if (said := _refused(case, change))]
    files = [said for name in ("row edited", "weights edited", "two processes") if (said := _other_input(lab, name))]
    files += [said] if (said := _allowed(case)) else []
    tried = len(changes) + 4
    return Row(
        "A14",
        "a resume under changed values, data, weights or number of processes",
        tried,
        tried - len(failures) - len(files),
        joined(
            f"{len(changes)} keys and 3 other inputs, refused old → new; a rate that --allow-changed names trains",
            listed(failures + files, 5),
        ),
        stock=_stock_ignores(lab),
        figures={"fields": len(changes)},
    )


def _refused(case: Case, change: Change) -> str:
    done = case.run("--resume", *change.words)
    if done.exit_code not in (2, 3):
        return f"{change.words[0]}: {done.last_words}"
    named = change.names in done.text and " -> " in done.text
    return "" if named else f"{change.words[0]}: not named: {done.last_words}"


def _allowed(case: Case) -> str:
    """Go on with half the learning rate, and say so on the command line."""
    step = published(case.out)[0]
    changed = Case(case.folder / "allowed", case.config)
    words = (f"--resume_from_checkpoint={case.out / f'checkpoint-{step}'}", f"--output_dir={changed.out}")
    done = changed.run(*words, "--learning_rate=0.005", "--allow-changed=learning_rate")
    if done.exit_code:
        return f"--allow-changed: {done.last_words}"
    rates = [(row[-1], old[-1]) for row, old in zip(ledger(changed.out, step), ledger(case.out, step), strict=True)]
    halved = rates and all(abs(rate - old / 2) < 1e-9 for rate, old in rates)
    return "" if halved else f"--allow-changed: rates {rates} (new, old)"


def _other_input(lab: Lab, name: str) -> str:
    """Change what the values point to, or the number of processes."""
    rows, model = lab.folder / "a14-rows.jsonl", lab.folder / "a14-llama"
    shutil.copy(lab.rows, rows)
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(lab.model, model)
    columns = {"format": "{instruction} ", "no_input_format": "{instruction} "}
    case = lab.case("a14-input", datasets=[{"path": str(rows), "type": columns}], base_model=str(model), num_epochs=1)
    case.run()
    world_size = 1
    if name == "row edited":
        rows.write_text("".join(json.dumps({**row, "output": "Rome."}) + "\n" for row in ROWS))
    elif name == "weights edited":
        _negate(model / "model.safetensors")
    else:
        world_size = 2
    done = case.run("--resume", world_size=world_size)
    return "" if done.exit_code in (2, 3, 4, 7) else f"{name}: {done.last_words}"


def _negate(file: Path) -> None:
    """Change one number of the weights: the sign of the last."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x80
    file.write_bytes(content)


def _stock_ignores(lab: Lab) -> str:
    """Resume the plain script with half the learning rate."""
    script = stock(lab, "a14")
    script.run(num_train_epochs=1, save_steps=5)
    before = _rates(script.out)
    shutil.rmtree(script.out / "checkpoint-10")
    done = script.run(num_train_epochs=1, save_steps=5, learning_rate=0.005)
    after = _rates(script.out)
    unchanged = before[-3:] == after[-3:]
    how = "goes on with the old one without a word" if unchanged else f"goes on with {after[-1:]}"
    return f"a changed learning rate: exit {done.exit_code}, {how}"


def _rates(out: Path) -> list[float]:
    newest = max(published(out))
    state = json.loads((out / f"checkpoint-{newest}" / "trainer_state.json").read_text())
    return [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]
