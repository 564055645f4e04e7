"""The peers' own virtual environments, made once under a folder that git does not see."""

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A program that we are compared with."""

    name: str
    package: str
    driver: str
    """Script in peers/ that prepares the rows with it."""
    unwanted: tuple[str, ...] = ()
    """Packages that come with it and do not load beside the CPU build of torch; nothing here needs them."""
    remark: str = ""
    """Why its labels differ from ours, where they do."""
    trains: str = ""
    """Script in peers/ that trains with it."""
    needs: tuple[str, ...] = ()
    """Packages that it takes for training and does not bring."""


LINE_END = "its chatml trains the line end behind each answer's `<|im_end|>`, which the others leave out"

PEERS = (
    Peer("TRL", "trl", "trl_rows.py", trains="trl_train.py", needs=("peft",)),
    Peer(
        "LLaMA-Factory",
        "llamafactory",
        "llamafactory_rows.py",
        ("torchvision", "torchaudio"),
        LINE_END,
        "llamafactory_train.py",
    ),
    Peer("Axolotl", "axolotl", "axolotl_rows.py"),
)


@dataclass(frozen=True)
class Installed:
    """A peer that can be run."""

    peer: Peer
    python: Path
    versions: str


def install(peer: Peer, folder: Path) -> Installed | str:
    """Make the environment of ``peer`` if it is not there; return the reason where it cannot be had."""
    python = folder / peer.package / "bin" / "python"
    torch = importlib.metadata.version("torch").split("+")[0]
    steps = [
        [sys.executable, "-m", "venv", str(folder / peer.package)],
        [str(python), "-m", "pip", "install", "--quiet", f"torch=={torch}", peer.package, *peer.needs],
    ]
    if peer.unwanted:
        steps.append([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *peer.unwanted])
    if not python.exists():
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"cannot be installed: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    found = _versions(python)
    if peer.package not in found:
        return f"is not in {python.parent.parent}; remove that folder to install it again"
    absent = [name for name in peer.needs if name not in found]
    if absent:
        return f"{python.parent.parent} is without {', '.join(absent)}; remove that folder to install it again"
    return Installed(peer, python, f"{peer.name} {_words(found, peer.package)}")


def own_versions() -> str:
    """Return the versions that this repository runs with."""
    names = ("finetune", "transformers", "tokenizers", "fastokens", "jinja2", "numpy", "pyarrow")
    return "finetune " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names).removeprefix(
        "finetune "
    )


def _versions(python: Path) -> dict[str, str]:
    listing = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    return {entry["name"].lower(): entry["version"] for entry in json.loads(listing.stdout)}


def _words(found: dict[str, str], package: str) -> str:
    others = [f"{name} {found[name]}" for name in ("transformers", "tokenizers", "datasets", "torch") if name in found]
    return f"{found[package]} ({', '.join(others)})"
