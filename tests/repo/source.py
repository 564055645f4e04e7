"""The project's own Python files, parsed: what the repository-wide tests look at."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "finetune"
MODULES = sorted(SOURCE.rglob("*.py"))
PYTHON_FILES = sorted(
    path for folder in ("src", "tests", "scripts", "examples", "configs") for path in (ROOT / folder).rglob("*.py")
)


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of ``path``."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    """Return the dotted name of a file under src: ``finetune.data.formats.row``."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(node: ast.AST) -> list[str]:
    """Return the dotted names that an import statement binds; an empty list for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import hides which package is meant"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def all_imports(path: Path) -> set[str]:
    """Return everything that ``path`` imports, inside functions too."""
    return {name for node in ast.walk(parse(path)) for name in imported_names(node)}


def top_level_imports(path: Path) -> set[str]:
    """Return what importing ``path`` imports: all but the imports inside functions and ``if __name__``."""
    names: set[str] = set()
    for statement in parse(path).body:
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.If):
            names.update(name for node in ast.walk(statement) for name in imported_names(node))
    return names
