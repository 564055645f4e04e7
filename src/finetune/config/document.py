"""Reading the YAML text: values, and the place where each was written.

YAML 1.2 numbers (``1e-5`` is a number, ``010`` is ten, ``12:30`` is text) with the booleans of YAML 1.1 that Axolotl's
files use (``yes``, ``on``).  Duplicate keys, tags, and text that expands out of proportion are faults.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import ConfigError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 20

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Resolver(yaml.SafeLoader):
    """PyYAML's parser with the scalar types described above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own declaration


_Resolver.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Resolver.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$"),
    list("tTfFyYnNoO"),
)
_Resolver.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$|^0x[0-9a-fA-F]+$|^0o[0-7]+$"), list("-+0123456789")
)
_Resolver.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Resolver.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the configuration, and where."""

    path: KeyPath
    message: str
    where: str = ""


@dataclass
class Document:
    """A configuration as written: plain values, and ``file:line:column`` of every key and item."""

    file: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, path: KeyPath) -> str:
        """Return the place of ``path``, or of the nearest enclosing key that was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.file


def read_document(path: Path) -> Document:
    """Read and parse ``path``.

    Raises:
        ConfigError: the file is missing, not UTF-8, too large, not YAML, or not a mapping of keys.
    """
    if str(path).startswith("-"):
        raise ConfigError(
            f"command line: {path} stands where the file belongs: CONFIG first, then options and --key value"
        )
    if not path.exists():
        raise ConfigError(f"{path}: no such file (the configuration is a YAML file)")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name the YAML file in it")
    raw = path.read_bytes()
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: {len(raw):,} bytes; a configuration has at most {MAX_BYTES:,}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """Parse YAML ``text``; ``file`` is the name used in messages.

    Raises:
        ConfigError: the text is not YAML, or not a mapping of keys.
    """
    node = _compose(text, file)
    if node is None:
        raise ConfigError(f"{file}: is empty; the least it needs is base_model, datasets and learning_rate")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: expected 'key: value' lines at the top level")
    document = Document(file=file, text=text)
    document.values = _Builder(document).build(node, ())
    return document


def parse_value(text: str) -> Any:
    """Parse one value from the command line with the same rules as the file.

    Raises:
        ConfigError: the text is not a YAML value.
    """
    node = _compose(text, "command line")
    if node is None:
        return None
    document = Document(file="command line", text=text)
    value = _Builder(document).build(node, ())
    if document.faults:
        raise ConfigError(f"command line: {text!r}: {document.faults[0].message}")
    return value


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        loader = _Resolver(text)
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{file}: not valid YAML: {error.reason} (character {error.position})") from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        hint = " (YAML indents with spaces, not tabs)" if "'\\t'" in str(error.problem) else ""
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}{hint}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    finally:
        loader.dispose()


class _Builder:
    """Turns composed nodes into plain values and notes where each stands."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.num_nodes = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise ConfigError(f"{self._where(node)}: anchors and aliases expand to more than a configuration can hold")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.places[path] = self._where(node)
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag.endswith(":merge"):
                merged = self.build(value_node, path)
                for part in merged if isinstance(merged, list) else [merged]:
                    values = {**part, **values}
                continue
            name = str(key_node.value)
            child = (*path, name)
            where = self._where(key_node)
            if name in own:
                self._fault(child, where, f"key given twice (first at {self.document.places[child]}); remove one")
            own.add(name)
            self.document.places[child] = where
            values[name] = self.build(value_node, child)
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return _BOOLS[text.lower()]
        if kind == "int":
            return int(text, 0) if text.startswith(("0x", "0o")) else int(text)
        if kind == "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan").replace("_", ""))
        if kind != "str":
            self._fault(path, self._where(node), f"the YAML tag {node.tag} is not allowed here; write a plain value")
        return text

    def _where(self, node: yaml.Node) -> str:
        return f"{self.document.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _fault(self, path: KeyPath, where: str, message: str) -> None:
        self.document.faults.append(Fault(path, message, where))
