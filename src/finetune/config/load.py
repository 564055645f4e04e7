"""From a YAML file and command line words to a checked :class:`RunConfig`, or to all faults at once."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune.config.complaints import complaints
from finetune.config.contradictions import contradictions
from finetune.config.defaults import fill_defaults
from finetune.config.document import Document, Fault, read_document
from finetune.config.foreign import foreign_keys
from finetune.config.overrides import apply_overrides, parse_overrides
from finetune.config.run import OWNERS, SECTIONS, RunConfig, Source
from finetune.config.secrets import secret_values
from finetune.config.section import Section
from finetune.errors import ConfigError, nearest


def load_config(path: str | Path, arguments: list[str] | None = None) -> RunConfig:
    """Read ``path``, apply command line ``arguments`` (``--key value``), and check everything.

    Raises:
        ConfigError: listing every fault with ``file:line:column``.
    """
    document = read_document(Path(path))
    overrides = parse_overrides(arguments or [])
    apply_overrides(document, overrides)
    faults = list(document.faults)
    notes: list[str] = []
    values = _drop_nulls(document.values)
    for fault, note in _unknown_keys(values):
        if fault:
            faults.append(fault)
        if note:
            notes.append(note)
    faults += secret_values(values)
    known = {name: value for name, value in values.items() if name in OWNERS}
    sections = _build_sections(fill_defaults(known), faults)
    if len(sections) == len(SECTIONS):
        source = Source(file=str(path), text=document.text, overrides=overrides, notes=notes)
        config = RunConfig(**sections, source=source)
        faults += contradictions(config)
        if not faults:
            return config
    raise ConfigError(_report(document, faults))


def _drop_nulls(value: Any) -> Any:
    """Null means unset, at every depth."""
    if isinstance(value, dict):
        return {name: _drop_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_drop_nulls(item) for item in value if item is not None]
    return value


def _unknown_keys(values: dict[str, Any]) -> Iterator[tuple[Fault | None, str | None]]:
    """Yield a fault or a note for every key that is not ours."""
    unknown = [name for name in values if name not in OWNERS]
    if not unknown:
        return
    foreign = foreign_keys()
    for name in unknown:
        entry = foreign.get(name)
        if entry is None:
            secret = re.search(r"token|key|secret|password", name)
            hint = " Secrets do not belong in this file; use an environment variable." if secret else ""
            yield Fault((name,), f"unknown key '{name}'.{nearest(name, OWNERS)}{hint} (finetune keys lists all)"), None
        elif entry.effect == "hint" or (values[name] is False and not entry.default):
            yield None, f"{name}: known from Axolotl, has no effect here ({entry.advice})"
        elif entry.effect == "secret":
            yield Fault((name,), f"'{name}' would put a secret in a file; {entry.advice}"), None
        else:
            yield (
                Fault(
                    (name,),
                    f"'{name}' is known from Axolotl and not supported, and could change the result: {entry.advice}",
                ),
                None,
            )


def _build_sections(values: dict[str, Any], faults: list[Fault]) -> dict[str, Section]:
    sections: dict[str, Section] = {}
    for section_name, model in SECTIONS.items():
        own = {name: value for name, value in values.items() if OWNERS[name] == section_name}
        try:
            sections[section_name] = model.model_validate(own)
        except ValidationError as error:
            faults += complaints(error, own, model)
    return sections


def _report(document: Document, faults: list[Fault]) -> str:
    """One line for each fault, in the order of the file."""
    lines = sorted({(fault.where or _place(document, fault), fault.message) for fault in faults}, key=_file_order)
    count = f"{len(lines)} problems" if len(lines) > 1 else "1 problem"
    return f"{document.file}: {count}\n" + "\n".join(f"  {where}: {message}" for where, message in lines)


def _place(document: Document, fault: Fault) -> str:
    """The place of the fault's key; a check of a whole section stands where the first key it names stands."""
    if fault.path:
        return document.place(fault.path)
    for word in re.findall(r"\w+", fault.message):
        if (word,) in document.places:
            return document.places[(word,)]
    return document.file


def _file_order(line: tuple[str, str]) -> tuple[str, int, int, str]:
    where, message = line
    match = re.fullmatch(r"(.*?):(\d+):(\d+)", where)
    return (match[1], int(match[2]), int(match[3]), message) if match else (where, 0, 0, message)
