"""The sizes and habits that the code keeps: what must not grow is frozen here."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.repo.source import MODULES, PYTHON_FILES, ROOT, SOURCE, parse

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_FUNCTION_LINES = 12
MAX_PARAMETERS = 7

EMPTY_WORDS = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}
"""Words that say nothing of what a module holds."""

REPLACES_ATTRIBUTES = {"setattr", "delattr", "setitem", "delitem"}
"""Methods of pytest's monkeypatch that change code; setenv and chdir change the surroundings."""

TESTED_ELSEWHERE = {
    "declares keys; config/test_load.py tries the refusals and config/test_reference.py the documentation": (
        "config/adapter.py",
        "config/card.py",
        "config/data.py",
        "config/distributed.py",
        "config/evaluation.py",
        "config/model.py",
        "config/section.py",
        "config/tracking.py",
        "config/training.py",
    ),
    "words the faults whose texts config/test_load.py compares": ("config/complaints.py",),
    "reads one file, which config/test_axolotl_keys.py checks": ("config/foreign.py",),
    "a command, and test_cli.py is written from the user's side": (
        "cli/__init__.py",
        "cli/card.py",
        "cli/console.py",
        "cli/launching.py",
        "cli/keys.py",
        "cli/options.py",
        "cli/preprocess.py",
        "cli/validate.py",
    ),
    "texts and the rows that stand for them, which test_held_out.py chooses": ("model/merging/probe.py",),
    "what formats are made of: every test of a format and of data/test_tokenize.py builds and compares it": (
        "data/segments.py",
    ),
    "puts the parts together, and test_train.py runs the whole": (
        "narration.py",
        "record.py",
        "model/build.py",
        "training/progress.py",
    ),
}
"""Why a module with code has no test module of its own, and which modules that holds for."""

TESTS_OF_MANY = {
    "data/formats/test_golden.py": "the same rows through every format, against what Axolotl gave",
    "data/formats/test_masks.py": "random conversations through formats, templates and tokens",
    "training/test_resume_matrix.py": "whole runs of every method, resumed from each of their checkpoints",
    "training/test_golden.py": "the losses of whole runs, against those that were written down",
    "data/test_bad_input.py": "files with every fault through the whole command, for what a user reads",
}
"""Test module that belongs to no single module: what it tests."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    """Yield every function of a file, methods and nested ones too."""
    for node in ast.walk(parse(path)):
        if isinstance(node, Function):
            yield node


def num_lines(function: Function) -> int:
    """Count lines from ``def`` to the end, docstring and comments included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def num_parameters(function: Function) -> int:
    """Count what a caller may give by name or place; ``self`` and ``cls`` are not given."""
    arguments = function.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")])


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether a handler keeps any exception; one that cleans up and raises it again keeps none."""
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    broad = handler.type is None or bool(names & {"Exception", "BaseException"})
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def replaced_parts(node: ast.AST) -> Iterator[str]:
    """Yield the names under which a node of a test replaces a real part."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if "mock" in name.lower())
    if isinstance(node, ast.arg) and node.arg == "mocker":
        yield node.arg
    if isinstance(node, ast.Attribute) and node.attr in REPLACES_ATTRIBUTES:
        yield f"{ast.unparse(node.value)}.{node.attr}"


def has_code(path: Path) -> bool:
    """Whether a file defines a function or a class."""
    return any(isinstance(node, Function | ast.ClassDef) for node in parse(path).body)


def twins_of(module: Path) -> list[Path]:
    """Return where the tests of a module may be: src/finetune/data/x.py has tests/data/test_x.py.

    Those of a package's own ``__init__.py`` are in test_init.py, or named after the package.
    """
    folder = ROOT / "tests" / module.relative_to(SOURCE).parent
    names = ("init", module.parent.name) if module.name == "__init__.py" else (module.stem,)
    return [folder / f"test_{name}.py" for name in names]


def has_module(test_module: Path) -> bool:
    """Whether a test module is named after a file or a package under src, in the same place."""
    stem = test_module.stem.removeprefix("test_")
    place = SOURCE / test_module.relative_to(ROOT / "tests").parent
    return stem in ("init", place.name) or (place / stem).is_dir() or any(place.glob(f"{stem}.*"))


def test_there_is_something_to_look_at() -> None:
    assert len(PYTHON_FILES) > len(MODULES) > 50


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON_FILES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {f"{relative(path)}:{f.lineno}": num_lines(f) for path in PYTHON_FILES for f in functions(path)}
    assert {place: length for place, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_most_functions_are_very_short() -> None:
    lengths = [num_lines(function) for path in MODULES for function in functions(path)]
    assert statistics.median(lengths) <= MAX_MEDIAN_FUNCTION_LINES


def test_functions_take_few_parameters() -> None:
    """In src and scripts; a test's parameters are its fixtures."""
    files = [path for path in PYTHON_FILES if not relative(path).startswith("tests/")]
    counts = {f"{relative(path)}:{f.lineno}": num_parameters(f) for path in files for f in functions(path)}
    assert {place: count for place, count in counts.items() if count > MAX_PARAMETERS} == {}


def test_names_of_files_and_folders_say_what_is_inside() -> None:
    def words(path: Path) -> set[str]:
        return {word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")}

    assert [relative(path) for path in PYTHON_FILES if words(path) & EMPTY_WORDS] == []


def test_no_attribute_is_guessed() -> None:
    guesses = [
        f"{relative(path)}:{node.lineno}: {node.id}"
        for path in PYTHON_FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Name) and node.id in ("getattr", "hasattr")
    ]
    assert guesses == []


def test_no_handler_swallows_every_exception() -> None:
    broad = [
        f"{relative(path)}:{node.lineno}"
        for path in PYTHON_FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    ]
    assert broad == []


def test_tests_use_real_parts() -> None:
    replaced = [
        f"{relative(path)}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(parse(path))
        for name in replaced_parts(node)
    ]
    assert replaced == []


def test_every_module_has_its_test_module() -> None:
    excused = {name for names in TESTED_ELSEWHERE.values() for name in names}
    modules = {path.relative_to(SOURCE).as_posix(): path for path in MODULES if has_code(path)}
    missing = {name for name, path in modules.items() if not any(twin.is_file() for twin in twins_of(path))}
    assert sorted(missing - excused) == []
    assert sorted(excused - missing) == [], "these have a test module now, or are gone: take them off the list"


def test_every_test_module_has_its_module() -> None:
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    mirrored = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.parent == ROOT / "tests" or path.relative_to(ROOT / "tests").parts[0] in packages
    ]
    alone = {path.relative_to(ROOT / "tests").as_posix() for path in mirrored if not has_module(path)}
    assert alone == TESTS_OF_MANY.keys()
