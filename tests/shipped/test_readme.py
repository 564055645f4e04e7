"""What the READMEs show is true: the tree, the configuration, the commands."""

import re
from pathlib import Path

import pytest
from tests.shipped.commands import code_blocks, command_faults, commands_in

from finetune.config import load_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FOLDERS = [ROOT / name for name in ("configs", "deepspeed_configs", "examples")]
TEXTS = [README, *sorted(path for folder in FOLDERS for path in folder.rglob("*.md"))]

ENTRY = re.compile(r"^(?P<indent>[\s│]*)(?:[├└]──\s)?(?P<name>[\w./<>*-]+)")


def readme() -> str:
    return README.read_text(encoding="utf-8")


def tree_paths() -> list[Path]:
    """Return the paths that the README's tree names.

    A line names an entry where it has a branch (``├──``) or begins at the margin; any other line continues a comment.
    """
    (tree,) = [block for block in code_blocks(readme()) if "├──" in block and "src/finetune/" in block]
    paths: list[Path] = []
    above: dict[int, Path] = {}
    for line in tree.splitlines():
        found = ENTRY.match(line)
        if not found or not ("── " in line or line[:1].strip()):
            continue
        column = found.start("name")
        parents = [above[other] for other in sorted(above) if other < column]
        path = (parents[-1] if parents else ROOT) / found["name"]
        above = {other: folder for other, folder in above.items() if other < column} | {column: path}
        paths.append(path)
    return paths


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_readme_is_short() -> None:
    assert len(readme().splitlines()) <= 180


def test_the_tree_names_only_what_is_there() -> None:
    assert [relative(path) for path in tree_paths() if not path.exists()] == []


def test_the_tree_names_every_folder_of_the_source() -> None:
    named = {path.resolve() for path in tree_paths()}
    source = ROOT / "src" / "finetune"
    folders = [path for path in source.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert [relative(path) for path in [source, *folders] if path not in named] == []


def test_the_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    whole = [block for block in code_blocks(readme(), "yaml") if "base_model:" in block]
    assert whole
    for text in whole:
        path = tmp_path / "config.yml"
        path.write_text(text, encoding="utf-8")
        assert load_config(path).source.notes == []


def test_the_readme_shows_how_to_train() -> None:
    assert any(command.startswith("finetune train ") for command in commands_in(readme()))


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_every_command_in_a_text_exists_with_its_options(path: Path) -> None:
    faults = {command: command_faults(command) for command in commands_in(path.read_text(encoding="utf-8"))}
    assert {command: found for command, found in faults.items() if found} == {}


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_every_local_link_and_script_in_a_text_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not re.match(r"[a-z]+:", link)]
    scripts = re.findall(r"\./(scripts/\w+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
