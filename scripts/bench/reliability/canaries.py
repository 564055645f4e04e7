"""A37: secrets where people put them by mistake, and whether any shows up in what a run writes or says."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reliability.forks import command, run
from reliability.record import Row, joined, listed
from reliability.resume import deepspeed_file
from reliability.runs import COLUMNS, ROWS, Lab
from reliability.stock import stock

LETTERS = "abcdefghijklmnopqrstuvwx"


def hugging_face(number: int) -> str:
    """Return what looks like a token and is none."""
    return f"hf_{LETTERS}Canary{number:02d}"


@dataclass(frozen=True)
class Plant:
    """One secret and where it was put."""

    where: str
    secret: str


def canaries(lab: Lab) -> Row:
    """A37."""
    found = [*_beside_a_run(lab), *_as_values(lab)]
    leaks = [f"{plant.where}: in {place}" for plant, place in found if place]
    return Row(
        "A37",
        "secrets planted where people put them",
        len(found),
        len(found) - len(leaks),
        joined(f"{len(leaks)} of {len(found)} leaked ({', '.join(plant.where for plant, _ in found)})", listed(leaks)),
        _stock(lab),
        {"planted": len(found), "leaked": len(leaks)},
    )


def found_in(folder: Path, log: str, secret: str) -> str:
    """Return where a secret is: a file of ``folder``, its name, or what was said; empty where it is nowhere."""
    wanted = secret.encode()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if secret in name or (path.is_file() and wanted in path.read_bytes()):
            return name
    return "what was said" if secret in log else ""


def _beside_a_run(lab: Lab) -> list[tuple[Plant, str]]:
    """Train to the end with secrets all around, and look for them in the output folder and in what was said."""
    plants = {
        "YAML comment": hugging_face(1),
        "HF_TOKEN": hugging_face(2),
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "c0ffee02",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/Canary04",
        "home folder": "private-canary-05",
    }
    case = lab.case("a37", num_epochs=1, wandb_project="canaries")
    comment = f"# log in with {plants['YAML comment']}; the base came from /home/{plants['home folder']}/base\n"
    case.config.write_text(comment + case.config.read_text())
    environment = {name: plants[name] for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")}
    done = run(command("train", case.config), case.folder / "train.log", environment=environment)
    if done.exit_code:
        raise RuntimeError(done.last_words)
    return [(Plant(name, secret), found_in(case.out, done.text, secret)) for name, secret in plants.items()]


def _as_values(lab: Lab) -> list[tuple[Plant, str]]:
    """Give secrets as values, each in a run of its own, which may refuse them: neither way may it repeat them."""
    token = {number: hugging_face(number) for number in range(6, 14)}
    folder = lab.folder / "a37-data" / token[6]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(lab.rows, folder / "rows.jsonl")
    bad_row = lab.folder / "a37-row.jsonl"
    bad_row.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"instruction": "x", "output": [token[7]]}) + "\n")
    engine = lab.folder / "a37-zero.json"
    engine.write_text(json.dumps({**json.loads(Path(deepspeed_file(lab, 1)).read_text()), "comment": token[8]}))
    address = "https://ann:pa55canary12@127.0.0.1:9/x.jsonl"
    changes: dict[str, tuple[dict[str, Any], str]] = {
        "folder of the data": ({"datasets": [{"path": str(folder / "rows.jsonl"), "type": COLUMNS}]}, token[6]),
        "row that is refused": ({"datasets": [{"path": str(bad_row), "type": COLUMNS}]}, token[7]),
        "DeepSpeed file": ({"deepspeed": str(engine)}, token[8]),
        "YAML key": ({"hub_token": token[9]}, token[9]),
        "value of another key": ({"learning_rate": token[10]}, token[10]),
        "unknown key": ({"my_notes": token[11]}, token[11]),
        "name for the tracker": ({"wandb_project": "canaries", "wandb_name": token[12]}, token[12]),
        "password in an address": ({"datasets": [{"path": address, "type": COLUMNS}]}, "pa55canary12"),
    }
    return [(Plant(where, secret), _place(lab, change, secret)) for where, (change, secret) in changes.items()]


def _place(lab: Lab, change: dict[str, Any], secret: str) -> str:
    """Run with one changed value; return where the secret is afterwards."""
    case = lab.case("a37-value", num_epochs=1)
    case.config.write_text(yaml.safe_dump({**yaml.safe_load(case.config.read_text()), **change}))
    return found_in(case.out, case.run().text, secret)


def _stock(lab: Lab) -> str:
    """Give the plain script a ``hub_token``, as its documentation does."""
    script = stock(lab, "a37")
    script.run(num_train_epochs=1, save_total_limit=9, hub_token=hugging_face(20))
    folders = [script.out, *sorted(script.out.glob("checkpoint-*"))]
    leaks = [folder for folder in folders if found_in(folder, "", hugging_face(20))]
    names = {re.sub(r".*/", "", found_in(folder, "", hugging_face(20))) for folder in leaks}
    return f"`hub_token` in clear in {len(leaks)} of {len(folders)} folders ({', '.join(sorted(names))})"
