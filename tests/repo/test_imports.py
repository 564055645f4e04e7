"""Arrows between packages point one way: config, data and model, training, card; the story imports them all."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.conftest import WriteConfig
from tests.repo.source import MODULES, SOURCE, all_imports, module_name, parse, top_level_imports

STORY = {
    "train",
    "start",
    "preprocess",
    "record",
    "continuation",
    "surroundings",
    "narration",
    "publish",
    "evaluate",
    "exhausted",
    "rerender",
    "hardware",
    "held_out",
    "memory",
    "fitting",
}
"""Top-level modules that tell what a run does; they may import every package."""

STEPS = {"config", "data", "model", "estimate", "training", "evaluation", "generation", "card"}
STEPS |= {"attempt", "compat", "disk", "errors", "processes", "versions"}

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "compat": {"errors"},
    "disk": {"errors"},
    "processes": {"errors"},
    "attempt": {"card", "config", "errors", "processes"},
    "versions": {"errors"},
    "config": {"errors"},
    "data": {"config", "disk", "errors"},
    "model": {"config", "disk", "errors", "compat"},
    "estimate": {"config", "model", "errors"},
    "training": {"config", "data", "model", "estimate", "disk", "errors", "compat", "processes", "attempt"},
    "evaluation": {"config", "data", "model", "disk", "errors", "compat"},
    "generation": {"config", "data", "model", "errors", "compat"},
    "card": set(),
    "launch": {"config", "errors"},
    "cli": STEPS | STORY | {"launch"},
    **dict.fromkeys(STORY, STEPS | STORY),
    "train": STEPS | STORY | {"cli"},
}
"""Package or top-level module to what it may import of ours besides itself."""

CARD_LIBRARIES = {"jinja2", "markupsafe", "yaml", "matplotlib", "numpy", "pydantic"}
"""The card is made of plain values: it is written without any library that trains."""

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "numpy",
    "wandb",
    "peft",
    "deepspeed",
    "bitsandbytes",
    "accelerate",
}


def owner(path: Path) -> str:
    """Return the package or top-level module that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def ours(names: Iterable[str]) -> set[str]:
    """Return the packages and top-level modules of ours in ``names``; the version alone belongs to nobody."""
    return {name.split(".")[1] for name in names if name.startswith("finetune.")} - {"__version__"}


def foreign(names: Iterable[str]) -> set[str]:
    """Return the libraries in ``names``."""
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"finetune"}


def folder(name: str) -> list[Path]:
    """Return the modules of a package; there must be some."""
    found = [path for path in MODULES if owner(path) == name]
    assert found, f"src/finetune/{name} holds no module"
    return found


def modules_loaded_by(*arguments: str) -> set[str]:
    """Run the command in a fresh process and return the names of all modules that it imported."""
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "finetune", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    timings = [line for line in finished.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in timings}


def test_every_package_has_its_arrows_written_down() -> None:
    assert {owner(path) for path in MODULES} - MAY_IMPORT.keys() == set()


def test_imports_follow_the_arrows() -> None:
    wrong = {
        module_name(path): forbidden
        for path in MODULES
        if (forbidden := ours(all_imports(path)) - MAY_IMPORT[owner(path)] - {owner(path)})
    }
    assert wrong == {}


def test_the_configuration_needs_pydantic_and_yaml_alone() -> None:
    libraries = set().union(*(foreign(all_imports(path)) for path in folder("config")))
    assert libraries == {"pydantic", "pydantic_core", "yaml"}


def test_the_card_needs_no_library_that_trains() -> None:
    libraries = set().union(*(foreign(all_imports(path)) for path in folder("card")))
    assert libraries <= CARD_LIBRARIES


def test_only_the_collator_of_the_data_package_imports_torch() -> None:
    heavy = {"torch", "transformers"}
    assert {path.stem for path in folder("data") if heavy & foreign(top_level_imports(path))} == {"collate"}


def test_commands_import_heavy_things_inside_functions_only() -> None:
    for path in [*folder("cli"), *(path for path in MODULES if owner(path) == "launch")]:
        names = top_level_imports(path)
        assert foreign(names) <= {"click", "rich"}, path
        assert ours(names) <= {"attempt", "cli", "config", "errors", "launch", "processes"}, path


def test_only_the_command_line_prints() -> None:
    def prints(path: Path) -> bool:
        calls = [node.func for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
        called = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
        return called or "click" in foreign(all_imports(path))

    assert {module_name(path) for path in MODULES if prints(path) and owner(path) != "cli"} == set()


def test_help_loads_nothing_heavy_and_no_configuration() -> None:
    loaded = modules_loaded_by("--help")
    assert "click" in loaded
    assert loaded & (HEAVY | {"pydantic", "yaml", "rich"}) == set()


def test_validate_loads_nothing_heavy(write_config: WriteConfig) -> None:
    loaded = modules_loaded_by("validate", str(write_config(dataloader_num_workers=1)))
    assert "pydantic" in loaded
    assert loaded & HEAVY == set()


def test_keys_loads_nothing_heavy() -> None:
    assert modules_loaded_by("keys", "--json-schema") & HEAVY == set()


@pytest.mark.parametrize("name", [module_name(path) for path in MODULES])
def test_a_module_can_be_imported(name: str) -> None:
    importlib.import_module(name)
