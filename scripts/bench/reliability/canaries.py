"""A37: secrets where people put them by mistake, and whether any shows up in what a run writes or says."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from reliability.forks import command, run
from reliability.record import Row, joined, listed
from reliability.resume import deepspeed_file
from reliability.runs import COLUMNS, ROWS, Case, Lab
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
    trained, refused = _trained(lab), _refused(lab)
    leaks = [f"{plant.where}: in {place}" for plant, place in [*trained, *refused] if place]
    plants = [plant for plant, _ in [*trained, *refused]]
    return Row(
        "A37",
        "secrets planted where people put them",
        len(plants),
        len(plants) - len(leaks),
        joined(f"{len(leaks)} of {len(plants)} leaked ({', '.join(plant.where for plant in plants)})", listed(leaks)),
        _stock(lab),
        {"planted": len(plants), "leaked": len(leaks)},
    )


def found_in(folder: Path, log: str, secret: str) -> str:
    """Return where a secret is: a file of ``folder``, its name, or what was said; empty where it is nowhere."""
    wanted = secret.encode()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if secret in name or (path.is_file() and wanted in path.read_bytes()):
            return name
    return "what was said" if secret in log else ""


def _trained(lab: Lab) -> list[tuple[Plant, str]]:
    """Train to the end with secrets all around, and look for them in the output folder and in what was said."""
    hidden = lab.folder / "a37-data" / hugging_face(5)
    hidden.mkdir(parents=True, exist_ok=True)
    rows = hidden / "rows.jsonl"
    rows.write_text(lab.rows.read_text())
    plants = {
        "YAML comment": hugging_face(1),
        "HF_TOKEN": hugging_face(2),
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "c0ffee02",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/Canary04",
        "folder of the data": hugging_face(5),
        "command line": f"ghp_{LETTERS}Canary06",
        "DeepSpeed file": f"sk-{LETTERS}Canary07",
        "home folder": "private-canary-08",
    }
    case = _trained_case(lab, rows, plants)
    environment = {name: plants[name] for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")}
    work = command("train", case.config, f"--wandb_name={plants['command line']}", "--wandb_project=canaries")
    done = run(work, case.folder / "train.log", environment=environment)
    if done.exit_code:
        return [
            (Plant(name, secret), f"nothing: the run failed ({done.last_words})") for name, secret in plants.items()
        ]
    return [(Plant(name, secret), found_in(case.out, done.text, secret)) for name, secret in plants.items()]


def _trained_case(lab: Lab, rows: Path, plants: Mapping[str, str]) -> Case:
    deepspeed = Path(deepspeed_file(lab, 1))
    own = lab.folder / "a37-zero.json"
    own.write_text(
        json.dumps({**json.loads(deepspeed.read_text()), "wandb": {"enabled": False, "team": plants["DeepSpeed file"]}})
    )
    model = f"/home/{plants['home folder']}/base"
    case = lab.case("a37", datasets=[{"path": str(rows), "type": COLUMNS}], num_epochs=1, deepspeed=str(own))
    comment = f"# log in with {plants['YAML comment']}; the base came from {model}\n"
    case.config.write_text(comment + case.config.read_text())
    return case


def _refused(lab: Lab) -> list[tuple[Plant, str]]:
    """Give secrets in the wrong place, which has to be refused without repeating them."""
    token = {number: hugging_face(number) for number in range(9, 14)}
    bad_row = lab.folder / "a37-row.jsonl"
    bad_row.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"instruction": "x", "output": [token[13]]}) + "\n")
    changes = {
        "YAML key": ({"hub_token": token[9]}, token[9]),
        "value of another key": ({"learning_rate": token[10]}, token[10]),
        "unknown key": ({"my_notes": token[11]}, token[11]),
        "password in an address": (
            {"datasets": [{"path": "https://ann:pa55canary12@127.0.0.1:9/x.jsonl", "type": COLUMNS}]},
            "pa55canary12",
        ),
        "row that is refused": ({"datasets": [{"path": str(bad_row), "type": COLUMNS}]}, token[13]),
    }
    found = []
    for where, (change, secret) in changes.items():
        case = lab.case("a37-refused")
        case.config.write_text(yaml.safe_dump({**yaml.safe_load(case.config.read_text()), **change}))
        done = case.run()
        place = found_in(case.out, done.text, secret) if case.out.is_dir() else ""
        place = place or ("what was said" if secret in done.text else "")
        found.append((Plant(where, secret), place if done.exit_code else "nothing: it was not refused"))
    return found


def _stock(lab: Lab) -> str:
    """Give the plain script a ``hub_token``, as its documentation does."""
    script = stock(lab, "a37")
    script.run(num_train_epochs=1, save_total_limit=9, hub_token=hugging_face(20))
    folders = [script.out, *sorted(script.out.glob("checkpoint-*"))]
    leaks = [folder for folder in folders if found_in(folder, "", hugging_face(20))]
    names = {re.sub(r".*/", "", found_in(folder, "", hugging_face(20))) for folder in leaks}
    return f"`hub_token` in clear in {len(leaks)} of {len(folders)} folders ({', '.join(sorted(names))})"
